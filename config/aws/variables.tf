variable "name" {
  description = "The service's name, as in [service] of planb.toml."
  type        = string
  default     = "pocketbank"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 22 of the letters a-z, digits and '-', beginning with a letter."
  }
}

variable "region" {
  description = "Where the database is."
  type        = string
  default     = "ap-northeast-2"
}

variable "rds_instance" {
  description = "DB instance identifier of the source: [source] rds_instance."
  type        = string
}

variable "database_user" {
  description = "The account that PlanB reads as: [source] user (config/grants-rds.sql)."
  type        = string
  default     = "planb"
}

variable "subnet" {
  description = "Id of a private subnet of the was tier (10.0.21.0/24 or 10.0.22.0/24) with a route through the NAT gateway."
  type        = string

  validation {
    condition     = startswith(var.subnet, "subnet-")
    error_message = "subnet must be a subnet's id."
  }
}

variable "database_security_group" {
  description = "Id of the security group of the database, which lets the backup instance in."
  type        = string

  validation {
    condition     = startswith(var.database_security_group, "sg-")
    error_message = "database_security_group must be a security group's id."
  }
}

variable "secret" {
  description = "Name of the secret that holds source_password and azure_client_secret, as aws-secret:NAME#KEY wants it."
  type        = string
  default     = "planb/prod"
}

variable "instance_type" {
  description = "Two cores and 2 GiB are enough: memory does not grow with the database."
  type        = string
  default     = "t3.small"
}

variable "planb_url" {
  description = "Where the machine fetches the program from (https), built on a Debian or Ubuntu that is no newer than Ubuntu 24.04."
  type        = string

  validation {
    condition     = startswith(var.planb_url, "https://")
    error_message = "planb_url must be an https address."
  }
}

variable "planb_sha256" {
  description = "SHA-256 of that program: no other is installed."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.planb_sha256))
    error_message = "planb_sha256 must be 64 hexadecimal digits."
  }
}

variable "bundle_url" {
  description = "Where the machine fetches what make-bundle packed (https). Empty: no planned failover and no failback can be typed here, and nothing else reaches RDS."
  type        = string
  default     = ""

  validation {
    condition     = var.bundle_url == "" || startswith(var.bundle_url, "https://")
    error_message = "bundle_url must be an https address, or empty."
  }
}

variable "bundle_sha256" {
  description = "SHA-256 of that archive: no other is unpacked."
  type        = string
  default     = ""

  validation {
    condition     = var.bundle_url == "" || can(regex("^[0-9a-f]{64}$", var.bundle_sha256))
    error_message = "bundle_sha256 must be 64 hexadecimal digits where bundle_url is given."
  }
}

variable "planb_config" {
  description = "Path of the configuration that is put on the machine, from where terraform runs. Holds no secrets, only where they are."
  type        = string
}

variable "distribution" {
  description = "Id of the CloudFront distribution that a failback switches home. Empty: this machine switches none."
  type        = string
  default     = ""
}

variable "cluster" {
  description = "Name of the EKS cluster whose node groups a failback waits for."
  type        = string
  default     = "pocketbank-prod"
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
