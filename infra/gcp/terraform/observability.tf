# What wakes somebody, and what they then look at. Polysky's own numbers come with the functions' log lines, as
# handlers_gcp/telemetry.py tells; a distribution, since a counter of Cloud Logging counts lines only.

locals {
  functions_seen = { for name, function in google_cloudfunctions2_function.function : name => function.name }
  from_functions = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=~\"^${local.name}-(predict|control|job|tick)$\""
  # of a metric the labels
  measured = {
    app_request_count        = ["method", "endpoint", "status"]
    app_errors_by_endpoint   = ["endpoint", "code"]
    model_prediction_count   = ["model", "class"]
    model_confidence         = ["model"]
    model_accuracy           = ["model"]
    integrity_failures_count = ["model"]
    retraining_events_count  = ["model", "outcome"]
    job_duration_seconds     = ["model"]
  }
  told = {
    alerts = { text = "Polysky raised an alert", filter = "jsonPayload.event=\"alert\"" }
    drift  = { text = "What is asked drifts from what was learnt", filter = "jsonPayload.event=\"alert\" AND jsonPayload.alert=~\"^drift\"" }
    parked = { text = "A training job was given up", filter = "jsonPayload.event=\"job_outcome\" AND jsonPayload.status=\"parked\"" }
  }
  channels = google_monitoring_notification_channel.mail[*].name
}

resource "google_logging_metric" "measured" {
  for_each         = local.measured
  name             = "${local.name}/${each.key}"
  filter           = "${local.from_functions} AND jsonPayload.event=\"metrics\" AND jsonPayload.metrics.${each.key}.count>0"
  value_extractor  = "EXTRACT(jsonPayload.metrics.${each.key}.value)"
  label_extractors = { for label in each.value : label => "EXTRACT(jsonPayload.metrics.${each.key}.${label})" }
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = "1"
    dynamic "labels" {
      for_each = each.value
      content {
        key        = labels.value
        value_type = "STRING"
      }
    }
  }
  depends_on = [google_project_service.needed]
}

resource "google_logging_metric" "told" {
  for_each = local.told
  name     = "${local.name}/${each.key}"
  filter   = "${local.from_functions} AND ${each.value.filter}"
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }
  depends_on = [google_project_service.needed]
}

resource "google_monitoring_notification_channel" "mail" {
  count        = var.alarm_email == null ? 0 : 1
  display_name = "${local.name} alarms"
  type         = "email"
  labels       = { email_address = var.alarm_email }
  depends_on   = [google_project_service.needed]
}

# from the line itself: a log-based metric that was only just made is not yet known to an alert on it
resource "google_monitoring_alert_policy" "told" {
  for_each              = local.told
  display_name          = "${local.name}-${each.key}"
  combiner              = "OR"
  notification_channels = local.channels
  documentation { content = each.value.text }
  conditions {
    display_name = each.value.text
    condition_matched_log { filter = "${local.from_functions} AND ${each.value.filter}" }
  }
  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit { period = "300s" }
  }
  depends_on = [google_project_service.needed]
}

locals {
  alarms = merge(
    { for key, name in local.functions_seen : "errors-${key}" => {
      text    = "The function ${name} fails", threshold = 0, duration = "0s", period = "60s"
      metric  = "run.googleapis.com/request_count", resource = "cloud_run_revision"
      where   = "resource.labels.service_name=\"${name}\" AND metric.labels.response_code_class=\"5xx\""
      aligner = "ALIGN_DELTA", reducer = "REDUCE_SUM"
    } },
    {
      slow = {
        text    = "One answer of a hundred takes over 500 ms, for five minutes", threshold = 500, duration = "300s", period = "60s"
        metric  = "run.googleapis.com/request_latencies", resource = "cloud_run_revision"
        where   = "resource.labels.service_name=\"${local.functions_seen["predict"]}\""
        aligner = "ALIGN_PERCENTILE_99", reducer = "REDUCE_MAX"
      }
      failed-events = {
        text    = "An event failed ten times and lies in the dead letters", threshold = 0, duration = "0s", period = "60s"
        metric  = "pubsub.googleapis.com/subscription/num_undelivered_messages", resource = "pubsub_subscription"
        where   = "resource.labels.subscription_id=\"${google_pubsub_subscription.failed.name}\""
        aligner = "ALIGN_MAX", reducer = "REDUCE_SUM"
      }
      unreachable = {
        text    = "The API does not answer from outside", threshold = 1, duration = "60s", period = "1200s"
        metric  = "monitoring.googleapis.com/uptime_check/check_passed", resource = "uptime_url"
        where   = "metric.labels.check_id=\"${google_monitoring_uptime_check_config.live.uptime_check_id}\""
        aligner = "ALIGN_NEXT_OLDER", reducer = "REDUCE_COUNT_FALSE"
      }
    },
  )
}

