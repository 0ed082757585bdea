# What the stack promises, against a mocked provider: no account, no network.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mock" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mock" }
  }
  mock_resource "aws_lambda_function" {
    defaults = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:mock", version = "1" }
  }
  mock_resource "aws_lambda_alias" {
    defaults = {
      arn        = "arn:aws:lambda:eu-west-1:123456789012:function:mock:live"
      invoke_arn = "arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/mock/invocations"
    }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:mock" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-west-1:123456789012:mock" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-1:123456789012:mock" }
  }
  mock_resource "aws_apigatewayv2_api" {
    defaults = { execution_arn = "arn:aws:execute-api:eu-west-1:123456789012:mock" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:mock" }
  }
}

variables {
  packages = "tests/packages"
}

run "defaults" {
  assert {
    condition     = alltrue([for name, one in aws_lambda_function.function : one.function_name == "polysky-prod-${name}"])
    error_message = "a function is not named after its environment"
  }
  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled"
    error_message = "sources are told apart by their version, so the bucket must keep versions"
  }
  assert {
    condition = toset([for one in aws_s3_bucket_notification.inboxes.lambda_function : one.filter_prefix]) == toset([
      "uploads/", "jobs/",
    ])
    error_message = "an object outside the inboxes starts a function"
  }
  assert {
    condition     = aws_lambda_function.function["job"].timeout == 900 && aws_lambda_function.function["job"].reserved_concurrent_executions == 2 && aws_lambda_function.function["tick"].reserved_concurrent_executions == 1
    error_message = "training has neither its time nor its bound"
  }
  assert {
    condition     = aws_apigatewayv2_stage.default.default_route_settings[0].throttling_rate_limit == 200
    error_message = "the API is not throttled"
  }
  assert {
    condition     = alltrue([for one in aws_apigatewayv2_route.route : one.authorization_type == "NONE"])
    error_message = "without an issuer no route can have an authorizer"
  }
  assert {
    condition     = length(aws_lambda_alias.live["predict"].routing_config) == 0
    error_message = "there is a canary that nobody asked for"
  }
  assert {
    condition     = aws_sns_topic.alarms.kms_master_key_id == null
    error_message = "CloudWatch may not use the key of the topic: no alarm would arrive"
  }
  assert {
    condition     = !aws_s3_bucket.store.force_destroy
    error_message = "models and data would be deleted unasked"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.slow.threshold == 500 && aws_cloudwatch_metric_alarm.slow.extended_statistic == "p99" && aws_cloudwatch_metric_alarm.slow.evaluation_periods == 5
    error_message = "the latency alarm is another one"
  }
  assert {
    condition = length(setsubtract(
      ["errors-predict", "errors-job", "failed-events", "drift", "parked", "alerts", "throttled", "server-errors"],
      keys(aws_cloudwatch_metric_alarm.alarm),
    )) == 0
    error_message = "an alarm is missing"
  }
}

run "the_predicting_function_writes_nothing" {
  assert {
    condition     = length(local.access.predict.write) == 0 && length(local.access.predict.delete) == 0
    error_message = "the predicting function may write"
  }
  assert {
    condition     = toset(flatten([for one in values(local.access) : one.delete])) == toset(["reg/*/art/*", "reg/*/ckpt/*"])
    error_message = "something else than artifacts and old checkpoints can be deleted"
  }
}

run "a_second_environment" {
  variables {
    environment = "test"
  }
  assert {
    condition     = aws_lambda_function.function["predict"].function_name == "polysky-test-predict" && aws_sqs_queue.failed.name == "polysky-test-failed"
    error_message = "two environments would collide"
  }
}

run "an_account_too_young_to_reserve" {
  variables {
    train_concurrency = -1
  }
  assert {
    condition     = alltrue([for one in aws_lambda_function.function : one.reserved_concurrent_executions == -1])
    error_message = "an account whose limit is low could not be deployed to"
  }
}

