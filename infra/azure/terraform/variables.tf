variable "environment" {
  description = "Name of this deployment; several stand side by side in one subscription."
  type        = string
  default     = "prod"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.environment)) && !endswith(var.environment, "-")
    error_message = "environment must be 1 to 20 lower-case letters, digits and hyphens, a letter first, no hyphen last."
  }
}

variable "subscription_id" {
  description = "The subscription; null: what ARM_SUBSCRIPTION_ID says."
  type        = string
  default     = null
}

variable "location" {
  description = "Azure region of everything; it must have the Flex Consumption plan."
  type        = string
  default     = "westeurope"
}

variable "packages" {
  description = "Folder with azure-predict.zip and azure-train.zip, as `polysky package azure` makes them."
  type        = string
}

variable "keep_store" {
  description = "Whether `destroy` stops before the store. Apply with false first to delete models and data too."
  type        = bool
  default     = true
}

variable "replication" {
  description = "How the store's account is replicated."
  type        = string
  default     = "ZRS"
  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "RAGRS", "GZRS", "RAGZRS"], var.replication)
    error_message = "replication must be LRS, ZRS, GRS, RAGRS, GZRS or RAGZRS."
  }
}

variable "predict_memory_mb" {
  description = "Memory of an instance that predicts; 2048 come with one processor."
  type        = number
  default     = 2048
  validation {
    condition     = contains([512, 2048, 4096], var.predict_memory_mb)
    error_message = "predict_memory_mb must be 512, 2048 or 4096."
  }
}

variable "train_memory_mb" {
  description = "Memory of an instance that trains; 4096 come with two processors."
  type        = number
  default     = 4096
  validation {
    condition     = contains([2048, 4096], var.train_memory_mb)
    error_message = "train_memory_mb must be 2048 or 4096."
  }
}

variable "predict_instances" {
  description = "Instances that predict, at most."
  type        = number
  default     = 100
  validation {
    condition     = var.predict_instances >= 1 && var.predict_instances <= 1000
    error_message = "predict_instances must be within 1 to 1000."
  }
}

variable "train_instances" {
  description = "Instances that train, at most. A region that takes no fewer than 40 says so: jobs are safe side by side."
  type        = number
  default     = 2
  validation {
    condition     = var.train_instances >= 1 && var.train_instances <= 1000
    error_message = "train_instances must be within 1 to 1000."
  }
}

variable "always_ready" {
  description = "Instances that predict and never sleep; they cost while nobody asks."
  type        = number
  default     = 0
  validation {
    condition     = var.always_ready >= 0 && var.always_ready <= 100
    error_message = "always_ready must be within 0 to 100."
  }
}

variable "concurrency" {
  description = "Requests that one instance answers at a time, each in a thread."
  type        = number
  default     = 8
  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 100
    error_message = "concurrency must be within 1 to 100."
  }
}

variable "gateway" {
  description = "Whether API Management (its consumption tier) stands before the functions; else they are asked directly."
  type        = bool
  default     = false
}

variable "publisher" {
  description = "Name and mail address that API Management wants of who runs it, {name, email}."
  type        = object({ name = string, email = string })
  default     = { name = "Polysky", email = "noreply@example.com" }
}

variable "jwt" {
  description = "An issuer whose tokens API Management checks, {configuration, issuer, audience}; core checks too, by POLYSKY_OIDC_… in settings."
  type        = object({ configuration = string, issuer = string, audience = list(string) })
  default     = null
  validation {
    condition = var.jwt == null ? true : (
      startswith(var.jwt.configuration, "https://") && startswith(var.jwt.issuer, "https://") && length(var.jwt.audience) > 0
    )
    error_message = "jwt needs the https address of an OpenID configuration, an https issuer and at least one audience."
  }
  validation {
    condition     = var.jwt == null ? true : var.gateway
    error_message = "jwt needs gateway: without API Management it is core alone that checks tokens."
  }
}

variable "tokens_secret" {
  description = "Whether tokens come from a Key Vault that this stack makes, instead of records in the store."
  type        = bool
  default     = false
}

variable "settings" {
  description = "More settings of Polysky: POLYSKY_… variables of both function apps."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "POLYSKY_")])
    error_message = "settings must be named POLYSKY_…"
  }
}

variable "log_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 30
  validation {
    condition     = var.log_days >= 30 && var.log_days <= 730
    error_message = "log_days must be within 30 to 730."
  }
}

variable "alarm_email" {
  description = "Who is told of alarms; null: nobody by mail."
  type        = string
  default     = null
}
