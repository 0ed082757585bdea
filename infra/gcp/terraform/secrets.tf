resource "google_secret_manager_secret" "tokens" {
  count     = var.tokens_secret ? 1 : 0
  secret_id = "${local.name}-tokens" # its versions: token records, as `polysky token export` prints them
  replication {
    user_managed {
      replicas { location = var.region }
    }
  }
  depends_on = [google_project_service.needed]
}

locals {
  reads_tokens = { for name in keys(local.functions) : name => var.tokens_secret && contains(["predict", "control"], name) }
}

resource "google_secret_manager_secret_iam_member" "tokens" {
  for_each  = toset([for name, reads in local.reads_tokens : name if reads])
  secret_id = google_secret_manager_secret.tokens[0].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.key].member
}
