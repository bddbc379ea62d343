# Every identity and every right that stages 2 and 3 need is made here. Azure takes minutes to spread a right, and giving one takes an owner:
# neither is to be had at night.

locals {
  # The same file that is handed to whoever makes the roles by hand.
  roles = { for role in jsondecode(file("${path.module}/../../azure-roles.json")) : role.Name => role }

  containers = {
    backups = azurerm_storage_container.backups.id
    control = azurerm_storage_container.control.id
  }
}

resource "azurerm_role_definition" "planb" {
  for_each = local.roles

  # Names of roles are unique in a directory.
  name              = "${each.key} (${var.name})"
  scope             = azurerm_resource_group.dr.id
  description       = each.value.Description
  assignable_scopes = [azurerm_resource_group.dr.id]

  permissions {
    actions          = each.value.Actions
    not_actions      = each.value.NotActions
    data_actions     = each.value.DataActions
    not_data_actions = each.value.NotDataActions
  }
}

# --- identities of machines -------------------------------------------------------------------------------

resource "azurerm_user_assigned_identity" "runner" {
  name                = "id-${var.name}-runner"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "gateway" {
  name                = "id-${var.name}-gateway"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "cluster" {
  name                = "id-${var.name}-cluster"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags
}

resource "azurerm_user_assigned_identity" "kubelet" {
  name                = "id-${var.name}-kubelet"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags
}

# --- the agent beside the source: writes, and deletes nothing ---------------------------------------------

resource "azurerm_role_assignment" "uploader" {
  for_each = local.containers

  scope              = each.value
  role_definition_id = azurerm_role_definition.planb["PlanB uploader"].role_definition_resource_id
  principal_id       = var.uploader
  principal_type     = "ServicePrincipal"
}

# --- operators --------------------------------------------------------------------------------------------

# Makes and destroys stages 2 and 3. Cannot give rights.
resource "azurerm_role_assignment" "operators" {
  scope                = azurerm_resource_group.dr.id
  role_definition_name = "Contributor"
  principal_id         = var.operators
  principal_type       = "Group"
}

resource "azurerm_role_assignment" "operators_blobs" {
  for_each = local.containers

  scope              = each.value
  role_definition_id = azurerm_role_definition.planb["PlanB uploader"].role_definition_resource_id
  principal_id       = var.operators
  principal_type     = "Group"
}

# The page, and the program for the runner; not the backups, which nobody who recovers needs to delete.
resource "azurerm_role_assignment" "operators_page" {
  for_each = {
    page  = azurerm_storage_container.page.id
    tools = azurerm_storage_container.tools.id
  }

  scope                = each.value
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = var.operators
  principal_type       = "Group"
}

resource "azurerm_role_assignment" "operators_secrets" {
  scope                = azurerm_key_vault.dr.id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = var.operators
  principal_type       = "Group"
}

# Whether the region has room for stages 2 and 3 is asked of the subscription ([quota] of planb.toml), and nothing else of it.
resource "azurerm_role_definition" "quota" {
  name              = "PlanB quota (${var.name})"
  scope             = "/subscriptions/${var.subscription}"
  description       = "Reads what a region has left."
  assignable_scopes = ["/subscriptions/${var.subscription}"]

  permissions {
    actions = [
      "Microsoft.Compute/locations/usages/read",
      "Microsoft.Network/locations/usages/read",
      "Microsoft.DBforMySQL/locations/*/read",
    ]
  }
}

resource "azurerm_role_assignment" "operators_quota" {
  scope              = "/subscriptions/${var.subscription}"
  role_definition_id = azurerm_role_definition.quota.role_definition_resource_id
  principal_id       = var.operators
  principal_type     = "Group"
}

# Each writes its vote where the others read it: reading alone would leave the verdict unknown for ever.
resource "azurerm_role_assignment" "watchers" {
  for_each = { for pair in setproduct(var.watchers, keys(local.containers)) : "${pair[0]}-${pair[1]}" => pair }

  scope              = local.containers[each.value[1]]
  role_definition_id = azurerm_role_definition.planb[each.value[1] == "control" ? "PlanB watcher" : "PlanB reader"].role_definition_resource_id
  principal_id       = each.value[0]
}

# --- the runner -------------------------------------------------------------------------------------------

resource "azurerm_role_assignment" "runner" {
  for_each = local.containers

  scope              = each.value
  role_definition_id = azurerm_role_definition.planb["PlanB uploader"].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.runner.principal_id
  principal_type     = "ServicePrincipal"
}

resource "azurerm_role_assignment" "runner_tools" {
  scope                = azurerm_storage_container.tools.id
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = azurerm_user_assigned_identity.runner.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "runner_secrets" {
  scope                = azurerm_key_vault.dr.id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.runner.principal_id
  principal_type       = "ServicePrincipal"
}

# --- gateway and cluster ----------------------------------------------------------------------------------

# The certificate's secret alone, not the database's passwords beside it.
resource "azurerm_role_assignment" "gateway_certificate" {
  scope                = "${azurerm_key_vault.dr.id}/secrets/${var.certificate}"
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.gateway.principal_id
  principal_type       = "ServicePrincipal"
}

# Nodes join the subnets, and the web tier's address is taken from one.
resource "azurerm_role_assignment" "cluster_network" {
  scope                = azurerm_virtual_network.dr.id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.cluster.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "cluster_kubelet" {
  scope                = azurerm_user_assigned_identity.kubelet.id
  role_definition_name = "Managed Identity Operator"
  principal_id         = azurerm_user_assigned_identity.cluster.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "kubelet_images" {
  count = var.registry == "" ? 0 : 1

  scope                = azurerm_container_registry.dr[0].id
  role_definition_name = "AcrPull"
  principal_id         = azurerm_user_assigned_identity.kubelet.principal_id
  principal_type       = "ServicePrincipal"
}
