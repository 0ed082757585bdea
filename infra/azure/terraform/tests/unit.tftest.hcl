# What the stack promises, against a mocked provider: no account, no network.

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      subscription_id = "00000000-0000-0000-0000-000000000001"
      tenant_id       = "00000000-0000-0000-0000-000000000002"
      object_id       = "00000000-0000-0000-0000-000000000003"
    }
  }
  mock_resource "azurerm_resource_group" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock" }
  }
  mock_resource "azurerm_storage_account" {
    defaults = {
      id                    = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.Storage/storageAccounts/mock"
      primary_blob_endpoint = "https://mock.blob.core.windows.net/"
      primary_access_key    = "bW9jaw=="
    }
  }
  mock_resource "azurerm_storage_container" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.Storage/storageAccounts/mock/blobServices/default/containers/mock" }
  }
  mock_resource "azurerm_service_plan" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.Web/serverFarms/mock" }
  }
  mock_resource "azurerm_function_app_flex_consumption" {
    defaults = {
      id               = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.Web/sites/mock"
      default_hostname = "mock.azurewebsites.net"
    }
  }
  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id           = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mock"
      principal_id = "00000000-0000-0000-0000-000000000004"
      client_id    = "00000000-0000-0000-0000-000000000005"
    }
  }
  mock_resource "azurerm_log_analytics_workspace" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.OperationalInsights/workspaces/mock" }
  }
  mock_resource "azurerm_application_insights" {
    defaults = {
      id                = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.Insights/components/mock"
      connection_string = "InstrumentationKey=mock"
    }
  }
  mock_resource "azurerm_monitor_action_group" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.Insights/actionGroups/mock" }
  }
  mock_resource "azurerm_eventgrid_system_topic" {
    defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.EventGrid/systemTopics/mock" }
  }
  mock_resource "azurerm_key_vault" {
    defaults = {
      id        = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.KeyVault/vaults/mock"
      vault_uri = "https://mock.vault.azure.net/"
    }
  }
  mock_resource "azurerm_key_vault_secret" {
    defaults = { resource_versionless_id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/mock/providers/Microsoft.KeyVault/vaults/mock/secrets/tokens" }
  }
  mock_resource "azurerm_api_management" {
    defaults = { gateway_url = "https://mock.azure-api.net" }
  }
}

variables {
  subscription_id = "00000000-0000-0000-0000-000000000001"
  packages        = "tests/packages"
  keep_store      = false # what a test makes is destroyed at its end
}

run "defaults" {
  assert {
    condition     = alltrue([for key, one in azurerm_function_app_flex_consumption.app : startswith(one.name, "polysky-prod-${key}-")])
    error_message = "an app is not named after its environment"
  }
  assert {
    condition     = alltrue([for one in azurerm_function_app_flex_consumption.app : one.runtime_name == "python" && one.runtime_version == "3.13" && one.https_only])
    error_message = "an app runs another Python, or answers without TLS"
  }
  assert {
    condition = alltrue([for one in azurerm_function_app_flex_consumption.app :
    one.app_settings.POLYSKY_STORE == "az://store" && one.app_settings.AZURE_STORAGE_ACCOUNT_NAME == azurerm_storage_account.store.name])
    error_message = "an app does not know its store"
  }
  assert {
    condition = alltrue([for key, one in azurerm_function_app_flex_consumption.app :
      one.app_settings.AZURE_CLIENT_ID == azurerm_user_assigned_identity.app[key].client_id &&
    tolist(one.identity[0].identity_ids)[0] == azurerm_user_assigned_identity.app[key].id])
    error_message = "an app has not its own identity"
  }
  assert {
    condition = alltrue([for one in azurerm_function_app_flex_consumption.app :
    one.app_settings.PYTHON_THREADPOOL_THREAD_COUNT == tostring(one.http_concurrency)])
    error_message = "requests wait for threads that are not there"
  }
  assert {
    condition = alltrue([for one in azurerm_function_app_flex_consumption.app :
    strcontains(one.app_settings.AzureFunctionsJobHost__logging__applicationInsights__samplingSettings__excludedTypes, "Trace")])
    error_message = "lines that alerts are made of may be sampled away"
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.app["train"].maximum_instance_count == 2 && length(azurerm_function_app_flex_consumption.app["predict"].always_ready) == 0
    error_message = "training is not bounded, or an instance costs while nobody asks"
  }
  assert {
    condition     = alltrue([for key, one in azurerm_function_app_flex_consumption.app : strcontains(one.zip_deploy_file, filemd5("tests/packages/azure-${key}.zip"))])
    error_message = "a new package would not be uploaded"
  }
  assert {
    condition     = length(azurerm_api_management.gateway) == 0 && length(azurerm_key_vault.tokens) == 0
    error_message = "there is a gateway or a vault that nobody asked for"
  }
  assert {
    condition     = output.url == "https://mock.azurewebsites.net" && output.store == "az://store"
    error_message = "the outputs do not say where things are"
  }
}

