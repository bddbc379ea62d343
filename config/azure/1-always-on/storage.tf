# Backups, control data and the maintenance page. Without account keys: an identity that cannot delete would mean nothing beside a key that
# can.
resource "azurerm_storage_account" "backups" {
  name                     = var.storage_account
  resource_group_name      = azurerm_resource_group.dr.name
  location                 = azurerm_resource_group.dr.location
  account_kind             = "StorageV2"
  account_tier             = "Standard"
  account_replication_type = var.storage_replication
  access_tier              = "Hot"
  min_tls_version          = "TLS1_2"

  https_traffic_only_enabled      = true
  shared_access_key_enabled       = false
  default_to_oauth_authentication = true
  local_user_enabled              = false
  # The page of a static website is read all the same: it has an endpoint of its own.
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = var.undelete_days
    }

    container_delete_retention_policy {
      days = var.undelete_days
    }
  }

  tags = local.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container" "backups" {
  name                  = var.container
  storage_account_id    = azurerm_storage_account.backups.id
  container_access_type = "private"

  lifecycle {
    prevent_destroy = true
  }
}

# Journal, lease, proofs.
resource "azurerm_storage_container" "control" {
  name                  = "${var.container}-control"
  storage_account_id    = azurerm_storage_account.backups.id
  container_access_type = "private"

  lifecycle {
    prevent_destroy = true
  }
}

# The program that the runner starts.
resource "azurerm_storage_container" "tools" {
  name                  = "tools"
  storage_account_id    = azurerm_storage_account.backups.id
  container_access_type = "private"

  lifecycle {
    prevent_destroy = true
  }
}

# The static page that people see meanwhile.
resource "azurerm_storage_container" "page" {
  name                  = "$web"
  storage_account_id    = azurerm_storage_account.backups.id
  container_access_type = "private"

  lifecycle {
    prevent_destroy = true
  }
}

# Published by `maintenance-page`. The edge's second origin as long as nothing better stands.
resource "azurerm_storage_account_static_website" "page" {
  storage_account_id = azurerm_storage_account.backups.id
  index_document     = "index.html"
  error_404_document = "index.html"

  depends_on = [azurerm_storage_container.page]
}

# Only a backstop: the agent knows floor, proofs and holds, Azure does not. It removes what the agent tagged, and old versions. As
# `planb prune --policy` prints it.
resource "azurerm_storage_management_policy" "backups" {
  storage_account_id = azurerm_storage_account.backups.id

  rule {
    name    = "planb-expirable"
    enabled = true

    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${var.container}/${var.prefix}"]

      match_blob_index_tag {
        name      = "planb_expirable"
        operation = "=="
        value     = "true"
      }
    }

    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = var.expire_after_days
      }
    }
  }

  # What was deleted or overwritten leaves a version, and that one a soft-deleted one for undelete_days more: both are paid for. So versions go
  # after a day, and undelete_days alone says how long a theft can be undone. Lease and progress leave one every few seconds.
  rule {
    name    = "old-versions"
    enabled = true

    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${var.container}/", "${var.container}-control/", "$web/", "tools/"]
    }

    actions {
      version {
        delete_after_days_since_creation = 1
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_storage_container_immutability_policy" "backups" {
  count = var.immutable_days > 0 ? 1 : 0

  storage_container_resource_manager_id = azurerm_storage_container.backups.id
  immutability_period_in_days           = var.immutable_days
}

resource "azurerm_management_lock" "backups" {
  name       = "backups-stay"
  scope      = azurerm_storage_account.backups.id
  lock_level = "CanNotDelete"
  notes      = "Backups and the journal of recoveries. Nothing that PlanB does removes this account."
}
