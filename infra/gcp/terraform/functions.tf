locals {
  name    = "polysky-${var.environment}"
  trainer = { package = "gcp-train", cpu = "2", concurrency = 1, min = 0 }
  functions = {
    predict = merge({
      package     = "gcp-predict", entry = "http", memory_mb = var.predict_memory_mb, cpu = "1", timeout_s = 30
      concurrency = var.predict_concurrency
    }, var.predict_instances)
    control = merge(local.trainer, {
      entry = "control", memory_mb = 2048, cpu = "1", timeout_s = 60, concurrency = 8, max = 5
    })
    # what Eventarc starts may take nine minutes
    job  = merge(local.trainer, { entry = "job", memory_mb = var.train_memory_mb, timeout_s = 540, max = var.train_concurrency })
    tick = merge(local.trainer, { entry = "tick", memory_mb = var.train_memory_mb, timeout_s = 900, max = 1 })
  }
  packages = { for name in ["gcp-predict", "gcp-train"] : name => "${var.packages}/${name}.zip" }
}

# Every deployment is a new revision of the function's Cloud Run service. A split of its traffic is not an argument of
# this resource (and a google_cloud_run_v2_service beside it would fight over the same service): it is made by
# `traffic_command` of the outputs and stays until the next such command; with hold_traffic a deployment leaves it alone.
resource "google_cloudfunctions2_function" "function" {
  for_each = local.functions
  name     = "${local.name}-${each.key}"
  location = var.region

  build_config {
    runtime         = "python313"
    entry_point     = each.value.entry
    service_account = google_service_account.build.id
    source {
      storage_source {
        bucket = google_storage_bucket.packages.name
        object = google_storage_bucket_object.package[each.value.package].name
      }
    }
  }

  service_config {
    available_memory                 = "${each.value.memory_mb}Mi"
    available_cpu                    = each.value.cpu
    timeout_seconds                  = each.value.timeout_s
    min_instance_count               = each.value.min
    max_instance_count               = each.value.max
    max_instance_request_concurrency = each.value.concurrency
    ingress_settings                 = contains(["predict", "control"], each.key) ? "ALLOW_ALL" : "ALLOW_INTERNAL_ONLY"
    all_traffic_on_latest_revision   = each.key == "predict" ? !var.hold_traffic : true
    service_account_email            = google_service_account.function[each.key].email
    environment_variables = merge(
      {
        POLYSKY_STORE        = "gs://${google_storage_bucket.store.name}"
        POLYSKY_TIMEOUT_S    = tostring(each.value.timeout_s)
        GOOGLE_CLOUD_PROJECT = var.project
      },
      local.reads_tokens[each.key] ? { POLYSKY_TOKENS_SECRET = google_secret_manager_secret.tokens[0].id } : {},
      var.settings,
    )
  }

  dynamic "event_trigger" {
    for_each = each.key == "job" ? [1] : []
    content {
      trigger_region        = var.region
      event_type            = "google.cloud.storage.object.v1.finalized"
      retry_policy          = "RETRY_POLICY_RETRY" # the default drops an event that failed once
      service_account_email = google_service_account.events.email
      event_filters {
        attribute = "bucket" # Eventarc filters by no prefix: the worker leaves what is in no inbox alone
        value     = google_storage_bucket.store.name
      }
    }
  }

  depends_on = [
    google_project_service.needed, google_storage_bucket_iam_member.function, google_storage_bucket_iam_member.build,
    google_project_iam_member.build, google_project_iam_member.sources, google_project_iam_member.events,
    google_project_iam_member.storage,
  ]
}