run "the_store_is_closed_and_keeps_versions" {
  command = plan # of what the run before applied

  assert {
    condition = (
      azurerm_storage_account.store.min_tls_version == "TLS1_2" && azurerm_storage_account.store.https_traffic_only_enabled &&
      !azurerm_storage_account.store.shared_access_key_enabled && !azurerm_storage_account.store.allow_nested_items_to_be_public
    )
    error_message = "the store can be reached without TLS, with a key, or by anybody"
  }
  assert {
    condition     = azurerm_storage_account.store.blob_properties[0].versioning_enabled && azurerm_storage_account.store.blob_properties[0].delete_retention_policy[0].days == 30
    error_message = "what is replaced or deleted is gone"
  }
  assert {
    condition     = alltrue([for one in azurerm_storage_account.host : one.min_tls_version == "TLS1_2" && !one.allow_nested_items_to_be_public])
    error_message = "a host's account is open"
  }
  assert {
    condition     = length(distinct([for one in azurerm_storage_account.host : one.name])) == 2 && alltrue([for one in azurerm_storage_account.host : length(one.name) <= 24])
    error_message = "one app could change what the other one runs, or a name is too long"
  }
}

run "least_privilege" {
  command = plan # of what the run before applied

  assert {
    condition     = azurerm_role_assignment.store["predict"].role_definition_name == "Storage Blob Data Reader"
    error_message = "the predicting app may write"
  }
  assert {
    condition     = alltrue([for one in azurerm_role_assignment.store : one.scope == azurerm_storage_container.store.id])
    error_message = "a role reaches beyond the store's container"
  }
  assert {
    condition = azurerm_role_assignment.store["train"].condition == join("", [
      "((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete'})) OR (",
      "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path] StringLike 'reg/*/art/*' OR ",
      "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path] StringLike 'reg/*/ckpt/*'))",
    ])
    error_message = "something else than artifacts and old checkpoints can be deleted"
  }
  assert {
    condition = azurerm_role_assignment.store["predict"].condition == join("", [
      "((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'} AND NOT SubOperationMatches{'Blob.List'})) OR (",
      "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path] StringLike 'reg/*' OR ",
      "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path] StringLike 'auth/*'))",
    ])
    error_message = "the predicting app may read what was uploaded"
  }
}

run "events_of_the_inboxes_alone" {
  command = plan # of what the run before applied

  assert {
    condition = toset(azurerm_eventgrid_system_topic_event_subscription.inboxes.advanced_filter[0].string_begins_with[0].values) == toset([
      "/blobServices/default/containers/store/blobs/uploads/", "/blobServices/default/containers/store/blobs/jobs/",
    ])
    error_message = "an object outside the inboxes starts a function"
  }
  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.inboxes.included_event_types == tolist(["Microsoft.Storage.BlobCreated"])
    error_message = "other events than creations start a function"
  }
  assert {
    condition = (
      azurerm_eventgrid_system_topic_event_subscription.inboxes.retry_policy[0].max_delivery_attempts == 30 &&
      azurerm_eventgrid_system_topic_event_subscription.inboxes.storage_blob_dead_letter_destination[0].storage_blob_container_name == "dead-letters"
    )
    error_message = "an event is given up early, or lost"
  }
  assert {
    condition     = endswith(azurerm_eventgrid_system_topic_event_subscription.inboxes.azure_function_endpoint[0].function_id, "/functions/job")
    error_message = "events go to another function"
  }
}

run "alarms" {
  command = plan # of what the run before applied

  assert {
    condition = length(setsubtract(
      ["errors-predict", "errors-train", "slow", "drift", "parked", "alerts"], keys(azurerm_monitor_scheduled_query_rules_alert_v2.alarm),
    )) == 0
    error_message = "an alarm is missing"
  }
  assert {
    condition = (
      azurerm_monitor_scheduled_query_rules_alert_v2.alarm["slow"].criteria[0].threshold == 500 &&
      azurerm_monitor_scheduled_query_rules_alert_v2.alarm["slow"].window_duration == "PT5M" &&
      strcontains(azurerm_monitor_scheduled_query_rules_alert_v2.alarm["slow"].criteria[0].query, "percentile(DurationMs, 99)")
    )
    error_message = "the latency alarm is another one"
  }
  assert {
    condition     = azurerm_monitor_metric_alert.dead_letters.criteria[0].metric_name == "DeadLetteredCount" && azurerm_monitor_metric_alert.dead_letters.criteria[0].threshold == 0
    error_message = "dead letters wake nobody"
  }
  assert {
    condition     = length(jsondecode(azurerm_application_insights_workbook.polysky.data_json).items) == 6
    error_message = "a chart is missing"
  }
}

