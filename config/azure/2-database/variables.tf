variable "name" {
  description = "The service's name, as in 1-always-on: what stands there is found by it."
  type        = string
  default     = "pocketbank"
}

variable "server_name" {
  description = "Name of the server, and so of its address: SERVER_NAME.mysql.database.azure.com. Unique in all of Azure. The host in [standby] of planb.toml."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.server_name))
    error_message = "server_name must be 3 to 63 of the letters a-z, digits and '-'."
  }
}

variable "admin_login" {
  description = "The administrator: who PlanB restores as. [standby] user of planb.toml."
  type        = string
  default     = "planb_recovery"

  validation {
    condition     = !contains(["admin", "administrator", "azure_superuser", "azure_pg_admin", "root", "guest", "public", "azureuser"], var.admin_login)
    error_message = "Azure refuses this name for an administrator."
  }
}

variable "admin_password" {
  description = "The administrator's password, from the Key Vault. Handed to Azure and kept in no state."
  type        = string
  sensitive   = true

  validation {
    condition     = length(var.admin_password) >= 16 && length(var.admin_password) <= 128
    error_message = "admin_password must be 16 to 128 letters, of three of: small, capital, digits, others."
  }
}

variable "admin_password_version" {
  description = "Raise it to hand a changed password to a server that stands: what is in no state cannot be compared."
  type        = number
  default     = 1
}

# When a region is short of one, the create ends with "SkuNotAvailable" or "ServerIsBusy" after minutes. The next in line, in the order in which
# to try them, without touching the plan:
#
#   TF_VAR_sku=GP_Standard_D2ads_v5 planb failover --stage 2 --resume
variable "sku" {
  description = "Size of the server. Burstable is enough to restore and to serve for some days; it knows no high availability."
  type        = string
  default     = "B_Standard_B2s"

  validation {
    condition = contains([
      "B_Standard_B2s",
      "B_Standard_B2ms",
      "GP_Standard_D2ads_v5",
      "GP_Standard_D2ds_v4",
      "B_Standard_B4ms",
      "GP_Standard_D4ads_v5",
      "GP_Standard_D4ds_v4",
      "MO_Standard_E2ads_v5",
      "MO_Standard_E2ds_v4",
    ], var.sku)
    error_message = "sku must be one of the list in variables.tf; add yours there."
  }
}

variable "mysql_version" {
  description = "8.4 takes backups of 8.0 and 8.4. A server older than the source is refused by the restore."
  type        = string
  default     = "8.4"

  validation {
    condition     = contains(["8.0.21", "8.4"], var.mysql_version)
    error_message = "mysql_version must be 8.0.21 (which stands for the newest 8.0) or 8.4."
  }
}

variable "storage_gb" {
  description = "Grows by itself, never shrinks. At least three times the database, since a restore writes data, keys and logs."
  type        = number
  default     = 64

  validation {
    condition     = var.storage_gb >= 20 && var.storage_gb <= 16384
    error_message = "storage_gb must be 20 to 16384."
  }
}

variable "high_availability" {
  description = "\"\" while restoring, since it makes every commit wait for a second zone; then ZoneRedundant or SameZone, if the outage lasts and the sku is not burstable."
  type        = string
  default     = ""

  validation {
    condition     = contains(["", "ZoneRedundant", "SameZone"], var.high_availability) && (var.high_availability == "" || !startswith(var.sku, "B_"))
    error_message = "high_availability must be empty, ZoneRedundant or SameZone, and a burstable sku (B_…) knows none."
  }
}

# Each takes some ten seconds, one after the other, and all of them delay the restore: only what it cannot do without.
variable "parameters" {
  description = "Server parameters."
  type        = map(string)
  default = {
    # Triggers and functions come without SUPER (else 1418, 1419).
    log_bin_trust_function_creators = "ON"
    # Tables without a primary key stay as they were at the source.
    sql_generate_invisible_primary_key = "OFF"
    # Off by default. Events come disabled, and are enabled when the standby opens.
    event_scheduler = "ON"
    # The longest row.
    max_allowed_packet = "1073741824"
  }
}

variable "thresholds" {
  description = "When somebody is told. The first site's; see alerts.tf for the number of connections."
  type = object({
    cpu_percent = optional(number, 80)
    free_gb     = optional(number, 10)
    connections = optional(number, 800)
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
