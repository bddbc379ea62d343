output "resource_group" {
  description = "Where everything of the second site stands."
  value       = azurerm_resource_group.dr.name
}

output "store_url" {
  description = "[store] url of planb.toml."
  value       = "azblob://${azurerm_storage_account.backups.name}/${azurerm_storage_container.backups.name}"
}

output "page_host" {
  description = "Host of the maintenance page: the edge's second origin while the service stands in the first cloud."
  value       = azurerm_storage_account.backups.primary_web_host
}

output "key_vault" {
  description = "Name of the vault, as azure-keyvault:VAULT/NAME wants it."
  value       = azurerm_key_vault.dr.name
}

output "registry" {
  description = "Host of the container registry; empty where there is none."
  value       = one(azurerm_container_registry.dr[*].login_server)
}

output "runner" {
  description = "Name of the runner's machine; empty where there is none."
  value       = one(azurerm_linux_virtual_machine.runner[*].name)
}

output "runner_client_id" {
  description = "client_id of [store] in the runner's planb.toml, with auth = \"managed-identity\"."
  value       = azurerm_user_assigned_identity.runner.client_id
}

output "name_servers" {
  description = "Where the zone of the edge is to be delegated to."
  value       = flatten(azurerm_dns_zone.edge[*].name_servers)
}
