# What wakes somebody, and what they then look at. Requests come from the host; Polysky's facts and numbers are the
# JSON of its log lines (handlers_azure/telemetry.py), which the host passes on as they are.

resource "azurerm_log_analytics_workspace" "polysky" {
  name                = local.name
  resource_group_name = azurerm_resource_group.polysky.name
  location            = azurerm_resource_group.polysky.location
  sku                 = "PerGB2018"
  retention_in_days   = var.log_days
  tags                = local.tags
}

resource "azurerm_application_insights" "polysky" {
  name                          = local.name
  resource_group_name           = azurerm_resource_group.polysky.name
  location                      = azurerm_resource_group.polysky.location
  workspace_id                  = azurerm_log_analytics_workspace.polysky.id
  application_type              = "web"
  sampling_percentage           = 100
  local_authentication_disabled = true # the apps write with their identities
  tags                          = local.tags
}

# who wrote and who deleted what in the store, by identity
resource "azurerm_monitor_diagnostic_setting" "store" {
  name                       = "${local.name}-store"
  target_resource_id         = "${azurerm_storage_account.store.id}/blobServices/default"
  log_analytics_workspace_id = azurerm_log_analytics_workspace.polysky.id

  enabled_log {
    category = "StorageWrite"
  }
  enabled_log {
    category = "StorageDelete"
  }
}

resource "azurerm_monitor_action_group" "alarms" {
  name                = "${local.name}-alarms"
  resource_group_name = azurerm_resource_group.polysky.name
  short_name          = "polysky"
  tags                = local.tags

  dynamic "email_receiver" {
    for_each = var.alarm_email == null ? [] : [var.alarm_email]
    content {
      name                    = "night"
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }
}

locals {
  names = { for key in keys(local.apps) : key => "${local.name}-${key}-${local.suffix}" }
  ours  = "AppRoleName in~ (${join(", ", [for name in values(local.names) : "'${name}'"])})"
  told  = "AppTraces | where ${local.ours} | extend line = parse_json(Message)"
  lines = {
    alerts = { severity = 1, text = "Polysky tells of an alert", filter = "line.event == 'alert'" }
    drift  = { severity = 2, text = "Traffic or data drift away from what was learnt", filter = "line.event == 'alert' and line.alert startswith 'drift'" }
    parked = { severity = 2, text = "A training job was given up and waits for somebody", filter = "line.event == 'job_outcome' and line.status == 'parked'" }
  }
  # a measure in the column `value` that alarms above its threshold
  alarms = merge(
    { for key, name in local.names : "errors-${key}" => {
      severity = 1, threshold = 0, text = "The app ${key} fails"
      query    = "AppRequests | where AppRoleName =~ '${name}' | where toint(ResultCode) >= 500 or (toint(ResultCode) == 0 and Success == false) | summarize value = count()"
    } },
    { for key, one in local.lines : key => {
      severity = one.severity, threshold = 0, text = one.text
      query    = "${local.told} | where ${one.filter} | summarize value = count()"
    } },
    { slow = {
      severity = 2, threshold = 500, text = "One answer of a hundred takes over 500 ms, for five minutes"
      query    = "AppRequests | where AppRoleName =~ '${local.names["predict"]}' and Name == 'http' | summarize value = percentile(DurationMs, 99)"
    } },
  )
}

resource "azurerm_monitor_scheduled_query_rules_alert_v2" "alarm" {
  for_each                = local.alarms
  name                    = "${local.name}-${each.key}"
  resource_group_name     = azurerm_resource_group.polysky.name
  location                = azurerm_resource_group.polysky.location
  description             = each.value.text
  display_name            = "${local.name}-${each.key}"
  severity                = each.value.severity
  scopes                  = [azurerm_log_analytics_workspace.polysky.id]
  evaluation_frequency    = "PT5M"
  window_duration         = "PT5M"
  auto_mitigation_enabled = true
  skip_query_validation   = true # the tables appear with the first lines
  tags                    = local.tags

  criteria {
    query                   = each.value.query
    metric_measure_column   = "value"
    time_aggregation_method = "Maximum"
    operator                = "GreaterThan"
    threshold               = each.value.threshold
  }

  action {
    action_groups = [azurerm_monitor_action_group.alarms.id]
  }
}

resource "azurerm_monitor_metric_alert" "dead_letters" {
  name                = "${local.name}-dead-letters"
  resource_group_name = azurerm_resource_group.polysky.name
  description         = "An event could not be delivered and lies among the dead letters"
  scopes              = [azurerm_eventgrid_system_topic.store.id]
  severity            = 2
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.EventGrid/systemTopics"
    metric_name      = "DeadLetteredCount"
    aggregation      = "Total"
    operator         = "GreaterThan"
    threshold        = 0
  }

  action {
    action_group_id = azurerm_monitor_action_group.alarms.id
  }
}

locals {
  numbers = "${local.told} | where line.event == 'metrics' | mv-expand number = line.metrics | extend name = tostring(number.name), sum = todouble(number.sum), count = todouble(number['count'])"
  charts = [
    { title = "Requests by status", query = "AppRequests | where ${local.ours} | summarize count() by bin(TimeGenerated, 5m), ResultCode" },
    { title = "Time of an answer, ms", query = "AppRequests | where AppRoleName =~ '${local.names["predict"]}' | summarize p50 = percentile(DurationMs, 50), p99 = percentile(DurationMs, 99) by bin(TimeGenerated, 5m)" },
    { title = "Predictions by class", query = "${local.numbers} | where name == 'model_prediction_count' | summarize sum(sum) by bin(TimeGenerated, 5m), strcat(number.dimensions.model, ' ', number.dimensions['class'])" },
    { title = "Confidence, mean", query = "${local.numbers} | where name == 'model_confidence' | summarize sum(sum) / sum(count) by bin(TimeGenerated, 5m), tostring(number.dimensions.model)" },
    { title = "Training jobs by outcome", query = "${local.numbers} | where name == 'retraining_events_count' | summarize sum(sum) by bin(TimeGenerated, 1h), strcat(number.dimensions.model, ' ', number.dimensions.outcome)" },
    { title = "Alerts, drift, parked jobs", query = "${local.told} | where ${local.lines.alerts.filter} or (${local.lines.parked.filter}) | summarize count() by bin(TimeGenerated, 1h), strcat(line.event, ' ', line.alert)" },
  ]
}

resource "azurerm_application_insights_workbook" "polysky" {
  name                = uuidv5("url", "${azurerm_resource_group.polysky.id}/workbook")
  resource_group_name = azurerm_resource_group.polysky.name
  location            = azurerm_resource_group.polysky.location
  display_name        = local.name
  source_id           = lower(azurerm_log_analytics_workspace.polysky.id)
  tags                = local.tags
  data_json = jsonencode({
    version             = "Notebook/1.0"
    fallbackResourceIds = [azurerm_log_analytics_workspace.polysky.id]
    items = [for place, one in local.charts : {
      type = 3, name = "chart-${place}", customWidth = "50"
      content = {
        version       = "KqlItem/1.0", title = one.title, query = one.query, size = 0, queryType = 0
        resourceType  = "microsoft.operationalinsights/workspaces"
        visualization = "timechart"
        timeContext   = { durationMs = 86400000 }
      }
    }]
  })
}
