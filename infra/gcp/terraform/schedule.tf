resource "google_cloud_scheduler_job" "tick" {
  name             = "${local.name}-tick"
  region           = var.region
  schedule         = "*/${var.tick_minutes} * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "${local.functions.tick.timeout_s}s"

  retry_config { retry_count = 0 } # the next tick does the same

  http_target {
    uri         = google_cloudfunctions2_function.function["tick"].service_config[0].uri
    http_method = "POST"
    oidc_token {
      service_account_email = google_service_account.schedule.email
      audience              = google_cloudfunctions2_function.function["tick"].service_config[0].uri
    }
  }

  depends_on = [google_project_service.needed]
}
