output "url" {
  description = "Where the API answers. Without a gateway this host predicts, and control_url does everything."
  value       = var.gateway ? azurerm_api_management.gateway[0].gateway_url : local.urls["predict"]
}

output "control_url" {
  description = "Where the app that trains and governs answers; through a gateway, the same address as url."
  value       = var.gateway ? azurerm_api_management.gateway[0].gateway_url : local.urls["train"]
}

locals {
  urls = { for key, app in azurerm_function_app_flex_consumption.app : key => "https://${app.default_hostname}" }
}

output "store" {
  description = "The store's URL: POLYSKY_STORE of every command that works on this deployment."
  value       = "az://${azurerm_storage_container.store.name}"
}

output "account" {
  description = "The store's account: AZURE_STORAGE_ACCOUNT_NAME of those commands."
  value       = azurerm_storage_account.store.name
}

output "uploads" {
  description = "Where a data file is dropped to retrain a model: uploads/MODEL/FILE."
  value       = "${azurerm_storage_account.store.primary_blob_endpoint}${azurerm_storage_container.store.name}/uploads/"
}

output "functions" {
  description = "The function apps' names."
  value       = { for key, app in azurerm_function_app_flex_consumption.app : key => app.name }
}

output "resource_group" {
  description = "The group that holds everything."
  value       = azurerm_resource_group.polysky.name
}

output "tokens_vault" {
  description = "The vault whose secret `tokens` takes what `polysky token export` prints; null: tokens are records in the store."
  value       = one(azurerm_key_vault.tokens[*].name)
}

output "dead_letters" {
  description = "The container of events that could not be delivered."
  value       = "${azurerm_storage_account.store.primary_blob_endpoint}${azurerm_storage_container.dead_letters.name}"
}

output "alarms" {
  description = "The action group that alarms go to."
  value       = azurerm_monitor_action_group.alarms.id
}

output "dashboard" {
  description = "The workbook's id."
  value       = azurerm_application_insights_workbook.polysky.id
}