run "a_second_environment" {
  variables {
    environment = "test"
  }
  assert {
    condition     = azurerm_resource_group.polysky.name == "polysky-test" && azurerm_storage_account.store.name != run.defaults.account
    error_message = "two environments would collide"
  }
}

run "a_gateway_with_an_issuer" {
  variables {
    gateway = true
    jwt = {
      configuration = "https://issuer.example.com/.well-known/openid-configuration"
      issuer        = "https://issuer.example.com"
      audience      = ["polysky"]
    }
  }
  assert {
    condition     = azurerm_api_management.gateway[0].sku_name == "Consumption_0" && output.url == "https://mock.azure-api.net"
    error_message = "the gateway is another one, or nobody is told where it is"
  }
  assert {
    condition = (
      strcontains(azurerm_api_management_api_policy.polysky[0].xml_content, "<validate-jwt ") &&
      strcontains(azurerm_api_management_api_policy.polysky[0].xml_content, "<audience>polysky</audience>") &&
      strcontains(azurerm_api_management_api_policy.polysky[0].xml_content, "<issuer>https://issuer.example.com</issuer>")
    )
    error_message = "tokens are not checked"
  }
  assert {
    condition = alltrue([for key, one in azurerm_api_management_api_operation_policy.particular :
    strcontains(one.xml_content, "<inbound><base />") != local.operations[key].public])
    error_message = "an operation is not behind the check, or a public one is"
  }
  assert {
    condition = alltrue([for key, backend in { post-predict-model = "predict", get-health = "predict", post-train = "train", post-retrain-model = "train" } : strcontains(
      try(azurerm_api_management_api_operation_policy.particular[key].xml_content, azurerm_api_management_api_policy.polysky[0].xml_content),
      "backend-id=\"${backend}\"",
    )])
    error_message = "an operation goes to the wrong app"
  }
  assert {
    condition     = !strcontains(azurerm_api_management_api_operation_policy.preflight[0].xml_content, "<inbound><base />")
    error_message = "browsers cannot ask which origins are allowed"
  }
}

run "options" {
  variables {
    tokens_secret = true
    always_ready  = 1
    alarm_email   = "night@example.com"
    settings      = { POLYSKY_REFRESH_S = "5" }
  }
  assert {
    condition     = alltrue([for one in azurerm_function_app_flex_consumption.app : one.app_settings.POLYSKY_TOKENS_SECRET == "https://mock.vault.azure.net/secrets/tokens"])
    error_message = "tokens would still be read from the store"
  }
  assert {
    condition     = !strcontains(azurerm_role_assignment.store["predict"].condition, "auth/")
    error_message = "the predicting app may read token records that are not in use"
  }
  assert {
    condition = azurerm_key_vault.tokens[0].rbac_authorization_enabled && alltrue([for one in azurerm_role_assignment.tokens :
    one.role_definition_name == "Key Vault Secrets User" && one.scope == azurerm_key_vault_secret.tokens[0].resource_versionless_id])
    error_message = "an app may do more in the vault than read its secret"
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.app["predict"].always_ready[0].instance_count == 1 && azurerm_function_app_flex_consumption.app["predict"].app_settings.POLYSKY_REFRESH_S == "5"
    error_message = "an option has no effect"
  }
  assert {
    condition     = azurerm_monitor_action_group.alarms.email_receiver[0].email_address == "night@example.com"
    error_message = "nobody is told of alarms"
  }
}

run "bad_values_are_named" {
  command = plan
  variables {
    environment       = "Prod!"
    replication       = "none"
    predict_memory_mb = 1000
    train_memory_mb   = 512
    predict_instances = 0
    train_instances   = 1001
    always_ready      = -1
    concurrency       = 0
    jwt               = { configuration = "http://plain", issuer = "https://a", audience = ["a"] }
    settings          = { PATH = "/" }
    log_days          = 1
  }
  expect_failures = [
    var.environment, var.replication, var.predict_memory_mb, var.train_memory_mb, var.predict_instances,
    var.train_instances, var.always_ready, var.concurrency, var.jwt, var.settings, var.log_days,
  ]
}
