# Whoever is told when the second site is unwell, apart from what serves (3-full): nobody waits for it, and a region that refuses an alert
# refuses no service. What it looks at is named by id, not looked up: a destroy finds its way where there is no cluster any more, or never was.

locals {
  tags         = merge({ service = var.name, stage = "3" }, var.tags)
  group        = data.azurerm_resource_group.dr.id
  cluster_name = "aks-${var.name}-dr"
  cluster      = "${local.group}/providers/Microsoft.ContainerService/managedClusters/${local.cluster_name}"
  gateway      = "${local.group}/providers/Microsoft.Network/applicationGateways/agw-${var.name}"
}

data "azurerm_resource_group" "dr" {
  name = "rg-${var.name}-dr"
}
