# What a recovery needs to know, without AWS. Values are put in by hand or by the team's own tool, never by Terraform, whose state would show
# them; ../README.md lists their names.
resource "azurerm_key_vault" "dr" {
  name                = var.key_vault
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tenant_id           = data.azurerm_client_config.current.tenant_id
  sku_name            = "standard"

  rbac_authorization_enabled = true
  purge_protection_enabled   = true
  soft_delete_retention_days = 90
  # Operators come from anywhere at night; who may read is decided by identity.
  public_network_access_enabled = true

  tags = local.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_management_lock" "secrets" {
  name       = "secrets-stay"
  scope      = azurerm_key_vault.dr.id
  lock_level = "CanNotDelete"
  notes      = "What opens the second site."
}
