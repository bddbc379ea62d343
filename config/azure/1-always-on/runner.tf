# `planb runner`: restores and opens the database, which nothing outside this network reaches. It is made running; ../README.md says how to
# check it once, and to stop it (`az vm deallocate`), after which only its disk costs. The plan starts it (../runner-power).
resource "azurerm_network_interface" "runner" {
  count = var.runner ? 1 : 0

  name                = "nic-${var.name}-runner"
  resource_group_name = azurerm_resource_group.dr.name
  location            = azurerm_resource_group.dr.location
  tags                = local.tags

  ip_configuration {
    name                          = "internal"
    subnet_id                     = azurerm_subnet.ops.id
    private_ip_address_allocation = "Dynamic"
  }
}

resource "azurerm_linux_virtual_machine" "runner" {
  count = var.runner ? 1 : 0

  name                  = "vm-${var.name}-runner"
  resource_group_name   = azurerm_resource_group.dr.name
  location              = azurerm_resource_group.dr.location
  size                  = var.runner_size
  admin_username        = "planb-admin"
  network_interface_ids = [azurerm_network_interface.runner[0].id]
  secure_boot_enabled   = true
  vtpm_enabled          = true

  custom_data = base64encode(templatefile("${path.module}/runner.yaml", {
    account      = var.storage_account
    blob_host    = azurerm_storage_account.backups.primary_blob_host
    client_id    = azurerm_user_assigned_identity.runner.client_id
    planb_sha256 = var.planb_sha256
  }))

  admin_ssh_key {
    username   = "planb-admin"
    public_key = var.runner_ssh_key
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.runner.id]
  }

  os_disk {
    caching              = "ReadWrite"
    storage_account_type = "Standard_LRS"
  }

  # Debian, because that is what the program is built and tested on.
  source_image_reference {
    publisher = "Debian"
    offer     = "debian-13"
    sku       = "13-gen2"
    version   = "latest"
  }

  tags = local.tags

  lifecycle {
    # It keeps nothing, so another program (planb_sha256) makes a new machine; a newer image alone does not.
    ignore_changes = [source_image_reference]
  }

  depends_on = [azurerm_role_assignment.runner_tools]
}
