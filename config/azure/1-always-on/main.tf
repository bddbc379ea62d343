# Stage 1: what stands always. Nothing here is ever destroyed by a failback: PlanB refuses it by type, Terraform by prevent_destroy, Azure
# by its locks.

locals {
  tags = merge({ service = var.name, stage = "1" }, var.tags)
}

data "azurerm_client_config" "current" {}

resource "azurerm_resource_group" "dr" {
  name     = "rg-${var.name}-dr"
  location = var.location
  tags     = local.tags

  lifecycle {
    prevent_destroy = true
  }
}
