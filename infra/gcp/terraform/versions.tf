terraform {
  required_version = ">= 1.9"
  required_providers {
    google      = { source = "hashicorp/google", version = ">= 6.20, < 8.0" }
    google-beta = { source = "hashicorp/google-beta", version = ">= 6.20, < 8.0" } # API Gateway is nowhere else
  }
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = { application = "polysky", environment = var.environment }
}

provider "google-beta" {
  project        = var.project
  region         = var.region
  default_labels = { application = "polysky", environment = var.environment }
}

data "google_project" "here" {
  project_id = var.project
}

locals {
  services = toset([
    "apigateway", "artifactregistry", "cloudbuild", "cloudfunctions", "cloudscheduler", "eventarc", "iam", "logging",
    "monitoring", "pubsub", "run", "secretmanager", "servicecontrol", "servicemanagement", "storage",
  ])
}

# Terraform itself needs two that must be on before, once a project: `gcloud services enable serviceusage.googleapis.com
# cloudresourcemanager.googleapis.com`. What is switched on stays so: others in the project may have come to need it.
resource "google_project_service" "needed" {
  for_each           = var.vertex_endpoint ? setunion(local.services, ["aiplatform"]) : local.services
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
