# Stage 2: the database. 8 to 10 minutes. What it needs of stage 1 is found by name, so that it can be applied by hand as well, with no
# journal at hand:
#
#   export TF_VAR_admin_password="$(az keyvault secret show --vault-name kv-pocketbank-dr --name standby-password --query value -o tsv)"
#   terraform init -backend-config=… && terraform apply -var server_name=pocketbank-dr

locals {
  tags = merge({ service = var.name, stage = "2" }, var.tags)
}

data "azurerm_resource_group" "dr" {
  name = "rg-${var.name}-dr"
}

data "azurerm_subnet" "db" {
  name                 = "snet-db"
  virtual_network_name = "vnet-${var.name}-dr"
  resource_group_name  = data.azurerm_resource_group.dr.name
}

data "azurerm_private_dns_zone" "db" {
  name                = "${var.name}.private.mysql.database.azure.com"
  resource_group_name = data.azurerm_resource_group.dr.name
}

# No database in it: the restore makes the schemas, with the character sets that they had. TLS is demanded by Azure itself
# (require_secure_transport), and names of tables are in small letters (lower_case_table_names = 1, which cannot be changed): PlanB's
# restore knows both.
resource "azurerm_mysql_flexible_server" "db" {
  name                = var.server_name
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location

  version             = var.mysql_version
  sku_name            = var.sku
  delegated_subnet_id = data.azurerm_subnet.db.id
  private_dns_zone_id = data.azurerm_private_dns_zone.db.id

  administrator_login               = var.admin_login
  administrator_password_wo         = var.admin_password
  administrator_password_wo_version = var.admin_password_version

  backup_retention_days = 7

  storage {
    size_gb            = var.storage_gb
    auto_grow_enabled  = true
    io_scaling_enabled = true
  }

  dynamic "high_availability" {
    for_each = var.high_availability == "" ? [] : [var.high_availability]

    content {
      mode = high_availability.value
    }
  }

  tags = local.tags

  timeouts {
    create = "40m"
  }

  lifecycle {
    # Azure chooses, and moves it after a failure of a zone.
    ignore_changes = [zone]
  }
}

resource "azurerm_mysql_flexible_server_configuration" "db" {
  for_each = var.parameters

  name                = each.key
  resource_group_name = data.azurerm_resource_group.dr.name
  server_name         = azurerm_mysql_flexible_server.db.name
  value               = each.value
}
