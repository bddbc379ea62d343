# Images by digest, so that nothing is pulled from a place that is down.
resource "azurerm_container_registry" "dr" {
  count = var.registry == "" ? 0 : 1

  name                = var.registry
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  sku                 = "Basic"
  admin_enabled       = false
  tags                = local.tags

  lifecycle {
    prevent_destroy = true
  }
}
