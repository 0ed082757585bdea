locals {
  name    = "polysky-${var.environment}"
  inboxes = toset(["uploads", "jobs"])
  trainer = { package = "aws-train", memory_mb = var.train_memory_mb, storage_mb = 4096 }
  functions = {
    predict = {
      package   = "aws-predict", handler = "http", memory_mb = var.predict_memory_mb, storage_mb = 512
      timeout_s = 29, concurrency = var.predict_concurrency
    }
    control = merge(local.trainer, { handler = "control", memory_mb = 1769, timeout_s = 29, concurrency = -1 })
    job     = merge(local.trainer, { handler = "job", timeout_s = 900, concurrency = var.train_concurrency })
    tick    = merge(local.trainer, { handler = "tick", timeout_s = 900, concurrency = var.train_concurrency == -1 ? -1 : 1 })
  }
  # a package is uploaded through the bucket: Lambda takes 50 MB directly
  packages = {
    for name in ["aws-predict", "aws-train"] : name => "${var.packages}/${name}.zip"
    if name == "aws-predict" || var.train_image == null
  }
  images = { for key, one in local.functions : key => one.package == "aws-train" ? var.train_image : null }
}

resource "aws_s3_object" "package" {
  for_each = local.packages
  bucket   = aws_s3_bucket.store.id
  key      = "packages/${filemd5(each.value)}/${each.key}.zip"
  source   = each.value

  # what is uploaded before versions are kept is only hidden by its deletion, and holds up that of the bucket
  depends_on = [aws_s3_bucket_versioning.store]
}

resource "aws_cloudwatch_log_group" "function" {
  for_each          = local.functions
  name              = "/aws/lambda/${local.name}-${each.key}"
  retention_in_days = var.log_days
}

resource "aws_lambda_function" "function" {
  for_each                       = local.functions
  function_name                  = "${local.name}-${each.key}"
  role                           = aws_iam_role.function[each.key].arn
  architectures                  = [var.architecture]
  package_type                   = local.images[each.key] == null ? "Zip" : "Image"
  image_uri                      = local.images[each.key]
  runtime                        = local.images[each.key] == null ? "python3.13" : null
  handler                        = local.images[each.key] == null ? "handlers_aws.main.${each.value.handler}" : null
  s3_bucket                      = try(aws_s3_object.package[each.value.package].bucket, null)
  s3_key                         = try(aws_s3_object.package[each.value.package].key, null)
  source_code_hash               = try(filebase64sha256(local.packages[each.value.package]), null)
  memory_size                    = each.value.memory_mb
  timeout                        = each.value.timeout_s
  reserved_concurrent_executions = each.value.concurrency
  publish                        = true
  layers                         = var.tokens_secret && each.key == "predict" ? compact([var.secrets_extension_layer]) : []

  dynamic "image_config" {
    for_each = local.images[each.key] == null ? [] : [1]
    content { command = ["handlers_aws.main.${each.value.handler}"] }
  }

  ephemeral_storage { size = each.value.storage_mb }

  tracing_config { mode = each.key == "predict" ? "PassThrough" : "Active" }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.function[each.key].name
  }

  dynamic "snap_start" {
    for_each = var.snap_start && each.key == "predict" ? [1] : []
    content { apply_on = "PublishedVersions" }
  }

  environment {
    variables = merge(
      { POLYSKY_STORE = "s3://${aws_s3_bucket.store.id}", POWERTOOLS_SERVICE_NAME = local.name },
      var.tokens_secret ? { POLYSKY_TOKENS_SECRET = aws_secretsmanager_secret.tokens[0].name } : {},
      # the extension must not keep the secret longer than we do: a revoked token would live on for its 300 s too
      var.tokens_secret && each.key == "predict" ? { SECRETS_MANAGER_TTL = "0" } : {},
      var.endpoint == null ? {} : { AWS_ENDPOINT_URL = var.endpoint, POLYSKY_ALLOW_HTTP = "true" },
      var.settings,
    )
  }

  lifecycle {
    precondition {
      condition     = !var.tokens_secret || var.secrets_extension_layer != null
      error_message = "tokens_secret needs secrets_extension_layer, through which the predicting function reads it."
    }
  }

  depends_on = [aws_iam_role_policy.function]
}

# what serves is a published version behind an alias; with a canary the version told, and the newest for its share
locals {
  newest  = { for key, one in aws_lambda_function.function : key => one.version }
  serving = merge(local.newest, var.canary == null ? {} : { predict = var.canary.version })
  share   = var.canary == null ? 0 : var.canary.weight
}

resource "aws_lambda_alias" "live" {
  for_each         = local.functions
  name             = "live"
  function_name    = aws_lambda_function.function[each.key].function_name
  function_version = local.serving[each.key]

  dynamic "routing_config" {
    for_each = each.key == "predict" && local.share > 0 ? [local.share] : []
    content { additional_version_weights = { (local.newest[each.key]) = routing_config.value } }
  }

  lifecycle {
    precondition {
      condition     = each.key != "predict" || local.share == 0 || local.serving[each.key] != local.newest[each.key]
      error_message = "canary.version is the newest version itself: name the one before, or deploy another package."
    }
  }
}

resource "aws_lambda_permission" "bucket" {
  statement_id   = "bucket"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.function["job"].function_name
  qualifier      = aws_lambda_alias.live["job"].name
  principal      = "s3.amazonaws.com"
  source_arn     = aws_s3_bucket.store.arn
  source_account = data.aws_caller_identity.here.account_id
}

# an event that fails three times is kept here; the reconciler finds the upload itself
resource "aws_sqs_queue" "failed" {
  name                      = "${local.name}-failed"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_lambda_function_event_invoke_config" "job" {
  function_name                = aws_lambda_function.function["job"].function_name
  qualifier                    = aws_lambda_alias.live["job"].name
  maximum_retry_attempts       = 2
  maximum_event_age_in_seconds = 21600
  destination_config {
    on_failure { destination = aws_sqs_queue.failed.arn }
  }
}

resource "aws_secretsmanager_secret" "tokens" {
  count                   = var.tokens_secret ? 1 : 0
  name                    = "${local.name}-tokens"
  description             = "Token records of Polysky, as `polysky token export` prints them"
  recovery_window_in_days = var.keep_bucket ? 30 : 0
}
