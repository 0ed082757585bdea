# One account a function, with what its code calls on the keys that it calls it for, and nothing else. To replace an object
# takes storage.objects.delete besides storage.objects.create; to create one that is absent takes only the latter.

resource "google_service_account" "function" {
  for_each     = local.functions
  account_id   = "${local.name}-${each.key}"
  display_name = "Polysky, ${var.environment}: ${each.key}"
  depends_on   = [google_project_service.needed]
}

resource "google_project_iam_custom_role" "replace" {
  role_id     = "${replace(local.name, "-", "_")}_replace"
  title       = "Polysky, ${var.environment}: replace and delete objects"
  permissions = ["storage.objects.delete"]
  depends_on  = [google_project_service.needed]
}

locals {
  # what each function reads and lists, creates, and replaces or deletes: key patterns, MODEL stands for one name
  access = {
    predict = {
      read   = concat(["reg/"], local.reads_tokens.predict ? [] : ["auth/"])
      create = []
      delete = []
    }
    control = {
      read   = concat(["reg/", "uploads/", "jobs/"], local.reads_tokens.control ? [] : ["auth/"])
      create = ["reg/MODEL/log/", "reg/MODEL/ckpt/", "reg/MODEL/alias/", "reg/_models/", "uploads/", "jobs/"]
      delete = ["reg/MODEL/alias/"]
    }
    job = {
      read   = ["reg/", "uploads/", "jobs/"]
      create = ["reg/MODEL/log/", "reg/MODEL/ckpt/", "reg/MODEL/alias/", "reg/MODEL/art/", "reg/_models/"]
      delete = ["reg/MODEL/alias/"]
    }
    tick = {
      read   = ["reg/", "uploads/", "jobs/"]
      create = ["reg/MODEL/log/", "reg/MODEL/ckpt/", "reg/MODEL/alias/", "reg/MODEL/art/", "reg/_models/"]
      delete = ["reg/MODEL/alias/", "reg/MODEL/art/", "reg/MODEL/ckpt/"]
    }
  }
  roles = {
    read   = "roles/storage.objectViewer"
    create = "roles/storage.objectCreator"
    delete = google_project_iam_custom_role.replace.id
  }
  bucket_name = "projects/_/buckets/${google_storage_bucket.store.name}"
  patterns    = toset(flatten([for one in values(local.access) : values(one)]))
  # extract gives what stands for the model, up to the first part that follows; "" where the key is another
  matches = { for pattern in local.patterns : pattern => strcontains(pattern, "MODEL")
    ? "resource.name.extract(\"${local.bucket_name}/objects/${replace(pattern, "MODEL", "{model}")}\") != \"\""
    : "resource.name.startsWith(\"${local.bucket_name}/objects/${pattern}\")"
  }
  # a listing is asked of the bucket itself
  grants = merge([for function, access in local.access : {
    for kind, patterns in access : "${function}-${kind}" => {
      function = function, kind = kind
      when = join(" || ", concat(
        kind == "read" ? ["resource.type == \"storage.googleapis.com/Bucket\""] : [],
        [for pattern in patterns : local.matches[pattern]],
      ))
    } if length(patterns) > 0
  }]...)
}

resource "google_storage_bucket_iam_member" "function" {
  for_each = local.grants
  bucket   = google_storage_bucket.store.name
  role     = local.roles[each.value.kind]
  member   = google_service_account.function[each.value.function].member
  condition {
    title      = each.key
    expression = each.value.when
  }
}

# core asks every caller for a token, which it would not see if the gateway showed one of its own account instead (api.tf):
# so these two are open to all, and the two that only events and clocks start are not.
resource "google_cloud_run_service_iam_member" "open" {
  for_each = toset(["predict", "control"])
  location = var.region
  service  = google_cloudfunctions2_function.function[each.key].name
  role     = "roles/run.invoker"
  member   = "allUsers"
}

resource "google_service_account" "events" {
  account_id   = "${local.name}-events"
  display_name = "Polysky, ${var.environment}: starts training"
  depends_on   = [google_project_service.needed]
}

resource "google_cloud_run_service_iam_member" "events" {
  location = var.region
  service  = google_cloudfunctions2_function.function["job"].name
  role     = "roles/run.invoker"
  member   = google_service_account.events.member
}

resource "google_project_iam_member" "events" {
  project = var.project
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.events.member
}

resource "google_service_account" "schedule" {
  account_id   = "${local.name}-schedule"
  display_name = "Polysky, ${var.environment}: the clock"
  depends_on   = [google_project_service.needed]
}

resource "google_cloud_run_service_iam_member" "schedule" {
  location = var.region
  service  = google_cloudfunctions2_function.function["tick"].name
  role     = "roles/run.invoker"
  member   = google_service_account.schedule.member
}

# without one of its own, a build runs as an account that in old projects may edit everything, in new ones nothing
resource "google_service_account" "build" {
  account_id   = "${local.name}-build"
  display_name = "Polysky, ${var.environment}: builds the functions"
  depends_on   = [google_project_service.needed]
}

resource "google_project_iam_member" "build" {
  for_each = toset(["roles/logging.logWriter", "roles/artifactregistry.writer"])
  project  = var.project
  role     = each.key
  member   = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.packages.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# A build reads a copy of the package from a bucket that the platform makes with the first function of a region. It is not
# there before, so the right to it stands on the project, for what lies there of this deployment's functions alone.
locals {
  sources = "projects/_/buckets/gcf-v2-sources-${data.google_project.here.number}-${var.region}"
}

resource "google_project_iam_member" "sources" {
  project = var.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member
  condition {
    title      = "${local.name}-sources"
    expression = "resource.name == \"${local.sources}\" || resource.name.startsWith(\"${local.sources}/objects/${local.name}-\")"
  }
}

# who the gateway is: without one of its own it would be an account that may edit the whole project
resource "google_service_account" "gateway" {
  account_id   = "${local.name}-gateway"
  display_name = "Polysky, ${var.environment}: the gateway, which may nothing"
  depends_on   = [google_project_service.needed]
}

# Cloud Storage tells Eventarc through Pub/Sub, which forwards what failed as an account of its own
data "google_storage_project_service_account" "storage" {
  depends_on = [google_project_service.needed]
}

resource "google_project_iam_member" "storage" {
  project = var.project
  role    = "roles/pubsub.publisher"
  member  = data.google_storage_project_service_account.storage.member
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.here.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}
