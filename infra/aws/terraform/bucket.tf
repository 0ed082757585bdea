# The store: models, data and jobs. Log entries and artifacts are created once; the policy holds every writer to that.

resource "aws_s3_bucket" "store" {
  bucket        = coalesce(var.bucket, "polysky-${var.environment}-${data.aws_caller_identity.here.account_id}-${var.region}")
  force_destroy = !var.keep_bucket
}

resource "aws_s3_bucket_versioning" "store" {
  bucket = aws_s3_bucket.store.id
  versioning_configuration { status = "Enabled" }
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket                  = aws_s3_bucket.store.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "store" {
  bucket = aws_s3_bucket.store.id
  rule { object_ownership = "BucketOwnerEnforced" }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id
  rule {
    apply_server_side_encryption_by_default { sse_algorithm = "AES256" }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket     = aws_s3_bucket.store.id
  depends_on = [aws_s3_bucket_versioning.store]

  rule {
    id     = "deleted-and-replaced"
    status = "Enabled"
    filter { prefix = "" }
    noncurrent_version_expiration { noncurrent_days = 90 }
    abort_incomplete_multipart_upload { days_after_initiation = 7 }
  }
}

data "aws_iam_policy_document" "store" {
  dynamic "statement" {
    for_each = var.endpoint == null ? [1] : [] # emulators are reached without TLS
    content {
      sid       = "TlsOnly"
      effect    = "Deny"
      actions   = ["s3:*"]
      resources = [aws_s3_bucket.store.arn, "${aws_s3_bucket.store.arn}/*"]
      principals {
        type        = "*"
        identifiers = ["*"]
      }
      condition {
        test     = "Bool"
        variable = "aws:SecureTransport"
        values   = ["false"]
      }
    }
  }
  statement {
    sid       = "CreateOnly"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = local.created_once
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }
    # the parts of a multipart upload carry no condition; its completion does
    condition {
      test     = "Bool"
      variable = "s3:ObjectCreationOperation"
      values   = ["true"]
    }
  }
  statement {
    sid       = "LogIsKept"
    effect    = "Deny"
    actions   = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
    resources = ["${aws_s3_bucket.store.arn}/reg/*/log/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    # no function ever; who administers the account may delete the bucket as a whole
    condition {
      test     = "ArnLike"
      variable = "aws:PrincipalArn"
      values   = [for role in aws_iam_role.function : role.arn]
    }
  }
}

resource "aws_s3_bucket_policy" "store" {
  bucket     = aws_s3_bucket.store.id
  policy     = data.aws_iam_policy_document.store.json
  depends_on = [aws_s3_bucket_public_access_block.store]
}

# one trigger for each inbox; keys elsewhere tell nobody, so nothing that a function writes starts a function
resource "aws_s3_bucket_notification" "inboxes" {
  bucket = aws_s3_bucket.store.id

  dynamic "lambda_function" {
    for_each = local.inboxes
    content {
      id                  = lambda_function.value
      lambda_function_arn = aws_lambda_alias.live["job"].arn
      events              = ["s3:ObjectCreated:*"]
      filter_prefix       = "${lambda_function.value}/"
    }
  }

  depends_on = [aws_lambda_permission.bucket]
}
