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
  description = "Name of the certificate in it. Its names must hold `hostname`, or the edge refuses it."
  type        = string
  default     = "gateway"
}

variable "hostname" {
  description = "Name under which the edge reaches the gateway, in dns_zone where there is one."
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

# As in 2-database: TF_VAR_node_size=Standard_D2as_v5 planb failover --stage 3 --resume
variable "node_size" {
  description = "Size of the cluster's nodes."
  type        = string
  default     = "Standard_B2s_v2"

  validation {
    condition = contains([
      "Standard_B2s_v2",
      "Standard_B2as_v2",
      "Standard_D2as_v5",
      "Standard_D2s_v5",
      "Standard_D2ads_v5",
      "Standard_D4as_v5",
      "Standard_D4s_v5",
    ], var.node_size)
    error_message = "node_size must be one of the list in variables.tf; add yours there."
  }
}

variable "nodes" {
  description = "Fewest and most nodes of each pool."
  type        = object({ min = number, max = number })
  default     = { min = 2, max = 4 }

  validation {
    condition     = var.nodes.min >= 1 && var.nodes.max >= var.nodes.min && var.nodes.max <= 7
    error_message = "nodes: 1 <= min <= max <= 7; more do not fit the subnets' addresses with 30 pods each."
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
  description = "Networks from which the cluster's API answers, e.g. the operators'. Empty: from everywhere, to those with a certificate."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.api_addresses : can(cidrhost(address, 0))])
    error_message = "api_addresses must be networks, e.g. 203.0.113.0/24."
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
  description = "Whether Azure's own edge stands before the gateway ($35 a month while it does): the way to users where CloudFront is what fails."
  type        = bool
  default     = false
}

variable "thresholds" {
  description = "When somebody is told: percent, seconds, and counts in five minutes. The first site's."
  type = object({
    node_cpu_percent        = optional(number, 80)
    node_memory_percent     = optional(number, 85)
    node_disk_percent       = optional(number, 80)
    pod_cpu_percent         = optional(number, 85)
    pod_memory_percent      = optional(number, 85)
    pod_restarts            = optional(number, 5)
    gateway_errors          = optional(number, 10)
    gateway_latency_seconds = optional(number, 2)
  })
  default = {}
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
