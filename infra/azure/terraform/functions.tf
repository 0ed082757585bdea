# Two apps: one that only predicts and reads, one that trains, governs and writes (control, job, and tick, whose
# schedule is in the code). This plan has one app each and no slots: an older package is what rolls code back.

locals {
  apps = {
    predict = { memory_mb = var.predict_memory_mb, instances = var.predict_instances, ready = var.always_ready }
    train   = { memory_mb = var.train_memory_mb, instances = var.train_instances, ready = 0 }
  }
  # azurerm uploads a package when its path changes, not when its bytes do: so the path tells the bytes
  packages = { for key in keys(local.apps) : key => "${var.packages}/azure-${key}.zip" }
  digests  = { for key, path in local.packages : key => filemd5(path) }
  uploads  = { for key, digest in local.digests : key => "${var.packages}/uploaded/azure-${key}-${digest}.zip" }

  tokens_secret = var.tokens_secret ? "${azurerm_key_vault.tokens[0].vault_uri}secrets/${azurerm_key_vault_secret.tokens[0].name}" : null
}

resource "terraform_data" "package" {
  for_each         = local.packages
  triggers_replace = local.digests[each.key]

  provisioner "local-exec" {
    command     = "mkdir -p \"$(dirname \"$TO\")\" && cp \"$FROM\" \"$TO\""
    environment = { FROM = each.value, TO = local.uploads[each.key] }
  }
}

resource "azurerm_service_plan" "app" {
  for_each            = local.apps
  name                = "${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.polysky.name
  location            = azurerm_resource_group.polysky.location
  os_type             = "Linux"
  sku_name            = "FC1"
  tags                = local.tags
}

resource "azurerm_function_app_flex_consumption" "app" {
  for_each                    = local.apps
  name                        = "${local.name}-${each.key}-${local.suffix}"
  resource_group_name         = azurerm_resource_group.polysky.name
  location                    = azurerm_resource_group.polysky.location
  service_plan_id             = azurerm_service_plan.app[each.key].id
  runtime_name                = "python"
  runtime_version             = "3.13"
  instance_memory_in_mb       = each.value.memory_mb
  maximum_instance_count      = each.value.instances
  http_concurrency            = var.concurrency
  storage_container_type      = "blobContainer"
  storage_container_endpoint  = "${azurerm_storage_account.host[each.key].primary_blob_endpoint}${azurerm_storage_container.package[each.key].name}"
  storage_authentication_type = "StorageAccountConnectionString"
  storage_access_key          = azurerm_storage_account.host[each.key].primary_access_key
  zip_deploy_file             = local.uploads[each.key]
  https_only                  = true
  tags                        = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.app[each.key].id]
  }

  dynamic "always_ready" {
    for_each = each.value.ready > 0 ? [each.value.ready] : []
    content {
      name           = "http"
      instance_count = always_ready.value
    }
  }

  site_config {
    application_insights_connection_string = azurerm_application_insights.polysky.connection_string
    minimum_tls_version                    = "1.2"
    scm_minimum_tls_version                = "1.2"
    http2_enabled                          = true
  }

  app_settings = merge(
    {
      POLYSKY_STORE                             = "az://${azurerm_storage_container.store.name}"
      AZURE_STORAGE_ACCOUNT_NAME                = azurerm_storage_account.store.name
      AZURE_CLIENT_ID                           = azurerm_user_assigned_identity.app[each.key].client_id
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING = "ClientId=${azurerm_user_assigned_identity.app[each.key].client_id};Authorization=AAD"
      PYTHON_THREADPOOL_THREAD_COUNT            = tostring(var.concurrency)
      # the lines that alerts are made of are not sampled away
      AzureFunctionsJobHost__logging__applicationInsights__samplingSettings__excludedTypes = "Request;Exception;Trace"
    },
    local.tokens_secret == null ? {} : { POLYSKY_TOKENS_SECRET = local.tokens_secret },
    var.settings,
  )

  depends_on = [terraform_data.package, azurerm_role_assignment.store, azurerm_role_assignment.tokens]
}
