# The web pool is the system pool as well: a third one would cost two more nodes. Local accounts stay on, and the kubeconfig that comes out
# holds a certificate: it works with no login program and no directory in between, from api_addresses, until the cluster is destroyed.
resource "azurerm_kubernetes_cluster" "dr" {
  name                = "aks-${var.name}-dr"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  dns_prefix          = "${var.name}-dr"
  kubernetes_version  = var.kubernetes_version == "" ? null : var.kubernetes_version
  sku_tier            = "Standard"
  # No upgrade in the middle of a disaster.
  node_os_upgrade_channel           = "None"
  role_based_access_control_enabled = true
  local_account_disabled            = false
  oidc_issuer_enabled               = true
  workload_identity_enabled         = true
  tags                              = local.tags

  default_node_pool {
    name                        = "web"
    vm_size                     = var.web_node_size
    vnet_subnet_id              = data.azurerm_subnet.tier["web"].id
    zones                       = var.zones
    auto_scaling_enabled        = true
    min_count                   = var.nodes.min
    max_count                   = var.nodes.max
    max_pods                    = 30
    node_labels                 = { tier = "web" }
    temporary_name_for_rotation = "webtmp"
    tags                        = local.tags

    upgrade_settings {
      max_surge = "1"
    }
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [data.azurerm_user_assigned_identity.of["cluster"].id]
  }

  kubelet_identity {
    client_id                 = data.azurerm_user_assigned_identity.of["kubelet"].client_id
    object_id                 = data.azurerm_user_assigned_identity.of["kubelet"].principal_id
    user_assigned_identity_id = data.azurerm_user_assigned_identity.of["kubelet"].id
  }

  # Pods get addresses of their node's subnet, so that the database's network security group knows the tiers. Nothing of it is in AWS's
  # 10.0.0.0/16.
  network_profile {
    network_plugin    = "azure"
    network_policy    = "calico"
    load_balancer_sku = "standard"
    outbound_type     = "loadBalancer"
    service_cidr      = "10.100.0.0/16"
    dns_service_ip    = "10.100.0.10"
  }

  api_server_access_profile {
    authorized_ip_ranges = var.api_addresses
  }

  # For the alerts on pods (../4-alerts).
  monitor_metrics {}

  timeouts {
    create = "40m"
  }

  lifecycle {
    ignore_changes = [default_node_pool[0].node_count]
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "was" {
  name                  = "was"
  kubernetes_cluster_id = azurerm_kubernetes_cluster.dr.id
  mode                  = "User"
  vm_size               = var.was_node_size
  vnet_subnet_id        = data.azurerm_subnet.tier["was"].id
  zones                 = var.zones
  auto_scaling_enabled  = true
  min_count             = var.nodes.min
  max_count             = var.nodes.max
  max_pods              = 30
  node_labels           = { tier = "was" }
  tags                  = local.tags

  upgrade_settings {
    max_surge = "1"
  }

  lifecycle {
    ignore_changes = [node_count]
  }
}
