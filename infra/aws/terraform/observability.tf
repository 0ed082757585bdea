# What wakes somebody, and what they then look at. Polysky's own metrics come with the functions' log lines (EMF,
# namespace Polysky); facts that are told by a line alone become metrics here.

locals {
  told = {
    alerts = { functions = ["predict", "control", "job", "tick"], pattern = "{ $.event = \"alert\" }" }
    parked = { functions = ["job", "tick"], pattern = "{ $.event = \"job_outcome\" && $.status = \"parked\" }" }
    drift  = { functions = ["predict", "tick"], pattern = "{ $.event = \"alert\" && $.alert = \"drift*\" }" }
  }
  filters = merge([for name, one in local.told : { for function in one.functions : "${name}-${function}" => {
    name = name, function = function, pattern = one.pattern
  } }]...)
  functions_seen = { for name, function in aws_lambda_function.function : name => function.function_name }
}

resource "aws_cloudwatch_log_metric_filter" "told" {
  for_each       = local.filters
  name           = "${local.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.function[each.value.function].name
  pattern        = each.value.pattern
  metric_transformation {
    namespace     = local.name
    name          = each.value.name
    value         = "1"
    default_value = "0"
  }
}

# Not encrypted with alias/aws/sns: CloudWatch may not use that key, so no alarm would ever arrive.
resource "aws_sns_topic" "alarms" {
  name = "${local.name}-alarms"
}

resource "aws_sns_topic_subscription" "mail" {
  count     = var.alarm_email == null ? 0 : 1
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

locals {
  alarms = merge(
    { for key, name in local.functions_seen : "errors-${key}" => {
      text      = "The function ${name} fails", namespace = "AWS/Lambda", metric = "Errors", statistic = "Sum"
      threshold = 0, periods = 1, dimensions = { FunctionName = name }
    } },
    {
      throttled = {
        text       = "Requests are refused: the predicting function has no free instance", namespace = "AWS/Lambda"
        metric     = "Throttles", statistic = "Sum", threshold = 0, periods = 3
        dimensions = { FunctionName = local.functions_seen["predict"] }
      }
      server-errors = {
        text      = "The API answers with 5xx", namespace = "AWS/ApiGateway", metric = "5xx", statistic = "Sum"
        threshold = 5, periods = 1, dimensions = { ApiId = aws_apigatewayv2_api.http.id }
      }
      failed-events = {
        text       = "An event failed three times and lies in the queue", namespace = "AWS/SQS"
        metric     = "ApproximateNumberOfMessagesVisible", statistic = "Maximum", threshold = 0, periods = 1
        dimensions = { QueueName = aws_sqs_queue.failed.name }
      }
    },
    { for name, one in local.told : name => {
      text    = "Polysky tells of ${name}", namespace = local.name, metric = name, statistic = "Sum", threshold = 0
      periods = 1, dimensions = {}
    } },
  )
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each            = local.alarms
  alarm_name          = "${local.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = each.value.periods
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "slow" {
  alarm_name          = "${local.name}-slow"
  alarm_description   = "One answer of a hundred takes over 500 ms, for five minutes"
  namespace           = "AWS/Lambda"
  metric_name         = "Duration"
  dimensions          = { FunctionName = local.functions_seen["predict"] }
  extended_statistic  = "p99"
  period              = 60
  evaluation_periods  = 5
  threshold           = 500
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

locals {
  widgets = [
    { title = "Requests and errors", stat = "Sum", metrics = [
      ["AWS/ApiGateway", "Count", "ApiId", aws_apigatewayv2_api.http.id],
      [".", "4xx", ".", "."], [".", "5xx", ".", "."],
    ] },
    { title = "Time of an answer, ms", stat = "p99", metrics = [
      ["AWS/Lambda", "Duration", "FunctionName", local.functions_seen["predict"], { stat = "p50" }],
      [".", ".", ".", ".", { stat = "p99" }],
      ["AWS/ApiGateway", "Latency", "ApiId", aws_apigatewayv2_api.http.id, { stat = "p99" }],
    ] },
    { title = "Predictions by class", stat = "Sum", metrics = [
      [{ expression = "SEARCH('{Polysky,class,model,service} MetricName=\"model_prediction_count\" service=\"${local.name}\"', 'Sum')", id = "classes" }],
    ] },
    { title = "Confidence, median", stat = "p50", metrics = [
      [{ expression = "SEARCH('{Polysky,model,service} MetricName=\"model_confidence\" service=\"${local.name}\"', 'p50')", id = "confidence" }],
    ] },
    { title = "Training jobs by outcome", stat = "Sum", metrics = [
      [{ expression = "SEARCH('{Polysky,model,outcome,service} MetricName=\"retraining_events_count\" service=\"${local.name}\"', 'Sum')", id = "jobs" }],
    ] },
    { title = "Functions", stat = "Sum", metrics = concat(
      [for name in values(local.functions_seen) : ["AWS/Lambda", "Errors", "FunctionName", name]],
      [for name in values(local.functions_seen) : ["AWS/Lambda", "Invocations", "FunctionName", name]],
    ) },
    { title = "Alerts, parked jobs, failed events", stat = "Sum", metrics = concat(
      [for name in keys(local.told) : [local.name, name]],
      [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.failed.name, { stat = "Maximum" }]],
    ) },
  ]
}

resource "aws_cloudwatch_dashboard" "polysky" {
  dashboard_name = local.name
  dashboard_body = jsonencode({ widgets = [for place, one in local.widgets : {
    type = "metric", x = (place % 2) * 12, y = floor(place / 2) * 6, width = 12, height = 6
    properties = {
      title   = one.title, stat = one.stat, metrics = one.metrics, region = var.region, period = 60
      view    = "timeSeries"
      stacked = false
    }
  }] })
}
