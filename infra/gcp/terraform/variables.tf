variable "project" {
  description = "Id of the project that everything is made in."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project must be a project's id: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "environment" {
  description = "Name of this deployment; several stand side by side in one project."
  type        = string
  default     = "prod"
  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,11}[a-z0-9])?$", var.environment))
    error_message = "environment must be 1 to 13 lower-case letters, digits and hyphens, a letter first, no hyphen last."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west1"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be one region, such as europe-west1."
  }
}

variable "gateway_region" {
  description = "Region of the API gateway, which is not offered in all; null: that of everything."
  type        = string
  default     = null
}

variable "packages" {
  description = "Folder with gcp-predict.zip and gcp-train.zip, as `polysky package gcp` makes them."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket to make; by default made of environment and project."
  type        = string
  default     = null
}

variable "keep_bucket" {
  description = "Whether `destroy` stops at a bucket that holds anything. Say false to delete models and data too."
  type        = bool
  default     = true
}

variable "predict_memory_mb" {
  description = "Memory of the predicting function."
  type        = number
  default     = 1024
  validation {
    condition     = var.predict_memory_mb >= 512 && var.predict_memory_mb <= 4096
    error_message = "predict_memory_mb must be within 512 to 4096, which is what one processor goes with."
  }
}

variable "train_memory_mb" {
  description = "Memory of the functions that train."
  type        = number
  default     = 4096
  validation {
    condition     = var.train_memory_mb >= 1024 && var.train_memory_mb <= 8192
    error_message = "train_memory_mb must be within 1024 to 8192, which is what two processors go with."
  }
}

variable "predict_instances" {
  description = "Instances of the predicting function, {min, max}: those that always run, and the bound on what it costs."
  type        = object({ min = number, max = number })
  default     = { min = 0, max = 20 }
  validation {
    condition     = var.predict_instances.min >= 0 && var.predict_instances.max >= max(1, var.predict_instances.min)
    error_message = "predict_instances needs 0 <= min <= max, and max 1 or more."
  }
}

variable "predict_concurrency" {
  description = "Requests at once in one instance of the predicting function."
  type        = number
  default     = 20
  validation {
    condition     = var.predict_concurrency >= 1 && var.predict_concurrency <= 1000
    error_message = "predict_concurrency must be within 1 to 1000."
  }
}

variable "train_concurrency" {
  description = "Training jobs at once at most."
  type        = number
  default     = 2
  validation {
    condition     = var.train_concurrency >= 1
    error_message = "train_concurrency must be 1 or more."
  }
}

variable "hold_traffic" {
  description = "Whether a new revision of the predicting function waits for `traffic_command` instead of serving at once."
  type        = bool
  default     = false
}

variable "jwt" {
  description = "An issuer whose tokens the gateway checks before any function runs, {issuer, jwks_uri, audience}; core checks too."
  type        = object({ issuer = string, jwks_uri = string, audience = list(string) })
  default     = null
  validation {
    condition = var.jwt == null ? true : (
      startswith(var.jwt.issuer, "https://") && startswith(var.jwt.jwks_uri, "https://") && length(var.jwt.audience) > 0
    )
    error_message = "jwt needs an https issuer, an https jwks_uri and at least one audience."
  }
}

variable "tokens_secret" {
  description = "Whether tokens come from a secret that this stack makes, instead of records in the bucket."
  type        = bool
  default     = false
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
    condition     = var.tick_minutes >= 1 && var.tick_minutes < 60 && floor(var.tick_minutes) == var.tick_minutes
    error_message = "tick_minutes must be a whole number within 1 to 59."
  }
}

variable "alarm_email" {
  description = "Who is told of alarms; null: nobody by mail."
  type        = string
  default     = null
}

variable "vertex_endpoint" {
  description = "Whether an endpoint of Vertex AI is made, for the image of Polysky as a custom container."
  type        = bool
  default     = false
}

variable "gcloud" {
  description = "The program gcloud, which sets the one thing that no resource can: where Eventarc's dead letters go."
  type        = string
  default     = "gcloud"
}
