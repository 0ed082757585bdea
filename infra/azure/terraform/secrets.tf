# The token records, where they are not in the store. What is set here is an empty document, which knows no token:
#   az keyvault secret set --vault-name NAME --name tokens --file <(polysky token export)

resource "azurerm_key_vault" "tokens" {
  count                      = var.tokens_secret ? 1 : 0
  name                       = "polysky-${local.suffix}"
  resource_group_name        = azurerm_resource_group.polysky.name
  location                   = azurerm_resource_group.polysky.location
  tenant_id                  = data.azurerm_client_config.here.tenant_id
  sku_name                   = "standard"
  rbac_authorization_enabled = true
  purge_protection_enabled   = var.keep_store
  soft_delete_retention_days = 30
  tags                       = local.tags

  lifecycle {
    # Azure never takes it back: the apply with keep_store=false that comes before `destroy` would fail on it. A vault
    # that was made with it stays for 30 days after `destroy`, deleted; an apply within them recovers it.
    ignore_changes = [purge_protection_enabled]
  }
}

resource "azurerm_role_assignment" "operator" {
  count                = var.tokens_secret ? 1 : 0
  scope                = azurerm_key_vault.tokens[0].id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = data.azurerm_client_config.here.object_id
}

resource "azurerm_key_vault_secret" "tokens" {
  count            = var.tokens_secret ? 1 : 0
  name             = "tokens"
  key_vault_id     = azurerm_key_vault.tokens[0].id
  content_type     = "application/json"
  value_wo         = "{}" # is in no state; later versions are the operator's
  value_wo_version = 1
  depends_on       = [azurerm_role_assignment.operator]
}

resource "azurerm_role_assignment" "tokens" {
  for_each             = var.tokens_secret ? local.apps : {}
  scope                = azurerm_key_vault_secret.tokens[0].resource_versionless_id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.app[each.key].principal_id
  principal_type       = "ServicePrincipal"
}
