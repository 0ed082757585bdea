# The store: models, data and jobs, reached by identities alone. Beside it, one account for each function app's host.

resource "azurerm_storage_account" "store" {
  name                            = "polysky${local.suffix}"
  resource_group_name             = azurerm_resource_group.polysky.name
  location                        = azurerm_resource_group.polysky.location
  account_tier                    = "Standard"
  account_replication_type        = var.replication
  min_tls_version                 = "TLS1_2"
  https_traffic_only_enabled      = true
  shared_access_key_enabled       = false
  default_to_oauth_authentication = true
  allow_nested_items_to_be_public = false
  local_user_enabled              = false
  tags                            = local.tags

  blob_properties {
    versioning_enabled = true
    delete_retention_policy {
      days = 30
    }
    container_delete_retention_policy {
      days = 30
    }
  }
}

resource "azurerm_storage_container" "store" {
  name                  = "store"
  storage_account_id    = azurerm_storage_account.store.id
  container_access_type = "private"
}

# an event that could not be delivered is kept here; the reconciler finds the upload itself
resource "azurerm_storage_container" "dead_letters" {
  name                  = "dead-letters"
  storage_account_id    = azurerm_storage_account.store.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "store" {
  storage_account_id = azurerm_storage_account.store.id

  rule {
    name    = "deleted-and-replaced"
    enabled = true
    filters {
      blob_types = ["blockBlob"]
    }
    actions {
      version {
        delete_after_days_since_creation = 90
      }
    }
  }

  rule {
    name    = "dead-letters"
    enabled = true
    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${azurerm_storage_container.dead_letters.name}/"]
    }
    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = 30
      }
    }
  }
}

# An account is deleted with all that is in it. While keep_store was true at the last apply, `destroy` ends here.
resource "terraform_data" "keep" {
  input = var.keep_store

  provisioner "local-exec" {
    when = destroy
    command = (self.output
      ? "echo 'the store is kept: apply with keep_store=false, then destroy, to delete models and data' && exit 1"
    : "exit 0")
  }

  depends_on = [azurerm_storage_container.store, azurerm_storage_management_policy.store]
}

# A host keeps its leases, keys and the package here: neither app can change what the other one runs.
# By key, since azurerm's AzureWebJobsStorage of an app on this plan is a connection string whatever the
# authentication (its issues 29149 and 29693); nothing of ours lies in these accounts.
resource "azurerm_storage_account" "host" {
  for_each                        = local.apps
  name                            = "polysky${local.suffix}${each.key}"
  resource_group_name             = azurerm_resource_group.polysky.name
  location                        = azurerm_resource_group.polysky.location
  account_tier                    = "Standard"
  account_replication_type        = "LRS"
  min_tls_version                 = "TLS1_2"
  https_traffic_only_enabled      = true
  shared_access_key_enabled       = true
  allow_nested_items_to_be_public = false
  local_user_enabled              = false
  tags                            = local.tags

  blob_properties {
    delete_retention_policy {
      days = 7
    }
  }

  sas_policy {
    expiration_period = "01.00:00:00"
  }
}

resource "azurerm_storage_container" "package" {
  for_each              = local.apps
  name                  = "package"
  storage_account_id    = azurerm_storage_account.host[each.key].id
  container_access_type = "private"
}
