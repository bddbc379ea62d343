resource "azurerm_public_ip" "gateway" {
  name                = "pip-${var.name}-gateway"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  allocation_method   = "Static"
  sku                 = "Standard"
  zones               = var.zones
  tags                = local.tags
}

# Short-lived, since the address is another one each time.
resource "azurerm_dns_a_record" "gateway" {
  count = var.dns_zone == "" ? 0 : 1

  name                = var.hostname == var.dns_zone ? "@" : trimsuffix(var.hostname, ".${var.dns_zone}")
  zone_name           = var.dns_zone
  resource_group_name = data.azurerm_resource_group.dr.name
  ttl                 = 60
  target_resource_id  = azurerm_public_ip.gateway.id
  tags                = local.tags
}

resource "azurerm_web_application_firewall_policy" "gateway" {
  name                = "waf-${var.name}"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  tags                = local.tags

  policy_settings {
    enabled                     = true
    mode                        = var.waf_mode
    request_body_check          = true
    max_request_body_size_in_kb = 128
    file_upload_limit_in_mb     = 100
  }

  managed_rules {
    managed_rule_set {
      type    = "Microsoft_DefaultRuleSet"
      version = "2.1"
    }
  }
}

resource "azurerm_application_gateway" "gateway" {
  name                = "agw-${var.name}"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  zones               = var.zones
  firewall_policy_id  = azurerm_web_application_firewall_policy.gateway.id
  http2_enabled       = true
  tags                = local.tags

  sku {
    name = "WAF_v2"
    tier = "WAF_v2"
  }

  # Each unit is paid for by the hour: one stands, ten may.
  autoscale_configuration {
    min_capacity = 1
    max_capacity = 10
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [data.azurerm_user_assigned_identity.of["gateway"].id]
  }

  gateway_ip_configuration {
    name      = "gateway"
    subnet_id = data.azurerm_subnet.tier["appgw"].id
  }

  frontend_ip_configuration {
    name                 = "public"
    public_ip_address_id = azurerm_public_ip.gateway.id
  }

  frontend_port {
    name = "http"
    port = 80
  }

  frontend_port {
    name = "https"
    port = 443
  }

  # Without a version: a renewed certificate is taken by itself.
  ssl_certificate {
    name                = "gateway"
    key_vault_secret_id = "${data.azurerm_key_vault.dr.vault_uri}secrets/${var.certificate}"
  }

  ssl_policy {
    policy_type = "Predefined"
    policy_name = "AppGwSslPolicy20220101"
  }

  backend_address_pool {
    name         = "web"
    ip_addresses = [local.web_address]
  }

  backend_http_settings {
    name                  = "web"
    port                  = 8080
    protocol              = "Http"
    cookie_based_affinity = "Disabled"
    request_timeout       = 60
    probe_name            = "web"

    connection_draining {
      enabled           = true
      drain_timeout_sec = 30
    }
  }

  # nginx itself: a database that is not open yet must not take the whole site down.
  probe {
    name                = "web"
    protocol            = "Http"
    host                = var.hostname
    path                = "/healthz"
    interval            = 10
    timeout             = 5
    unhealthy_threshold = 3
  }

  http_listener {
    name                           = "https"
    frontend_ip_configuration_name = "public"
    frontend_port_name             = "https"
    protocol                       = "Https"
    ssl_certificate_name           = "gateway"
  }

  http_listener {
    name                           = "http"
    frontend_ip_configuration_name = "public"
    frontend_port_name             = "http"
    protocol                       = "Http"
  }

  redirect_configuration {
    name                 = "to-https"
    redirect_type        = "Permanent"
    target_listener_name = "https"
    include_path         = true
    include_query_string = true
  }

  request_routing_rule {
    name                       = "web"
    priority                   = 100
    rule_type                  = "Basic"
    http_listener_name         = "https"
    backend_address_pool_name  = "web"
    backend_http_settings_name = "web"
  }

  request_routing_rule {
    name                        = "to-https"
    priority                    = 200
    rule_type                   = "Basic"
    http_listener_name          = "http"
    redirect_configuration_name = "to-https"
  }
}
