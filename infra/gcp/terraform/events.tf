# Eventarc delivers an event for up to a day, then drops it; the reconciler finds the upload itself. Its subscription is
# its own and no resource of ours, but it can be told of a topic for what ten deliveries did not settle.

resource "google_pubsub_topic" "failed" {
  name                       = "${local.name}-failed"
  message_retention_duration = "1209600s"
  depends_on                 = [google_project_service.needed]
}

resource "google_pubsub_subscription" "failed" {
  name                       = "${local.name}-failed"
  topic                      = google_pubsub_topic.failed.id
  message_retention_duration = "1209600s"
  expiration_policy { ttl = "" } # never, though nobody reads it for a month
}

resource "google_pubsub_topic_iam_member" "failed" {
  topic  = google_pubsub_topic.failed.id
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "terraform_data" "dead_letters" {
  triggers_replace = [google_cloudfunctions2_function.function["job"].event_trigger[0].trigger, google_pubsub_topic.failed.id]

  provisioner "local-exec" {
    command = <<-EOT
      set -eu
      command -v "$GCLOUD" >/dev/null || { echo "gcloud is not installed, or not where var.gcloud says: install it and apply again" >&2; exit 1; }
      subscription=$("$GCLOUD" eventarc triggers describe "$TRIGGER" --format='value(transport.pubsub.subscription)')
      "$GCLOUD" pubsub subscriptions add-iam-policy-binding "$subscription" \
        --member="$AGENT" --role=roles/pubsub.subscriber
      "$GCLOUD" pubsub subscriptions update "$subscription" \
        --dead-letter-topic="$TOPIC" --max-delivery-attempts=10 --min-retry-delay=10s --max-retry-delay=600s
    EOT
    environment = {
      GCLOUD  = var.gcloud
      TRIGGER = google_cloudfunctions2_function.function["job"].event_trigger[0].trigger
      TOPIC   = google_pubsub_topic.failed.id
      AGENT   = local.pubsub_agent
    }
  }

  depends_on = [google_pubsub_topic_iam_member.failed]
}
