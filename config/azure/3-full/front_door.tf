# An edge without AWS, under its own name: see `front_door` in variables.tf for why users are sent to the gateway and not here.
resource "azurerm_cdn_frontdoor_profile" "edge" {
  count = var.front_door ? 1 : 0

  name                = "afd-${var.name}"
  resource_group_name = data.azurerm_resource_group.dr.name
  sku_name            = "Standard_AzureFrontDoor"
  tags                = local.tags
}

resource "azurerm_cdn_frontdoor_endpoint" "edge" {
  count = var.front_door ? 1 : 0

  name                     = "${var.name}-dr"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.edge[0].id
}

resource "azurerm_cdn_frontdoor_origin_group" "edge" {
  count = var.front_door ? 1 : 0

  name                     = "gateway"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.edge[0].id

  load_balancing {}
}

resource "azurerm_cdn_frontdoor_origin" "edge" {
  count = var.front_door ? 1 : 0

  name                           = "gateway"
  cdn_frontdoor_origin_group_id  = azurerm_cdn_frontdoor_origin_group.edge[0].id
  host_name                      = var.hostname
  origin_host_header             = var.hostname
  certificate_name_check_enabled = true
  enabled                        = true
}

resource "azurerm_cdn_frontdoor_route" "edge" {
  count = var.front_door ? 1 : 0

  name                          = "everything"
  cdn_frontdoor_endpoint_id     = azurerm_cdn_frontdoor_endpoint.edge[0].id
  cdn_frontdoor_origin_group_id = azurerm_cdn_frontdoor_origin_group.edge[0].id
  cdn_frontdoor_origin_ids      = [azurerm_cdn_frontdoor_origin.edge[0].id]
  patterns_to_match             = ["/*"]
  supported_protocols           = ["Http", "Https"]
  forwarding_protocol           = "HttpsOnly"
  https_redirect_enabled        = true
}
