# The store: models, data and jobs. Objects are replaced and deleted only by whoever holds storage.objects.delete there:
# iam.tf gives it for aliases (replaced), artifacts and checkpoints (collected): log entries are created once, by permission.

resource "google_storage_bucket" "store" {
  name                        = coalesce(var.bucket, "${local.name}-${var.project}")
  location                    = var.region
  force_destroy               = !var.keep_bucket
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning { enabled = true }

  soft_delete_policy { retention_duration_seconds = 604800 }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 90
      with_state                 = "ARCHIVED"
    }
    action { type = "Delete" }
  }

  lifecycle_rule {
    condition { age = 7 }
    action { type = "AbortIncompleteMultipartUpload" }
  }

  depends_on = [google_project_service.needed]
}

# not in the store: each object that is finished there is an event, whatever its name
resource "google_storage_bucket" "packages" {
  name                        = "${google_storage_bucket.store.name}-packages"
  location                    = var.region
  force_destroy               = true
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
}

resource "google_storage_bucket_object" "package" {
  for_each = local.packages
  bucket   = google_storage_bucket.packages.name
  name     = "${filemd5(each.value)}/${each.key}.zip"
  source   = each.value
}
