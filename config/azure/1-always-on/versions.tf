# Pinned: what tests/site.rs checks against is this version's schema. To raise it: change it here, run scripts/provider-schema and the tests,
# then `terraform providers lock -platform=linux_amd64 -platform=linux_arm64` in each directory and commit the .terraform.lock.hcl files.
# Where a lock file lies beside a configuration, PlanB runs `init -lockfile=readonly`: nothing is ever chosen anew at night.
terraform {
  # Write-only passwords (administrator_password_wo in 2-database) need 1.11, of Terraform as of OpenTofu.
  required_version = ">= 1.11.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "4.73.0"
    }
  }

  # storage_account_name, container_name and key come from the plan (`backend`), or by hand from -backend-config. See ../README.md for
  # how the account is made. Azure locks a state with a lease on its blob.
  backend "azurerm" {
    use_azuread_auth = true
  }
}

# Who acts comes from `az login`, a managed identity or a service principal (ARM_…).
provider "azurerm" {
  subscription_id = var.subscription

  # Accounts have no keys: blobs are reached as the person or machine that acts.
  storage_use_azuread = true

  # Registering takes minutes and a right on the whole subscription. It is done here, by day, for all three stages.
  resource_provider_registrations = "none"
  resource_providers_to_register = [
    "Microsoft.AlertsManagement",
    "Microsoft.Authorization",
    "Microsoft.Cdn",
    "Microsoft.Compute",
    "Microsoft.ContainerRegistry",
    "Microsoft.ContainerService",
    "Microsoft.DBforMySQL",
    "Microsoft.Insights",
    "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity",
    "Microsoft.Monitor",
    "Microsoft.Network",
    "Microsoft.Storage",
  ]

  features {
    resource_group {
      prevent_deletion_if_contains_resources = true
    }

    # A deleted vault keeps its name for 90 days: it is taken back, never made anew beside.
    key_vault {
      purge_soft_delete_on_destroy    = false
      recover_soft_deleted_key_vaults = true
    }

    # Otherwise reading the account asks its queues too, for which nobody here has a right.
    storage {
      data_plane_available = false
    }
  }
}