run "a_canary" {
  variables {
    canary = { version = "7", weight = 0.1 }
  }
  assert {
    condition     = aws_lambda_alias.live["predict"].function_version == "7" && output.predict_version == "7"
    error_message = "the new version takes over at once"
  }
  assert {
    condition     = aws_lambda_alias.live["predict"].routing_config[0].additional_version_weights["1"] == 0.1 && output.newest_version == "1"
    error_message = "the canary gets no share"
  }
  assert {
    condition     = alltrue([for name in ["control", "job", "tick"] : aws_lambda_alias.live[name].function_version == "1" && length(aws_lambda_alias.live[name].routing_config) == 0])
    error_message = "a canary of predictions holds back other functions"
  }
}

run "a_rollback_of_code" {
  variables {
    canary = { version = "7", weight = 0 }
  }
  assert {
    condition     = aws_lambda_alias.live["predict"].function_version == "7" && length(aws_lambda_alias.live["predict"].routing_config) == 0
    error_message = "the newer version still gets requests"
  }
}

run "a_canary_of_itself" {
  command = plan # version 1 is what the runs before have made
  variables {
    canary = { version = "1", weight = 0.1 }
  }
  expect_failures = [aws_lambda_alias.live["predict"]]
}

run "an_issuer" {
  variables {
    jwt = { issuer = "https://issuer.example.com", audience = ["polysky"] }
  }
  assert {
    condition = alltrue([for key, one in aws_apigatewayv2_route.route :
    one.authorization_type == (local.routes[key].public ? "NONE" : "JWT")])
    error_message = "a route is not behind the authorizer"
  }
}

run "options" {
  variables {
    snap_start              = true
    architecture            = "arm64"
    tokens_secret           = true
    secrets_extension_layer = "arn:aws:lambda:eu-west-1:015030872274:layer:AWS-Parameters-and-Secrets-Lambda-Extension-Arm64:12"
    domain                  = { name = "ml.example.com", certificate_arn = "arn:aws:acm:eu-west-1:123456789012:certificate/a" }
    alarm_email             = "night@example.com"
    settings                = { POLYSKY_REFRESH_S = "5" }
  }
  assert {
    condition     = aws_lambda_function.function["predict"].snap_start[0].apply_on == "PublishedVersions" && aws_lambda_function.function["job"].architectures[0] == "arm64"
    error_message = "an option has no effect"
  }
  assert {
    condition     = length(local.token_keys) == 0 && aws_lambda_function.function["control"].environment[0].variables.POLYSKY_TOKENS_SECRET == "polysky-prod-tokens"
    error_message = "tokens would still be read from the bucket"
  }
  assert {
    condition = (
      aws_lambda_function.function["predict"].environment[0].variables.SECRETS_MANAGER_TTL == "0" &&
      aws_lambda_function.function["predict"].layers[0] == var.secrets_extension_layer
    )
    error_message = "the secrets extension keeps tokens that were revoked"
  }
  assert {
    condition     = output.url == "https://ml.example.com" && output.domain_target != null && length(aws_sns_topic_subscription.mail) == 1
    error_message = "host name, where it must point to, or mail is missing"
  }
}

run "an_image" {
  variables {
    train_image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/polysky:1"
  }
  assert {
    condition     = aws_lambda_function.function["job"].package_type == "Image" && aws_lambda_function.function["predict"].package_type == "Zip"
    error_message = "the image is not used where it should be"
  }
}

run "bad_values_are_named" {
  command = plan
  variables {
    environment       = "Prod!"
    architecture      = "sparc"
    canary            = { version = "$LATEST", weight = 1 }
    jwt               = { issuer = "http://plain", audience = ["a"] }
    train_concurrency = 0
    predict_memory_mb = 99
    settings          = { PATH = "/" }
    tick_minutes      = 0
  }
  expect_failures = [
    var.environment, var.architecture, var.canary, var.jwt, var.train_concurrency, var.predict_memory_mb, var.settings,
    var.tick_minutes,
  ]
}
