variable "name" {
  description = "The service's name, as in 1-always-on: what stands there is found by it."
  type        = string
  default     = "pocketbank"
}

variable "key_vault" {
  description = "Name of the Key Vault of 1-always-on."
  type        = string
}

variable "certificate" {
  description = "Name of the certificate in it. Its names must hold `hostname`, or the edge refuses it, and the name that users type, or their browsers do."
  type        = string
  default     = "gateway"
}

variable "hostname" {
  description = "Name of the gateway, in dns_zone where there is one: the edge reaches it so, and the name that users type leads to it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9.-]+\\.[a-z]+$", var.hostname))
    error_message = "hostname must be a host name, e.g. www.dr.pocketbank.example."
  }
}

variable "dns_zone" {
  description = "The zone of 1-always-on, where this puts `hostname`. Empty: somebody else points hostname at the output `address`."
  type        = string
  default     = ""

  validation {
    condition     = var.dns_zone == "" || endswith(var.hostname, var.dns_zone)
    error_message = "hostname must end with dns_zone."
  }
}

# Where a region is short of one, as in 2-database: TF_VAR_web_node_size=Standard_D4s_v5 planb failover --stage 3 --resume
#
# The web pool is the cluster's system pool as well: AKS wants at least 4 cores and no burstable size there.
# Source: https://learn.microsoft.com/azure/aks/use-system-pools
variable "web_node_size" {
  description = "Size of the web pool's nodes, which carry the cluster's own pods too."
  type        = string
  default     = "Standard_D4as_v5"

  validation {
    condition = contains([
      "Standard_D4as_v5",
      "Standard_D4s_v5",
      "Standard_D4ads_v5",
      "Standard_D4ds_v5",
      "Standard_D4as_v4",
      "Standard_D8as_v5",
      "Standard_D8s_v5",
    ], var.web_node_size)
    error_message = "web_node_size must be one of the list in variables.tf; add yours there: 4 cores or more, not of the B series."
  }
}

variable "was_node_size" {
  description = "Size of the was pool's nodes."
  type        = string
  default     = "Standard_D2as_v5"

  validation {
    condition = contains([
      "Standard_D2as_v5",
      "Standard_D2s_v5",
      "Standard_D2ads_v5",
      "Standard_D4as_v5",
      "Standard_D4s_v5",
      "Standard_B2as_v2",
      "Standard_B2s_v2",
    ], var.was_node_size)
    error_message = "was_node_size must be one of the list in variables.tf; add yours there."
  }
}

variable "nodes" {
  description = "Fewest and most nodes of each pool."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 4 }

  validation {
    condition     = var.nodes.min >= 2 && var.nodes.max >= var.nodes.min && var.nodes.max <= 7
    error_message = "nodes: 2 <= min <= max <= 7; AKS wants two in the system pool, and more than 7 do not fit the subnets' addresses with 30 pods each."
  }
}

variable "zones" {
  description = "Zones of gateway, address and nodes. Fewer where one of them is what fails."
  type        = list(string)
  default     = ["1", "2", "3"]
}

variable "kubernetes_version" {
  description = "E.g. \"1.34\". Empty: the version that Azure recommends, which is there on any night; a version that was retired is not."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(1\\.[0-9]+(\\.[0-9]+)?)?$", var.kubernetes_version))
    error_message = "kubernetes_version must be like 1.34 or 1.34.2, or empty."
  }
}

variable "api_addresses" {
  description = "Networks from which the cluster's API answers: those of the operators, and the address that the first site's backup instance goes out by. The kubeconfig is an administrator's, and lies in the state."
  type        = list(string)

  validation {
    condition     = length(var.api_addresses) > 0 && alltrue([for address in var.api_addresses : can(cidrhost(address, 0)) && !endswith(address, "/0")])
    error_message = "api_addresses must be networks, at least one, e.g. [\"203.0.113.0/24\"]: where operators come from. Not the whole internet."
  }
}

variable "waf_mode" {
  description = "Detection writes down what it would refuse; Prevention refuses it. Rules that were never tried against the application refuse customers: switch after a drill whose log was clean."
  type        = string
  default     = "Detection"

  validation {
    condition     = contains(["Detection", "Prevention"], var.waf_mode)
    error_message = "waf_mode must be Detection or Prevention."
  }
}

variable "front_door" {
  description = "Whether Azure's own edge stands before the gateway ($35 a month while it does). It answers for its own name (output `front_door`) alone: for the name that users type it wants a custom domain, validated by a TXT record and with a certificate of its own, which takes too long at night. The way to users is the gateway."
  type        = bool
  default     = false
}

variable "subscription" {
  description = "Id of the subscription. Named here, so that nobody works in the wrong one at night."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f-]{36}$", var.subscription))
    error_message = "subscription must be an id: az account show --query id"
  }
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
