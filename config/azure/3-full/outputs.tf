output "hostname" {
  description = "What the edge's origin is called, and what is asked whether the service is well."
  value       = var.hostname
}

output "address" {
  description = "The gateway's address: where the name that users type is asked for before it leads there."
  value       = azurerm_public_ip.gateway.ip_address
}

output "front_door" {
  description = "Host of Azure's own edge; empty where there is none."
  value       = one(azurerm_cdn_frontdoor_endpoint.edge[*].host_name)
}

output "kubeconfig" {
  description = "For the manifests. A certificate of an administrator: it opens the cluster without any further login."
  value       = azurerm_kubernetes_cluster.dr.kube_config_raw
  sensitive   = true
}

output "web_address" {
  description = "Where the gateway expects the web tier: the address of the service `web`."
  value       = local.web_address
}
