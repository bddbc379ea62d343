# Pinned as in config/azure: scripts/provider-schema and tests/site.rs know this version.
terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.45.0"
    }
  }

  # bucket, key and region from -backend-config. In AWS, unlike the states of the second site: where AWS is down, nobody changes this.
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ service = var.name, part = "planb" }, var.tags)
  }
}
