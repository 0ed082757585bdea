# What is dropped into an inbox is told to the function `job`. An event can come twice or late, and some day not at
# all: `tick` looks for what no event told of.

resource "azurerm_eventgrid_system_topic" "store" {
  name                = "${local.name}-store"
  resource_group_name = azurerm_resource_group.polysky.name
  location            = azurerm_resource_group.polysky.location
  source_resource_id  = azurerm_storage_account.store.id
  topic_type          = "Microsoft.Storage.StorageAccounts"
  tags                = local.tags

  identity {
    type = "SystemAssigned"
  }
}

locals {
  blobs_of_store = "/blobServices/default/containers/${azurerm_storage_container.store.name}/blobs/"
  inboxes        = ["uploads/", "jobs/"]
}

# keys elsewhere tell nobody, so nothing that a function writes starts a function
resource "azurerm_eventgrid_system_topic_event_subscription" "inboxes" {
  name                  = "${local.name}-inboxes"
  system_topic          = azurerm_eventgrid_system_topic.store.name
  resource_group_name   = azurerm_resource_group.polysky.name
  event_delivery_schema = "EventGridSchema"
  included_event_types  = ["Microsoft.Storage.BlobCreated"]

  subject_filter {
    subject_begins_with = local.blobs_of_store
    case_sensitive      = true
  }

  advanced_filter {
    string_begins_with {
      key    = "subject"
      values = [for inbox in local.inboxes : "${local.blobs_of_store}${inbox}"]
    }
    string_in { # the calls that leave a blob whole
      key    = "data.api"
      values = ["PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"]
    }
  }

  azure_function_endpoint {
    function_id          = "${azurerm_function_app_flex_consumption.app["train"].id}/functions/job"
    max_events_per_batch = 1
  }

  retry_policy {
    max_delivery_attempts = 30
    event_time_to_live    = 1440 # minutes
  }

  storage_blob_dead_letter_destination {
    storage_account_id          = azurerm_storage_account.store.id
    storage_blob_container_name = azurerm_storage_container.dead_letters.name
  }

  dead_letter_identity {
    type = "SystemAssigned"
  }

  depends_on = [azurerm_role_assignment.dead_letters]
}
