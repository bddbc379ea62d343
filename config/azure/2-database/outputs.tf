output "host" {
  description = "Address of the server; answers inside the network alone."
  value       = azurerm_mysql_flexible_server.db.fqdn
}

output "server_id" {
  description = "For a person in the portal."
  value       = azurerm_mysql_flexible_server.db.id
}

output "sku" {
  description = "What it became, where the first choice was not to be had."
  value       = azurerm_mysql_flexible_server.db.sku_name
}
