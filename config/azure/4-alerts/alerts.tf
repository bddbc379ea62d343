# The first site's alerts, by their names there. What Azure measures otherwise is said at each; the database's are in 2-database.

locals {
  limits = var.thresholds

  cluster_alerts = {
    node-cpu-high    = { metric = "node_cpu_usage_percentage", above = local.limits.node_cpu_percent }
    node-memory-high = { metric = "node_memory_working_set_percentage", above = local.limits.node_memory_percent }
    node-disk-high   = { metric = "node_disk_usage_percentage", above = local.limits.node_disk_percent }
  }

  gateway_alerts = {
    # What the application takes to answer, as at the first site. Azure gives no 95th percentile of it, only the mean: a slow tenth of all
    # requests is seen later here.
    alb-latency-high = { metric = "BackendFirstByteResponseTime", above = local.limits.gateway_latency_seconds * 1000 }
    unhealthy-hosts  = { metric = "UnhealthyHostCount", above = 0 }
  }

  ours = "namespace=~\"web|was\""

  # Used by a pod, as a part of its limit.
  of_limit = {
    cpu    = "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{${local.ours},container!=\"\"}[5m])) / sum by (namespace, pod) (kube_pod_container_resource_limits{${local.ours},resource=\"cpu\"})"
    memory = "sum by (namespace, pod) (container_memory_working_set_bytes{${local.ours},container!=\"\"}) / sum by (namespace, pod) (kube_pod_container_resource_limits{${local.ours},resource=\"memory\"})"
  }

  # Of each pool by itself: a full one makes up for no empty one. AKS names nodes aks-POOL-…; a pool of which nothing is heard has none.
  ready = {
    for pool in ["web", "was"] : pool =>
    "label_replace(sum(kube_node_status_condition{condition=\"Ready\",status=\"true\",node=~\"aks-${pool}-.+\"}) or vector(0), \"pool\", \"${pool}\", \"\", \"\")"
  }

  restarts = "kube_pod_container_status_restarts_total{${local.ours}}"

  # Azure's own metrics do not know pods, its managed Prometheus does.
  pod_alerts = {
    node-count-low = {
      during     = "PT5M"
      text       = "fewer nodes of a pool are ready than its minimum"
      expression = join(" or ", [for pool in ["web", "was"] : "${local.ready[pool]} < ${var.nodes_min}"])
    }
    pod-cpu-high = {
      during     = "PT5M"
      text       = "a pod is close to its CPU limit"
      expression = "${local.of_limit.cpu} > ${local.limits.pod_cpu_percent / 100}"
    }
    pod-memory-high = {
      during     = "PT5M"
      text       = "a pod is close to its memory limit"
      expression = "${local.of_limit.memory} > ${local.limits.pod_memory_percent / 100}"
    }
    pod-restart-high = {
      during = "PT1M"
      text   = "a pod restarts again and again"
      # Counted, not extrapolated as increase() would; a minute more, since what happened before a window's first sample is not in it.
      expression = "max_over_time(${local.restarts}[6m]) - min_over_time(${local.restarts}[6m]) >= ${local.limits.pod_restarts}"
    }
  }
}

# Made by stage 1, so that somebody tried by day whom it reaches.
data "azurerm_monitor_action_group" "oncall" {
  name                = "ag-${var.name}-oncall"
  resource_group_name = data.azurerm_resource_group.dr.name
}

resource "azurerm_monitor_metric_alert" "cluster" {
  for_each = local.cluster_alerts

  name                = each.key
  resource_group_name = data.azurerm_resource_group.dr.name
  scopes              = [local.cluster]
  severity            = 2
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.ContainerService/managedClusters"
    metric_name      = each.value.metric
    aggregation      = "Average"
    operator         = "GreaterThan"
    threshold        = each.value.above

    dimension {
      name     = "node"
      operator = "Include"
      values   = ["*"]
    }
  }

  action {
    action_group_id = data.azurerm_monitor_action_group.oncall.id
  }
}

resource "azurerm_monitor_metric_alert" "gateway" {
  for_each = local.gateway_alerts

  name                = each.key
  resource_group_name = data.azurerm_resource_group.dr.name
  scopes              = [local.gateway]
  severity            = 1
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.Network/applicationGateways"
    metric_name      = each.value.metric
    aggregation      = "Average"
    operator         = "GreaterThan"
    threshold        = each.value.above
  }

  action {
    action_group_id = data.azurerm_monitor_action_group.oncall.id
  }
}

resource "azurerm_monitor_metric_alert" "gateway_errors" {
  name                = "alb-5xx-errors-high"
  resource_group_name = data.azurerm_resource_group.dr.name
  scopes              = [local.gateway]
  severity            = 1
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = "Microsoft.Network/applicationGateways"
    metric_name      = "ResponseStatus"
    aggregation      = "Total"
    operator         = "GreaterThan"
    threshold        = local.limits.gateway_errors

    dimension {
      name     = "HttpStatusGroup"
      operator = "Include"
      values   = ["5xx"]
    }
  }

  action {
    action_group_id = data.azurerm_monitor_action_group.oncall.id
  }
}

resource "azurerm_monitor_workspace" "pods" {
  name                = "amw-${var.name}-dr"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  tags                = local.tags
}

resource "azurerm_monitor_data_collection_endpoint" "pods" {
  name                = "dce-${var.name}-dr"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  kind                = "Linux"
  tags                = local.tags
}

resource "azurerm_monitor_data_collection_rule" "pods" {
  name                        = "dcr-${var.name}-dr"
  resource_group_name         = data.azurerm_resource_group.dr.name
  location                    = data.azurerm_resource_group.dr.location
  kind                        = "Linux"
  data_collection_endpoint_id = azurerm_monitor_data_collection_endpoint.pods.id
  tags                        = local.tags

  data_sources {
    prometheus_forwarder {
      name    = "pods"
      streams = ["Microsoft-PrometheusMetrics"]
    }
  }

  destinations {
    monitor_account {
      name               = "pods"
      monitor_account_id = azurerm_monitor_workspace.pods.id
    }
  }

  data_flow {
    streams      = ["Microsoft-PrometheusMetrics"]
    destinations = ["pods"]
  }
}

resource "azurerm_monitor_data_collection_rule_association" "pods" {
  name                    = "dcra-${var.name}-dr"
  target_resource_id      = local.cluster
  data_collection_rule_id = azurerm_monitor_data_collection_rule.pods.id
}

resource "azurerm_monitor_alert_prometheus_rule_group" "pods" {
  name                = "pods-${var.name}-dr"
  resource_group_name = data.azurerm_resource_group.dr.name
  location            = data.azurerm_resource_group.dr.location
  cluster_name        = local.cluster_name
  scopes              = [azurerm_monitor_workspace.pods.id, local.cluster]
  interval            = "PT1M"
  tags                = local.tags

  dynamic "rule" {
    for_each = local.pod_alerts

    content {
      alert       = rule.key
      enabled     = true
      expression  = rule.value.expression
      for         = rule.value.during
      severity    = 2
      annotations = { summary = rule.value.text }

      action {
        action_group_id = data.azurerm_monitor_action_group.oncall.id
      }

      alert_resolution {
        auto_resolved   = true
        time_to_resolve = "PT10M"
      }
    }
  }
}
