output "url" {
  description = "Where the API answers."
  value       = var.domain == null ? aws_apigatewayv2_api.http.api_endpoint : "https://${var.domain.name}"
}

output "store" {
  description = "The store's URL: POLYSKY_STORE of every command that works on this deployment."
  value       = "s3://${aws_s3_bucket.store.id}"
}

output "uploads" {
  description = "Where a data file is dropped to retrain a model: uploads/MODEL/FILE."
  value       = "s3://${aws_s3_bucket.store.id}/uploads/"
}

output "functions" {
  description = "The functions' names."
  value       = local.functions_seen
}

output "predict_version" {
  description = "The published version of the predicting function that serves."
  value       = aws_lambda_alias.live["predict"].function_version
}

output "newest_version" {
  description = "The published version that was made last; with a canary it has a share of the requests, or none."
  value       = local.newest["predict"]
}

output "domain_target" {
  description = "Where the own host name must point to, by CNAME or alias; null without one."
  value       = one(aws_apigatewayv2_domain_name.own[*].domain_name_configuration[0].target_domain_name)
}

output "tokens_secret" {
  description = "The secret to fill with what `polysky token export` prints; null: tokens are records in the store."
  value       = one(aws_secretsmanager_secret.tokens[*].name)
}

output "failed_events" {
  description = "The queue of events that failed three times."
  value       = aws_sqs_queue.failed.url
}

output "alarms" {
  description = "The topic that alarms are published to."
  value       = aws_sns_topic.alarms.arn
}

output "api_id" {
  description = "The HTTP API's id."
  value       = aws_apigatewayv2_api.http.id
}
