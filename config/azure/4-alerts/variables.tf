variable "name" {
  description = "The service's name, as in 1-always-on: what stands there is found by it."
  type        = string
  default     = "pocketbank"
}

variable "nodes_min" {
  description = "Fewest nodes of each pool, as in 3-full."
  type        = number
  default     = 2
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
