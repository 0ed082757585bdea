# API Management, if wanted. Its operations are those of the endpoint table: openapi.json is made by
# `python -m scripts.gateways`. Core checks every token, whether a gateway has or not.

locals {
  document = jsondecode(file("${path.module}/openapi.json"))
  operations = merge([for route in values(local.document.paths) : {
    for operation in values(route) : operation.operationId => {
      backend = operation["x-plane"] == "http" ? "predict" : "train"
      public  = operation["x-permission"] == "public"
    }
  }]...)
  # what needs another backend than the whole API, or no token
  particular = { for name, one in local.operations : name => one if one.public || one.backend != "predict" }

  check = var.jwt == null ? "" : join("", concat(
    ["<validate-jwt header-name=\"Authorization\" require-scheme=\"Bearer\" failed-validation-httpcode=\"401\" failed-validation-error-message=\"a token of the issuer is needed\">"],
    ["<openid-config url=\"${var.jwt.configuration}\" />"],
    ["<audiences>", join("", [for one in var.jwt.audience : "<audience>${one}</audience>"]), "</audiences>"],
    ["<issuers><issuer>${var.jwt.issuer}</issuer></issuers></validate-jwt>"],
  ))
  sections = "<backend><base /></backend><outbound><base /></outbound><on-error><base /></on-error>"
}

resource "azurerm_api_management" "gateway" {
  count               = var.gateway ? 1 : 0
  name                = "${local.name}-${local.suffix}"
  resource_group_name = azurerm_resource_group.polysky.name
  location            = azurerm_resource_group.polysky.location
  publisher_name      = var.publisher.name
  publisher_email     = var.publisher.email
  sku_name            = "Consumption_0"
  tags                = local.tags
}

resource "azurerm_api_management_backend" "app" {
  for_each            = var.gateway ? local.apps : {}
  name                = each.key
  resource_group_name = azurerm_resource_group.polysky.name
  api_management_name = azurerm_api_management.gateway[0].name
  protocol            = "http"
  url                 = "https://${azurerm_function_app_flex_consumption.app[each.key].default_hostname}"

  tls {
    validate_certificate_chain = true
    validate_certificate_name  = true
  }
}

resource "azurerm_api_management_api" "polysky" {
  count                 = var.gateway ? 1 : 0
  name                  = "polysky"
  resource_group_name   = azurerm_resource_group.polysky.name
  api_management_name   = azurerm_api_management.gateway[0].name
  revision              = "1"
  display_name          = "Polysky"
  path                  = ""
  protocols             = ["https"]
  service_url           = "https://${azurerm_function_app_flex_consumption.app["predict"].default_hostname}"
  subscription_required = false

  import {
    content_format = "openapi+json"
    content_value  = file("${path.module}/openapi.json")
  }
}

resource "azurerm_api_management_api_policy" "polysky" {
  count               = var.gateway ? 1 : 0
  api_name            = azurerm_api_management_api.polysky[0].name
  api_management_name = azurerm_api_management.gateway[0].name
  resource_group_name = azurerm_resource_group.polysky.name
  xml_content         = "<policies><inbound><base />${local.check}<set-backend-service backend-id=\"predict\" /></inbound>${local.sections}</policies>"
  depends_on          = [azurerm_api_management_backend.app]
}

resource "azurerm_api_management_api_operation_policy" "particular" {
  for_each            = var.gateway ? local.particular : {}
  operation_id        = each.key
  api_name            = azurerm_api_management_api.polysky[0].name
  api_management_name = azurerm_api_management.gateway[0].name
  resource_group_name = azurerm_resource_group.polysky.name
  # without the base of inbound, the API's check of tokens does not happen
  xml_content = "<policies><inbound>${each.value.public ? "" : "<base />"}<set-backend-service backend-id=\"${each.value.backend}\" /></inbound>${local.sections}</policies>"
  depends_on  = [azurerm_api_management_backend.app]

  lifecycle {
    replace_triggered_by = [azurerm_api_management_api.polysky]
  }
}

# what the table does not name: core answers it, also the OPTIONS of browsers, which come without a token
resource "azurerm_api_management_api_operation" "rest" {
  for_each            = toset(var.gateway ? ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] : [])
  operation_id        = "rest-${lower(each.key)}"
  api_name            = azurerm_api_management_api.polysky[0].name
  api_management_name = azurerm_api_management.gateway[0].name
  resource_group_name = azurerm_resource_group.polysky.name
  display_name        = "${each.key} of anything else"
  method              = each.key
  url_template        = "/*"

  lifecycle {
    replace_triggered_by = [azurerm_api_management_api.polysky] # an import deletes what it does not name
  }
}

resource "azurerm_api_management_api_operation_policy" "preflight" {
  count               = var.gateway ? 1 : 0
  operation_id        = azurerm_api_management_api_operation.rest["OPTIONS"].operation_id
  api_name            = azurerm_api_management_api.polysky[0].name
  api_management_name = azurerm_api_management.gateway[0].name
  resource_group_name = azurerm_resource_group.polysky.name
  xml_content         = "<policies><inbound><set-backend-service backend-id=\"predict\" /></inbound>${local.sections}</policies>"
  depends_on          = [azurerm_api_management_backend.app]

  lifecycle {
    replace_triggered_by = [azurerm_api_management_api_operation.rest["OPTIONS"]]
  }
}
