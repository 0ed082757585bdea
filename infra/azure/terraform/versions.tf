terraform {
  required_version = ">= 1.11"
  required_providers {
    # those before want forty instances or more of an app (its pull request 31392)
    azurerm = { source = "hashicorp/azurerm", version = ">= 4.60, < 5.0" }
  }
}

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true # the store's account knows no shared keys

  features {
    api_management {
      purge_soft_delete_on_destroy = true
    }
    application_insights {
      disable_generated_rule = true # which nobody here would destroy
    }
    key_vault {
      purge_soft_delete_on_destroy = !var.keep_store
    }
    log_analytics_workspace {
      permanently_delete_on_destroy = !var.keep_store
    }
    resource_group {
      prevent_deletion_if_contains_resources = var.keep_store
    }
  }
}

data "azurerm_client_config" "here" {}

locals {
  name = "polysky-${var.environment}"
  # host names, storage accounts and vaults share their names with everybody's
  suffix = substr(sha256("${data.azurerm_client_config.here.subscription_id}/${local.name}"), 0, 8)
  tags   = { application = "polysky", environment = var.environment }
}

resource "azurerm_resource_group" "polysky" {
  name     = local.name
  location = var.location
  tags     = local.tags
}
