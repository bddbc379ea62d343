# Addresses are apart from those of the first site (10.0.0.0/16), so that the two can be joined one day.
resource "azurerm_virtual_network" "dr" {
  name                = "vnet-${var.name}-dr"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  address_space       = ["172.16.0.0/16"]
  tags                = local.tags
}

resource "azurerm_subnet" "appgw" {
  name                 = "snet-appgw"
  resource_group_name  = azurerm_resource_group.dr.name
  virtual_network_name = azurerm_virtual_network.dr.name
  address_prefixes     = ["172.16.1.0/24"]
  # The gateway fetches its certificate from here.
  service_endpoints = ["Microsoft.KeyVault"]
}

resource "azurerm_subnet" "web" {
  name                            = "snet-web"
  resource_group_name             = azurerm_resource_group.dr.name
  virtual_network_name            = azurerm_virtual_network.dr.name
  address_prefixes                = ["172.16.11.0/24"]
  default_outbound_access_enabled = false
}

resource "azurerm_subnet" "was" {
  name                            = "snet-was"
  resource_group_name             = azurerm_resource_group.dr.name
  virtual_network_name            = azurerm_virtual_network.dr.name
  address_prefixes                = ["172.16.21.0/24"]
  default_outbound_access_enabled = false
}

# A delegated subnet takes nothing but flexible servers. They add the endpoint to it by themselves: without it here, every later plan would
# want to take it away.
resource "azurerm_subnet" "db" {
  name                 = "snet-db"
  resource_group_name  = azurerm_resource_group.dr.name
  virtual_network_name = azurerm_virtual_network.dr.name
  address_prefixes     = ["172.16.31.0/24"]
  service_endpoints    = ["Microsoft.Storage"]

  delegation {
    name = "mysql"

    service_delegation {
      name    = "Microsoft.DBforMySQL/flexibleServers"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

# The runner needs no way out: blobs and secrets come over service endpoints, tokens from the machine's own metadata service, and the
# database is next door. So there is no NAT gateway ($32 a month) and no public address.
resource "azurerm_subnet" "ops" {
  name                            = "snet-ops"
  resource_group_name             = azurerm_resource_group.dr.name
  virtual_network_name            = azurerm_virtual_network.dr.name
  address_prefixes                = ["172.16.41.0/24"]
  service_endpoints               = ["Microsoft.KeyVault", "Microsoft.Storage"]
  default_outbound_access_enabled = false
}

# 443/80 → web 8080 → was 8080 → db 3306, ops → db 3306, and nothing else but the cluster's own. Azure's default rules let everything inside a network through:
# each group therefore ends with a refusal.
resource "azurerm_network_security_group" "appgw" {
  name                = "nsg-${var.name}-appgw"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags

  security_rule {
    name                       = "users"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefix      = "Internet"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_ranges    = ["80", "443"]
  }

  # Without it no gateway of version 2 comes up: https://learn.microsoft.com/azure/application-gateway/configuration-infrastructure
  security_rule {
    name                       = "gateway-manager"
    priority                   = 110
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefix      = "GatewayManager"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "65200-65535"
  }

  security_rule {
    name                       = "load-balancer"
    priority                   = 120
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "*"
    source_address_prefix      = "AzureLoadBalancer"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "nothing-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

# Pods have addresses of their node's subnet, and a cluster is one: CoreDNS, Calico's Typha (5473), metrics, kubelets, node-local balancing, on
# ports that change with its version. AKS demands that its subnets reach each other, so between nodes of both pools everything goes; pods of
# the two tiers are kept apart by the network policies of config/kubernetes.
resource "azurerm_network_security_group" "web" {
  name                = "nsg-${var.name}-web"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags

  security_rule {
    name                       = "gateway"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefixes    = azurerm_subnet.appgw.address_prefixes
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "8080"
  }

  security_rule {
    name                       = "nodes"
    priority                   = 110
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "*"
    source_address_prefixes    = concat(azurerm_subnet.web.address_prefixes, azurerm_subnet.was.address_prefixes)
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "load-balancer"
    priority                   = 120
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "*"
    source_address_prefix      = "AzureLoadBalancer"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "nothing-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_network_security_group" "was" {
  name                = "nsg-${var.name}-was"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags

  security_rule {
    name                       = "nodes"
    priority                   = 110
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "*"
    source_address_prefixes    = concat(azurerm_subnet.web.address_prefixes, azurerm_subnet.was.address_prefixes)
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "load-balancer"
    priority                   = 120
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "*"
    source_address_prefix      = "AzureLoadBalancer"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "nothing-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_network_security_group" "db" {
  name                = "nsg-${var.name}-db"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags

  security_rule {
    name                       = "application-and-runner"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefixes    = concat(azurerm_subnet.was.address_prefixes, azurerm_subnet.ops.address_prefixes)
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "3306"
  }

  # A server and its standby in another zone, once high availability is on.
  security_rule {
    name                         = "replication"
    priority                     = 110
    direction                    = "Inbound"
    access                       = "Allow"
    protocol                     = "Tcp"
    source_address_prefixes      = azurerm_subnet.db.address_prefixes
    source_port_range            = "*"
    destination_address_prefixes = azurerm_subnet.db.address_prefixes
    destination_port_range       = "3306"
  }

  security_rule {
    name                       = "nothing-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

# The runner asks, and answers nobody.
resource "azurerm_network_security_group" "ops" {
  name                = "nsg-${var.name}-ops"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags

  security_rule {
    name                       = "nothing"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "appgw" {
  subnet_id                 = azurerm_subnet.appgw.id
  network_security_group_id = azurerm_network_security_group.appgw.id
}

resource "azurerm_subnet_network_security_group_association" "web" {
  subnet_id                 = azurerm_subnet.web.id
  network_security_group_id = azurerm_network_security_group.web.id
}

resource "azurerm_subnet_network_security_group_association" "was" {
  subnet_id                 = azurerm_subnet.was.id
  network_security_group_id = azurerm_network_security_group.was.id
}

resource "azurerm_subnet_network_security_group_association" "db" {
  subnet_id                 = azurerm_subnet.db.id
  network_security_group_id = azurerm_network_security_group.db.id
}

resource "azurerm_subnet_network_security_group_association" "ops" {
  subnet_id                 = azurerm_subnet.ops.id
  network_security_group_id = azurerm_network_security_group.ops.id
}

# The database's name means its private address inside the network, and only where the zone is linked. It must not be the server's own name.
resource "azurerm_private_dns_zone" "db" {
  name                = "${var.name}.private.mysql.database.azure.com"
  resource_group_name = azurerm_resource_group.dr.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "db" {
  name                  = "vnet-${var.name}-dr"
  resource_group_name   = azurerm_resource_group.dr.name
  private_dns_zone_name = azurerm_private_dns_zone.db.name
  virtual_network_id    = azurerm_virtual_network.dr.id
  tags                  = local.tags
}

resource "azurerm_dns_zone" "edge" {
  count = var.dns_zone == "" ? 0 : 1

  name                = var.dns_zone
  resource_group_name = azurerm_resource_group.dr.name
  tags                = local.tags

  lifecycle {
    prevent_destroy = true
  }
}
