# Whom the alerts of stages 2 and 3 tell. It stands here so that it can be tried by day; it costs nothing.
resource "azurerm_monitor_action_group" "oncall" {
  name                = "ag-${var.name}-oncall"
  resource_group_name = azurerm_resource_group.dr.name
  short_name          = "oncall"
  tags                = local.tags

  dynamic "email_receiver" {
    for_each = var.alert_email == "" ? [] : [var.alert_email]

    content {
      name                    = "oncall"
      email_address           = email_receiver.value
      use_common_alert_schema = true
    }
  }

  dynamic "webhook_receiver" {
    for_each = nonsensitive(var.alert_webhook) == "" ? [] : ["oncall"]

    content {
      name                    = webhook_receiver.value
      service_uri             = var.alert_webhook
      use_common_alert_schema = true
    }
  }
}
