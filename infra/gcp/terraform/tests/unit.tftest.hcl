# What the stack promises, against mocked providers: no account, no network.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_data "google_storage_project_service_account" {
    defaults = { member = "serviceAccount:storage@mock.iam.gserviceaccount.com" }
  }
}

mock_provider "google-beta" {}

variables {
  project  = "polysky-test"
  packages = "tests/packages"
  gcloud   = "true" # does nothing, and does it well
}

run "defaults" {
  assert {
    condition     = alltrue([for name, one in google_cloudfunctions2_function.function : one.name == "polysky-prod-${name}"])
    error_message = "a function is not named after its environment"
  }
  assert {
    condition     = { for name, one in google_cloudfunctions2_function.function : name => one.build_config[0].entry_point } == { predict = "http", control = "control", job = "job", tick = "tick" }
    error_message = "a function starts at another entry point"
  }
  assert {
    condition     = google_storage_bucket.store.versioning[0].enabled && google_storage_bucket.store.soft_delete_policy[0].retention_duration_seconds == 604800
    error_message = "what is replaced or deleted must be had again: the bucket must keep it"
  }
  assert {
    condition     = alltrue([for one in [google_storage_bucket.store, google_storage_bucket.packages] : one.uniform_bucket_level_access && one.public_access_prevention == "enforced"])
    error_message = "a bucket could be made public, or an object have permissions of its own"
  }
  assert {
    condition     = !google_storage_bucket.store.force_destroy
    error_message = "models and data would be deleted unasked"
  }
  assert {
    condition = (
      google_cloudfunctions2_function.function["job"].event_trigger[0].retry_policy == "RETRY_POLICY_RETRY"
      && google_cloudfunctions2_function.function["job"].event_trigger[0].event_type == "google.cloud.storage.object.v1.finalized"
      && one(google_cloudfunctions2_function.function["job"].event_trigger[0].event_filters).value == google_storage_bucket.store.name
    )
    error_message = "an upload starts nothing, or what failed once is not tried again"
  }
  assert {
    condition     = [for name, one in google_cloudfunctions2_function.function : name if length(one.event_trigger) > 0] == ["job"]
    error_message = "events start a function that knows none"
  }
  assert {
    condition     = google_cloudfunctions2_function.function["job"].service_config[0].max_instance_count == 2 && google_cloudfunctions2_function.function["job"].service_config[0].timeout_seconds <= 540 && google_cloudfunctions2_function.function["job"].service_config[0].max_instance_request_concurrency == 1
    error_message = "training has neither its time nor its bound"
  }
  assert {
    condition     = google_cloudfunctions2_function.function["tick"].service_config[0].max_instance_count == 1 && google_cloud_scheduler_job.tick.schedule == "*/5 * * * *"
    error_message = "the clock is another one, or ticks side by side"
  }
  assert {
    condition     = google_cloud_scheduler_job.tick.http_target[0].oidc_token[0].service_account_email == google_service_account.schedule.email
    error_message = "the clock has no token to show"
  }
  assert {
    condition     = google_cloudfunctions2_function.function["predict"].service_config[0].all_traffic_on_latest_revision
    error_message = "a deployment would not serve"
  }
  assert {
    condition     = google_pubsub_subscription.failed.expiration_policy[0].ttl == ""
    error_message = "dead letters would be lost with their subscription, after a month in which nobody looked"
  }
}

run "alarms" {
  assert {
    condition = (
      google_monitoring_alert_policy.alarm["slow"].conditions[0].condition_threshold[0].threshold_value == 500
      && google_monitoring_alert_policy.alarm["slow"].conditions[0].condition_threshold[0].duration == "300s"
      && google_monitoring_alert_policy.alarm["slow"].conditions[0].condition_threshold[0].aggregations[0].per_series_aligner == "ALIGN_PERCENTILE_99"
    )
    error_message = "the latency alarm is another one"
  }
  assert {
    condition = length(setsubtract(
      ["errors-predict", "errors-control", "errors-job", "errors-tick", "failed-events", "unreachable"],
      keys(google_monitoring_alert_policy.alarm),
    )) == 0
    error_message = "an alarm is missing"
  }
  assert {
    condition     = toset(keys(google_monitoring_alert_policy.told)) == toset(["alerts", "drift", "parked"])
    error_message = "nobody is told of what Polysky tells"
  }
  assert {
    condition     = google_monitoring_uptime_check_config.live.http_check[0].path == "/health/live" && google_monitoring_uptime_check_config.live.http_check[0].validate_ssl
    error_message = "what is looked at from outside is something else"
  }
}

