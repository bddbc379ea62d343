# Stage 3: the whole service. Gateway (6 to 8 minutes) and cluster (5 to 8 minutes) know nothing of each other and are made side by side: the
# gateway sends to one fixed address in snet-web, which the service `web` takes once the manifests are applied (config/kubernetes).

locals {
  tags        = merge({ service = var.name, stage = "3" }, var.tags)
  web_address = "172.16.11.250"
}

data "azurerm_resource_group" "dr" {
  name = "rg-${var.name}-dr"
}

data "azurerm_subnet" "tier" {
  for_each = toset(["appgw", "web", "was"])

  name                 = "snet-${each.key}"
  virtual_network_name = "vnet-${var.name}-dr"
  resource_group_name  = data.azurerm_resource_group.dr.name
}

data "azurerm_key_vault" "dr" {
  name                = var.key_vault
  resource_group_name = data.azurerm_resource_group.dr.name
}

# Made by stage 1, with their rights: Azure takes minutes to spread one.
data "azurerm_user_assigned_identity" "of" {
  for_each = toset(["gateway", "cluster", "kubelet"])

  name                = "id-${var.name}-${each.key}"
  resource_group_name = data.azurerm_resource_group.dr.name
}
