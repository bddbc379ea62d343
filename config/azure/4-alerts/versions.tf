# See 1-always-on/versions.tf for how versions are pinned and raised.
terraform {
  required_version = ">= 1.11.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "4.73.0"
    }
  }

  backend "azurerm" {
    use_azuread_auth = true
  }
}

provider "azurerm" {
  subscription_id = var.subscription

  # Done by stage 1, by day.
  resource_provider_registrations = "none"

  features {}
}