run "accounts_of_least_privilege" {
  assert {
    condition     = length(local.access.predict.create) == 0 && length(local.access.predict.delete) == 0
    error_message = "the predicting function may write"
  }
  assert {
    condition     = toset(flatten([for one in values(local.access) : one.delete])) == toset(["reg/MODEL/alias/", "reg/MODEL/art/", "reg/MODEL/ckpt/"])
    error_message = "something else than aliases can be replaced, or than artifacts and checkpoints deleted"
  }
  assert {
    condition     = [for name, one in local.access : name if one.delete != [] && one.delete != ["reg/MODEL/alias/"]] == ["tick"]
    error_message = "another function than the collecting one deletes"
  }
  assert {
    condition     = alltrue([for one in google_storage_bucket_iam_member.function : length(one.condition) == 1 && one.condition[0].expression != ""])
    error_message = "a function has the whole bucket"
  }
  assert {
    condition     = google_project_iam_custom_role.replace.permissions == toset(["storage.objects.delete"])
    error_message = "the role gives more than to replace and delete"
  }
  assert {
    condition     = strcontains(google_project_iam_member.sources.condition[0].expression, "/objects/polysky-prod-") && google_project_iam_member.sources.member == google_service_account.build.member
    error_message = "a build cannot read its package, or may read other functions' as well"
  }
  assert {
    condition     = [for name, one in google_cloud_run_service_iam_member.open : name] == ["control", "predict"] && google_cloud_run_service_iam_member.events.member == google_service_account.events.member && google_cloud_run_service_iam_member.schedule.member == google_service_account.schedule.member
    error_message = "what events and clocks start is open to others"
  }
  assert {
    condition     = alltrue([for name in ["job", "tick"] : google_cloudfunctions2_function.function[name].service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"])
    error_message = "what events and clocks start is reached from outside"
  }
  assert {
    condition     = toset(concat([google_project_iam_member.events.role, google_project_iam_member.storage.role, google_project_iam_member.sources.role], [for one in google_project_iam_member.build : one.role])) == toset(["roles/eventarc.eventReceiver", "roles/pubsub.publisher", "roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer"])
    error_message = "an account has another role on the whole project"
  }
}

run "the_gateway_passes_on_what_the_caller_shows" {
  assert {
    condition     = alltrue(flatten([for path, methods in local.operations : [for method, one in methods : one.x-google-backend.disable_auth && one.x-google-backend.path_translation == "APPEND_PATH_TO_ADDRESS"]]))
    error_message = "a function would see another token, or another path, than the caller sent"
  }
  assert {
    condition     = alltrue(flatten([for path, methods in local.operations : [for method, one in methods : length(one.security) == 0]])) && length(local.openapi.securityDefinitions) == 0
    error_message = "without an issuer no path can ask for its tokens"
  }
  assert {
    condition     = jsondecode(base64decode(google_api_gateway_api_config.http.openapi_documents[0].document[0].contents)).paths["/predict/{model}"].post.x-google-backend.address == google_cloudfunctions2_function.function["predict"].service_config[0].uri
    error_message = "predictions are asked of another function"
  }
}

run "an_issuer" {
  variables {
    jwt = { issuer = "https://issuer.example.com", jwks_uri = "https://issuer.example.com/jwks", audience = ["polysky", "ml"] }
  }
  assert {
    condition = alltrue(flatten([for path, methods in local.endpoints.paths : [for method, one in methods :
      length(local.operations[path][method].security) == (one.x-polysky.public ? 0 : 1)
    ]]))
    error_message = "a path is not behind the issuer"
  }
  assert {
    condition     = alltrue([for path, methods in local.operations : try(length(methods.options.security) == 0, false)])
    error_message = "a browser cannot ask whether its page may"
  }
  assert {
    condition     = local.openapi.securityDefinitions.jwt.x-google-audiences == "polysky,ml"
    error_message = "an audience is missing"
  }
}

run "a_second_environment" {
  variables {
    environment = "test"
  }
  assert {
    condition     = google_cloudfunctions2_function.function["predict"].name == "polysky-test-predict" && google_pubsub_topic.failed.name == "polysky-test-failed" && google_project_iam_custom_role.replace.role_id == "polysky_test_replace" && google_storage_bucket.store.name == "polysky-test-polysky-test"
    error_message = "two environments would collide"
  }
}

run "options" {
  variables {
    hold_traffic      = true
    tokens_secret     = true
    vertex_endpoint   = true
    gateway_region    = "europe-west2"
    predict_instances = { min = 1, max = 3 }
    alarm_email       = "night@example.com"
    settings          = { POLYSKY_REFRESH_S = "5" }
  }
  assert {
    condition     = !google_cloudfunctions2_function.function["predict"].service_config[0].all_traffic_on_latest_revision && google_cloudfunctions2_function.function["predict"].service_config[0].min_instance_count == 1 && google_cloudfunctions2_function.function["tick"].service_config[0].environment_variables.POLYSKY_REFRESH_S == "5"
    error_message = "an option has no effect"
  }
  assert {
    condition     = !contains(local.access.predict.read, "auth/") && toset(keys(google_secret_manager_secret_iam_member.tokens)) == toset(["control", "predict"])
    error_message = "tokens would still be read from the bucket, or the secret by others"
  }
  assert {
    condition     = !can(google_cloudfunctions2_function.function["job"].service_config[0].environment_variables.POLYSKY_TOKENS_SECRET)
    error_message = "a function is told of a secret that it may not read"
  }
  assert {
    condition     = can(regex("^[1-9][0-9]{0,9}$", google_vertex_ai_endpoint.predict[0].name)) && length(output.vertex_commands) == 2
    error_message = "the endpoint of Vertex AI has a name that it may not have"
  }
  assert {
    condition     = length(google_monitoring_notification_channel.mail) == 1 && google_api_gateway_gateway.http.region == "europe-west2"
    error_message = "mail or the gateway's region is missing"
  }
}

run "bad_values_are_named" {
  command = plan
  variables {
    project             = "P"
    environment         = "Prod!"
    region              = "EU"
    jwt                 = { issuer = "http://plain", jwks_uri = "https://a", audience = ["a"] }
    train_concurrency   = 0
    predict_concurrency = 0
    predict_memory_mb   = 99
    train_memory_mb     = 99
    predict_instances   = { min = 3, max = 2 }
    settings            = { PATH = "/" }
    tick_minutes        = 0.5
  }
  expect_failures = [
    var.project, var.environment, var.region, var.jwt, var.train_concurrency, var.predict_concurrency, var.predict_memory_mb,
    var.train_memory_mb, var.predict_instances, var.settings, var.tick_minutes,
  ]
}
