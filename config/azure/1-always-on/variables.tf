variable "name" {
  description = "The service's name. Everything else is named after it, and stages 2 and 3 find what stands here by it."
  type        = string
  default     = "pocketbank"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 22 of the letters a-z, digits and '-', beginning with a letter."
  }
}

variable "location" {
  description = "Azure region of the second site."
  type        = string
  default     = "koreacentral"

  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "location must be a region's short name, e.g. koreacentral."
  }
}

variable "storage_account" {
  description = "Name of the storage account of backups, control data and the maintenance page. Unique in all of Azure."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.storage_account))
    error_message = "storage_account must be 3 to 24 of the letters a-z and digits."
  }
}

variable "storage_replication" {
  description = "LRS, ZRS, GRS or GZRS. ZRS survives the loss of one zone of the second site, for about a quarter more."
  type        = string
  default     = "ZRS"

  validation {
    condition     = contains(["LRS", "ZRS", "GRS", "GZRS"], var.storage_replication)
    error_message = "storage_replication must be LRS, ZRS, GRS or GZRS."
  }
}

variable "container" {
  description = "Container of the backups; control data lies in the container of that name and \"-control\". As in [store] of planb.toml."
  type        = string
  default     = "mysql-backups"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,53}[a-z0-9]$", var.container))
    error_message = "container must be 3 to 55 of the letters a-z, digits and '-'."
  }
}

variable "prefix" {
  description = "Prefix of backups' names; as in [store] of planb.toml."
  type        = string
  default     = "backups/"

  validation {
    condition     = endswith(var.prefix, "/")
    error_message = "prefix must end with a slash."
  }
}

variable "expire_after_days" {
  description = "What the agent tagged expirable is removed this many days after it was made: [retention] keep_all of planb.toml, in days."
  type        = number
  default     = 2

  validation {
    condition     = var.expire_after_days >= 1 && var.expire_after_days <= 3650
    error_message = "expire_after_days must be 1 to 3650."
  }
}

variable "undelete_days" {
  description = "Deleted or overwritten blobs can be had back for this many days, and are paid for that long and a day or two."
  type        = number
  default     = 7

  validation {
    condition     = var.undelete_days >= 7 && var.undelete_days <= 365
    error_message = "undelete_days must be 7 to 365: a theft is often noticed after days."
  }
}

variable "immutable_days" {
  description = "Backups can be changed by nobody for this many days; 0 is off. Not more than expire_after_days, or nothing expires. The policy stays unlocked: lock it with `az storage container immutability-policy lock` once you are sure, for then it can never be shortened again."
  type        = number
  default     = 0

  validation {
    condition     = var.immutable_days >= 0 && var.immutable_days <= var.expire_after_days
    error_message = "immutable_days must be 0 to expire_after_days."
  }
}

variable "key_vault" {
  description = "Name of the Key Vault. Unique in all of Azure, and held for 90 days after a deletion."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$", var.key_vault))
    error_message = "key_vault must be 3 to 24 letters, digits and '-'."
  }
}

variable "certificate" {
  description = "Name of the certificate in the Key Vault that the application gateway shows. Its names must hold the one that users type and `hostname` of 3-full. Imported, never made, here: see ../README.md."
  type        = string
  default     = "gateway"
}

variable "operators" {
  description = "Object id of the Entra group of those who may fail over."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f-]{36}$", var.operators))
    error_message = "operators must be an object id."
  }
}

variable "uploader" {
  description = "Object id of the service principal that the agent beside the source logs in as. It cannot delete."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f-]{36}$", var.uploader))
    error_message = "uploader must be an object id: az ad sp show --id CLIENT-ID --query id"
  }
}

variable "watchers" {
  description = "Object ids of the service principals that `planb watch` logs in as: each writes what it sees into the control data."
  type        = list(string)
  default     = []
}

variable "runner" {
  description = "Whether the machine of `planb runner` is there. Stopped, it costs its disk (about $1.60 a month)."
  type        = bool
  default     = true
}

variable "runner_size" {
  description = "Size of the runner's machine; paid for only while it runs."
  type        = string
  default     = "Standard_B2als_v2"
}

variable "runner_ssh_key" {
  description = "Public key of the runner's account. Nobody can reach it from outside; Azure makes no machine without one."
  type        = string
  default     = ""

  validation {
    condition     = !var.runner || can(regex("^(ssh-rsa|ssh-ed25519) ", var.runner_ssh_key))
    error_message = "runner_ssh_key must be a public key in OpenSSH's form where runner is on."
  }
}

variable "planb_sha256" {
  description = "SHA-256 of the program `planb` in the container `tools`: the runner starts no other."
  type        = string
  default     = ""

  validation {
    condition     = !var.runner || can(regex("^[0-9a-f]{64}$", var.planb_sha256))
    error_message = "planb_sha256 must be 64 hexadecimal digits where runner is on: sha256sum target/release/planb"
  }
}

variable "registry" {
  description = "Name of a container registry to make (about $5 a month), so that no image is missing at night. Empty: none is made."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-zA-Z0-9]{5,50})?$", var.registry))
    error_message = "registry must be 5 to 50 letters and digits, or empty."
  }
}

variable "dns_zone" {
  description = "A DNS zone to make here (about $0.50 a month), e.g. dr.pocketbank.example: delegate it by day. Stage 3 puts the gateway's address there, and ../traffic-dns the name that the users' own one points at. Empty: none."
  type        = string
  default     = ""
}

variable "alert_email" {
  description = "Who is told by the alerts of stages 2 and 3. Empty: nobody by mail."
  type        = string
  default     = ""
}

variable "alert_webhook" {
  description = "Address that alerts are posted to, e.g. of an on-call service. Empty: none."
  type        = string
  default     = ""
  sensitive   = true
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
