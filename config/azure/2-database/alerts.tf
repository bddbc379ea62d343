# The first site's alerts on its database, by their names there.

locals {
  # What a server of this size takes at all; 800 would never be reached on a burstable one. Source:
  # https://learn.microsoft.com/azure/mysql/flexible-server/concepts-server-parameters#max_connections
  takes = lookup({ B_Standard_B2s = 341, B_Standard_B2ms = 683, B_Standard_B4ms = 1365 }, var.sku, 1365)

  # Azure alerts on a part of the size, not on bytes that are free. Once the storage has grown by itself, this is earlier than free_gb, never later.
  alerts = {
    rds-cpu-high         = { metric = "cpu_percent", above = var.thresholds.cpu_percent }
    rds-storage-low      = { metric = "storage_percent", above = floor(100 * (1 - var.thresholds.free_gb / var.storage_gb)) }
    rds-connections-high = { metric = "active_connections", above = min(var.thresholds.connections, floor(local.takes * 0.8)) }
  }
}

# Made by stage 1, so that somebody tried by day whom it reaches.
data "azurerm_monitor_action_group" "oncall" {
  name                = "ag-${var.name}-oncall"
  resource_group_name = data.azurerm_resource_group.dr.name
}

# A rehearsal (planb drill, a workspace of its own) wakes nobody, and calls nothing by the real one's names.
resource "azurerm_monitor_metric_alert" "db" {
  for_each = terraform.workspace == "default" ? local.alerts : {}

  name                = each.key
  resource_group_name = data.azurerm_resource_group.dr.name
  scopes              = [azurerm_mysql_flexible_server.db.id]
  severity            = 1
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.DBforMySQL/flexibleServers"
    metric_name      = each.value.metric
    aggregation      = "Average"
    operator         = "GreaterThan"
    threshold        = each.value.above
  }

  action {
    action_group_id = data.azurerm_monitor_action_group.oncall.id
  }
}
