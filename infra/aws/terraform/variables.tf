variable "environment" {
  description = "Name of this deployment; several stand side by side in one account."
  type        = string
  default     = "prod"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.environment))
    error_message = "environment must be 1 to 20 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "AWS region of everything."
  type        = string
  default     = "eu-west-1"
}

variable "packages" {
  description = "Folder with aws-predict.zip and aws-train.zip, as `polysky package aws` makes them."
  type        = string
}

variable "train_image" {
  description = "URI of a container image for the functions that train, control and tick; null: aws-train.zip."
  type        = string
  default     = null
}

variable "architecture" {
  description = "Processor of the functions; the packages must have been made for it."
  type        = string
  default     = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "bucket" {
  description = "Name of the bucket to make; by default made of environment, account and region."
  type        = string
  default     = null
}

variable "keep_bucket" {
  description = "Whether `destroy` stops at a bucket that holds anything. Say false to delete models and data too."
  type        = bool
  default     = true
}

variable "predict_memory_mb" {
  description = "Memory of the predicting function; a whole processor comes with 1769."
  type        = number
  default     = 1769
  validation {
    condition     = var.predict_memory_mb >= 128 && var.predict_memory_mb <= 10240
    error_message = "predict_memory_mb must be within 128 to 10240."
  }
}

variable "train_memory_mb" {
  description = "Memory of the functions that train."
  type        = number
  default     = 3008
  validation {
    condition     = var.train_memory_mb >= 512 && var.train_memory_mb <= 10240
    error_message = "train_memory_mb must be within 512 to 10240."
  }
}

variable "predict_concurrency" {
  description = "Instances of the predicting function at most and guaranteed; -1 shares those of the account."
  type        = number
  default     = -1
}

variable "train_concurrency" {
  description = "Training jobs at once at most; -1 shares the account's instances, for an account too young to reserve any."
  type        = number
  default     = 2
  validation {
    condition     = var.train_concurrency >= 1 || var.train_concurrency == -1
    error_message = "train_concurrency must be 1 or more, or -1."
  }
}

variable "snap_start" {
  description = "Whether published versions of the predicting function start from a snapshot."
  type        = bool
  default     = false
}

variable "canary" {
  description = "The published version of the predicting function that goes on serving, and the newest's share beside it, {version, weight}; a weight of 0 rolls back."
  type        = object({ version = string, weight = number })
  default     = null
  validation {
    condition     = var.canary == null ? true : can(regex("^[1-9][0-9]*$", var.canary.version))
    error_message = "canary.version must be the number of a published version, as predict_version of the outputs tells it."
  }
  validation {
    condition     = var.canary == null ? true : var.canary.weight >= 0 && var.canary.weight < 1
    error_message = "canary.weight must be 0 or more and below 1."
  }
}

variable "throttle" {
  description = "Requests a second, and in a burst, that the API lets through."
  type        = object({ rate = number, burst = number })
  default     = { rate = 200, burst = 400 }
}

variable "jwt" {
  description = "An issuer whose tokens the API checks before any function runs, {issuer, audience}; core checks too."
  type        = object({ issuer = string, audience = list(string) })
  default     = null
  validation {
    condition     = var.jwt == null ? true : startswith(var.jwt.issuer, "https://") && length(var.jwt.audience) > 0
    error_message = "jwt needs an https issuer and at least one audience."
  }
}

variable "domain" {
  description = "A host name of one's own and its certificate, {name, certificate_arn}."
  type        = object({ name = string, certificate_arn = string })
  default     = null
}

variable "tokens_secret" {
  description = "Whether tokens come from a secret that this stack makes, instead of records in the bucket."
  type        = bool
  default     = false
}

variable "secrets_extension_layer" {
  description = "ARN of the AWS Parameters and Secrets Lambda Extension layer of the region; needed with tokens_secret."
  type        = string
  default     = null
}

variable "settings" {
  description = "More settings of Polysky: POLYSKY_… variables of all functions."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "POLYSKY_")])
    error_message = "settings must be named POLYSKY_…"
  }
}

variable "tick_minutes" {
  description = "How often what no event told of is looked for."
  type        = number
  default     = 5
  validation {
    condition     = var.tick_minutes >= 1 && var.tick_minutes <= 60
    error_message = "tick_minutes must be within 1 to 60."
  }
}

variable "log_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 30
}

variable "alarm_email" {
  description = "Who is told of alarms; null: nobody by mail."
  type        = string
  default     = null
}

variable "endpoint" {
  description = "URL of an emulator of all services; null is AWS itself."
  type        = string
  default     = null
}
