# One identity for each app, with what its code does in the store and nothing else.

resource "azurerm_user_assigned_identity" "app" {
  for_each            = local.apps
  name                = "${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.polysky.name
  location            = azurerm_resource_group.polysky.location
  tags                = local.tags
}

locals {
  blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
  path  = "@Resource[${local.blobs}:path]"
  # where each app may act: below these keys it reads, and deletes what matches these; it lists everything
  access = {
    predict = {
      role   = "Storage Blob Data Reader"
      action = "${local.blobs}/read"
      except = " AND NOT SubOperationMatches{'Blob.List'}"
      keys   = concat(["reg/*"], var.tokens_secret ? [] : ["auth/*"])
    }
    train = {
      role   = "Storage Blob Data Contributor"
      action = "${local.blobs}/delete"
      except = ""
      keys   = ["reg/*/art/*", "reg/*/ckpt/*"] # log entries are never deleted
    }
  }
}

resource "azurerm_role_assignment" "store" {
  for_each             = local.access
  scope                = azurerm_storage_container.store.id
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.app[each.key].principal_id
  principal_type       = "ServicePrincipal"
  description          = "Polysky: what the app ${each.key} does in the store"
  condition_version    = "2.0"
  condition = format(
    "((!(ActionMatches{'%s'}%s)) OR (%s))",
    each.value.action, each.value.except,
    join(" OR ", [for key in each.value.keys : "${local.path} StringLike '${key}'"]),
  )
}

resource "azurerm_role_assignment" "telemetry" {
  for_each             = local.apps
  scope                = azurerm_application_insights.polysky.id
  role_definition_name = "Monitoring Metrics Publisher"
  principal_id         = azurerm_user_assigned_identity.app[each.key].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "dead_letters" {
  scope                = azurerm_storage_container.dead_letters.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_eventgrid_system_topic.store.identity[0].principal_id
  principal_type       = "ServicePrincipal"
}
