data "aws_iam_policy_document" "scheduler" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.here.account_id]
    }
  }
}

data "aws_iam_policy_document" "tick" {
  statement {
    actions   = ["lambda:InvokeFunction"]
    resources = [aws_lambda_alias.live["tick"].arn]
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "${local.name}-scheduler"
  assume_role_policy = data.aws_iam_policy_document.scheduler.json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "least"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.tick.json
}

resource "aws_scheduler_schedule" "tick" {
  name                = "${local.name}-tick"
  schedule_expression = var.tick_minutes == 1 ? "rate(1 minute)" : "rate(${var.tick_minutes} minutes)"

  flexible_time_window { mode = "OFF" }

  target {
    arn      = aws_lambda_alias.live["tick"].arn
    role_arn = aws_iam_role.scheduler.arn
    input    = jsonencode({ source = "polysky.tick" })
    retry_policy { maximum_retry_attempts = 0 } # the next tick does the same
  }
}
