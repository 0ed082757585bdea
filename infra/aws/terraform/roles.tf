# One role a function, with what its code calls and nothing else: tests/infra/test_privilege.py compares both sides.

data "aws_iam_policy_document" "lambda" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  for_each           = local.functions
  name               = "${local.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.lambda.json
}

locals {
  store = aws_s3_bucket.store.arn
  # keys that are written once and never again
  created_once = ["${local.store}/reg/*/log/*", "${local.store}/reg/*/art/*"]
  # what each function reads, creates, replaces and deletes, by key pattern
  access = {
    predict = {
      read   = concat(["reg/*/alias/*", "reg/*/art/*"], local.token_keys)
      list   = ["reg/_models/*", "reg/*", "auth/*"]
      write  = []
      delete = []
    }
    control = {
      read   = concat(["reg/*", "uploads/*", "jobs/*"], local.token_keys)
      list   = ["reg/*", "uploads/*", "jobs/*", "auth/*"]
      write  = ["reg/*/log/*", "reg/*/ckpt/*", "reg/*/alias/*", "reg/_models/*", "uploads/*", "jobs/*"]
      delete = []
    }
    job = {
      read   = ["reg/*", "uploads/*", "jobs/*"]
      list   = ["reg/*", "uploads/*", "jobs/*"]
      write  = ["reg/*/log/*", "reg/*/ckpt/*", "reg/*/alias/*", "reg/*/art/*", "reg/_models/*"]
      delete = []
    }
    tick = {
      read   = ["reg/*", "uploads/*", "jobs/*"]
      list   = ["reg/*", "uploads/*", "jobs/*"]
      write  = ["reg/*/log/*", "reg/*/ckpt/*", "reg/*/alias/*", "reg/*/art/*", "reg/_models/*"]
      delete = ["reg/*/art/*", "reg/*/ckpt/*"]
    }
  }
  token_keys = var.tokens_secret ? [] : ["auth/tokens/*", "auth/revoked/*"]
}

data "aws_iam_policy_document" "function" {
  for_each = local.functions

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function[each.key].arn}:*"]
  }
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [for pattern in local.access[each.key].read : "${local.store}/${pattern}"]
  }
  statement {
    sid       = "List" # without it S3 answers 403, not 404, for what is not there
    actions   = ["s3:ListBucket"]
    resources = [local.store]
  }
  dynamic "statement" {
    for_each = length(local.access[each.key].write) == 0 ? [] : [local.access[each.key].write]
    content {
      sid       = "Write"
      actions   = ["s3:PutObject"]
      resources = [for pattern in statement.value : "${local.store}/${pattern}"]
    }
  }
  dynamic "statement" {
    for_each = length(local.access[each.key].delete) == 0 ? [] : [local.access[each.key].delete]
    content {
      sid       = "Collect"
      actions   = ["s3:DeleteObject"]
      resources = [for pattern in statement.value : "${local.store}/${pattern}"]
    }
  }
  dynamic "statement" {
    for_each = each.key == "job" ? [aws_sqs_queue.failed.arn] : []
    content {
      sid       = "Failed"
      actions   = ["sqs:SendMessage"]
      resources = [statement.value]
    }
  }
  dynamic "statement" {
    for_each = each.key == "predict" ? [] : [1]
    content {
      sid       = "Traces" # X-Ray knows no resources
      actions   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
      resources = ["*"]
    }
  }
  dynamic "statement" {
    for_each = var.tokens_secret && contains(["predict", "control"], each.key) ? [1] : []
    content {
      sid       = "Tokens"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [aws_secretsmanager_secret.tokens[0].arn]
    }
  }
}

resource "aws_iam_role_policy" "function" {
  for_each = local.functions
  name     = "least"
  role     = aws_iam_role.function[each.key].id
  policy   = data.aws_iam_policy_document.function[each.key].json
}
