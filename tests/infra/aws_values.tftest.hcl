# What the stack comes to, computed by the real provider without an account: what AWS alone knows is told here.

provider "aws" {
  region                      = "eu-west-1"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

override_data {
  target          = data.aws_caller_identity.here
  override_during = plan
  values          = { account_id = "123456789012" }
}

override_resource {
  target          = aws_s3_bucket.store
  override_during = plan
  values = {
    id  = "polysky-prod-123456789012-eu-west-1"
    arn = "arn:aws:s3:::polysky-prod-123456789012-eu-west-1"
  }
}

override_resource {
  target          = aws_sqs_queue.failed
  override_during = plan
  values          = { arn = "arn:aws:sqs:eu-west-1:123456789012:polysky-prod-failed" }
}

override_resource {
  target          = aws_secretsmanager_secret.tokens
  override_during = plan
  values          = { arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:polysky-prod-tokens" }
}

override_resource {
  target          = aws_apigatewayv2_api.http
  override_during = plan
  values          = { id = "api", execution_arn = "arn:aws:execute-api:eu-west-1:123456789012:api" }
}

override_resource {
  target          = aws_sns_topic.alarms
  override_during = plan
  values          = { arn = "arn:aws:sns:eu-west-1:123456789012:polysky-prod-alarms" }
}

override_resource {
  target          = aws_cloudwatch_log_group.function["predict"]
  override_during = plan
  values          = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/polysky-prod-predict" }
}

override_resource {
  target          = aws_iam_role.function["predict"]
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:role/polysky-prod-predict", id = "polysky-prod-predict" }
}

override_resource {
  target          = aws_lambda_alias.live["predict"]
  override_during = plan
  values          = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:polysky-prod-predict:live" }
}

override_resource {
  target          = aws_cloudwatch_log_group.function["control"]
  override_during = plan
  values          = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/polysky-prod-control" }
}

override_resource {
  target          = aws_iam_role.function["control"]
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:role/polysky-prod-control", id = "polysky-prod-control" }
}

override_resource {
  target          = aws_lambda_alias.live["control"]
  override_during = plan
  values          = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:polysky-prod-control:live" }
}

override_resource {
  target          = aws_cloudwatch_log_group.function["job"]
  override_during = plan
  values          = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/polysky-prod-job" }
}

override_resource {
  target          = aws_iam_role.function["job"]
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:role/polysky-prod-job", id = "polysky-prod-job" }
}

override_resource {
  target          = aws_lambda_alias.live["job"]
  override_during = plan
  values          = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:polysky-prod-job:live" }
}

override_resource {
  target          = aws_cloudwatch_log_group.function["tick"]
  override_during = plan
  values          = { arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/polysky-prod-tick" }
}

override_resource {
  target          = aws_iam_role.function["tick"]
  override_during = plan
  values          = { arn = "arn:aws:iam::123456789012:role/polysky-prod-tick", id = "polysky-prod-tick" }
}

override_resource {
  target          = aws_lambda_alias.live["tick"]
  override_during = plan
  values          = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:polysky-prod-tick:live" }
}

override_resource {
  target          = aws_apigatewayv2_integration.function["predict"]
  override_during = plan
  values          = { id = "predict" }
}

override_resource {
  target          = aws_apigatewayv2_integration.function["control"]
  override_during = plan
  values          = { id = "control" }
}

override_resource {
  target          = aws_apigatewayv2_authorizer.jwt
  override_during = plan
  values          = { id = "jwt" }
}

variables {
  packages = "tests/packages"
}

run "plain" {
  command = plan
}

run "options" {
  command = plan
  variables {
    tokens_secret           = true
    secrets_extension_layer = "arn:aws:lambda:eu-west-1:015030872274:layer:AWS-Parameters-and-Secrets-Lambda-Extension:12"
    snap_start              = true
    predict_concurrency     = 5
    train_concurrency       = -1
    jwt                     = { issuer = "https://issuer.example.com", audience = ["polysky"] }
    alarm_email             = "night@example.com"
  }
}
