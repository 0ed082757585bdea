output "url" {
  description = "Where the API answers."
  value       = "https://${google_api_gateway_gateway.http.default_hostname}"
}

output "store" {
  description = "The store's URL: POLYSKY_STORE of every command that works on this deployment."
  value       = "gs://${google_storage_bucket.store.name}"
}

output "uploads" {
  description = "Where a data file is dropped to retrain a model: uploads/MODEL/FILE."
  value       = "gs://${google_storage_bucket.store.name}/uploads/"
}

output "functions" {
  description = "The functions' names."
  value       = local.functions_seen
}

output "traffic_command" {
  description = "What splits the predicting function's traffic, revisions of which `gcloud run revisions list` tells."
  value       = "gcloud run services update-traffic ${local.functions_seen["predict"]} --project=${var.project} --region=${var.region} --to-revisions=OLD=90,NEW=10"
}

output "tokens_secret" {
  description = "The secret to fill with what `polysky token export` prints; null: tokens are records in the store."
  value       = one(google_secret_manager_secret.tokens[*].name)
}

output "failed_events" {
  description = "The subscription of events that failed ten times."
  value       = google_pubsub_subscription.failed.id
}

output "vertex_commands" {
  description = "What makes IMAGE answer behind Vertex AI's endpoint; null without one."
  value = one([for endpoint in google_vertex_ai_endpoint.predict : [
    "gcloud ai models upload --project=${var.project} --region=${var.region} --display-name=${local.name} --container-image-uri=IMAGE --container-env-vars=POLYSKY_STORE=gs://${google_storage_bucket.store.name}",
    "gcloud ai endpoints deploy-model ${endpoint.name} --project=${var.project} --region=${var.region} --display-name=${local.name} --service-account=${google_service_account.function["predict"].email} --model=MODEL",
  ]])
}