resource "google_monitoring_alert_policy" "alarm" {
  for_each              = local.alarms
  display_name          = "${local.name}-${each.key}"
  combiner              = "OR"
  notification_channels = local.channels
  documentation { content = each.value.text }
  conditions {
    display_name = each.value.text
    condition_threshold {
      filter          = "metric.type=\"${each.value.metric}\" AND resource.type=\"${each.value.resource}\" AND ${each.value.where}"
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = each.value.duration
      aggregations {
        alignment_period     = each.value.period
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.reducer
      }
    }
  }
  depends_on = [google_project_service.needed]
}

resource "google_monitoring_uptime_check_config" "live" {
  display_name = "${local.name}-live"
  period       = "60s"
  timeout      = "10s"
  http_check {
    path         = "/health/live"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }
  monitored_resource {
    type   = "uptime_url"
    labels = { project_id = var.project, host = google_api_gateway_gateway.http.default_hostname }
  }
}

locals {
  service_labels = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=monitoring.regex.full_match(\"${local.name}-.*\")"
  charts = [
    { title = "Requests by outcome, a second", metric = "request_count", aligner = "ALIGN_RATE", reducer = "REDUCE_SUM", by = "metric.labels.response_code_class" },
    { title = "Time of an answer, ms, p99", metric = "request_latencies", aligner = "ALIGN_PERCENTILE_99", reducer = "REDUCE_MAX", by = "resource.labels.service_name" },
    { title = "Time of an answer, ms, p50", metric = "request_latencies", aligner = "ALIGN_PERCENTILE_50", reducer = "REDUCE_MAX", by = "resource.labels.service_name" },
    { title = "Instances", metric = "container/instance_count", aligner = "ALIGN_MAX", reducer = "REDUCE_SUM", by = "resource.labels.service_name" },
  ]
  # PromQL, in which alone a distribution's sum is had: a metric's name has : for its first slash, _ for what is special
  told_as = "logging_googleapis_com:user_${replace(local.name, "-", "_")}"
  from    = "{monitored_resource=\"cloud_run_revision\"}"
  questions = {
    "Predictions by class"           = "sum by (class) (increase(${local.told_as}_model_prediction_count_sum${local.from}[5m]))"
    "Confidence, mean"               = "sum by (model) (increase(${local.told_as}_model_confidence_sum${local.from}[5m])) / sum by (model) (increase(${local.told_as}_model_confidence_count${local.from}[5m]))"
    "Accuracy on the holdout"        = "sum by (model) (increase(${local.told_as}_model_accuracy_sum${local.from}[5m])) / sum by (model) (increase(${local.told_as}_model_accuracy_count${local.from}[5m]))"
    "Training jobs by outcome"       = "sum by (outcome) (increase(${local.told_as}_retraining_events_count_sum${local.from}[5m]))"
    "Refused requests by error code" = "sum by (code) (increase(${local.told_as}_app_errors_by_endpoint_sum${local.from}[5m]))"
    "Alerts and parked jobs"         = "(sum(increase(${local.told_as}_alerts${local.from}[5m])) or vector(0)) + (sum(increase(${local.told_as}_parked${local.from}[5m])) or vector(0))"
  }
  series = concat(
    [for one in local.charts : { title = one.title, query = { timeSeriesFilter = {
      filter = "metric.type=\"run.googleapis.com/${one.metric}\" AND ${local.service_labels}"
      aggregation = {
        alignmentPeriod    = "60s", perSeriesAligner = one.aligner
        crossSeriesReducer = one.reducer, groupByFields = [one.by]
      }
    } } }],
    [for title, query in local.questions : { title = title, query = { prometheusQuery = query } }],
  )
}

resource "google_monitoring_dashboard" "polysky" {
  dashboard_json = jsonencode({
    displayName = local.name
    mosaicLayout = {
      columns = 12
      tiles = [for place, one in local.series : {
        xPos   = (place % 2) * 6, yPos = floor(place / 2) * 4, width = 6, height = 4
        widget = { title = one.title, xyChart = { dataSets = [{ plotType = "LINE", timeSeriesQuery = one.query }] } }
      }]
    }
  })
  depends_on = [google_logging_metric.measured, google_logging_metric.told]
}
