# The API gateway. Its paths are those of the endpoint table, written by `python -m scripts.gateways`; core checks every
# token. With disable_auth the gateway passes on the caller's Authorization, instead of one of its own account.
# It limits callers only by API keys: what bounds the cost is the number of instances.

locals {
  addresses = {
    predict = google_cloudfunctions2_function.function["predict"].service_config[0].uri
    control = google_cloudfunctions2_function.function["control"].service_config[0].uri
  }
  endpoints = jsondecode(file("${path.module}/openapi.json"))
  # a browser asks first, without a token, whether its page may: the gateway passes on only what it knows, core answers
  asked = { for path, methods in local.endpoints.paths : path => merge(methods, { options = merge(values(methods)[0], {
    operationId = "options_${values(methods)[0].operationId}", summary = "Ask which origins may"
    x-polysky   = { function = values(methods)[0].x-polysky.function, public = true }
  }) }) }
  operations = { for path, methods in local.asked : path => {
    for method, operation in methods : method => merge(
      { for name, value in operation : name => value if name != "x-polysky" },
      { x-google-backend = {
        address          = local.addresses[operation.x-polysky.function]
        path_translation = "APPEND_PATH_TO_ADDRESS"
        deadline         = local.functions[operation.x-polysky.function].timeout_s
        disable_auth     = true
      } },
      { security = [for name in ["jwt"] : { (name) = [] } if var.jwt != null && !operation.x-polysky.public] },
    )
  } }
  openapi = merge(
    local.endpoints,
    { info = merge(local.endpoints.info, { title = local.name }), paths = local.operations },
    { securityDefinitions = { for name in ["jwt"] : name => {
      type               = "oauth2", flow = "implicit", authorizationUrl = ""
      x-google-issuer    = var.jwt.issuer
      x-google-jwks_uri  = var.jwt.jwks_uri
      x-google-audiences = join(",", var.jwt.audience)
    } if var.jwt != null } },
  )
}

resource "google_api_gateway_api" "http" {
  provider   = google-beta
  api_id     = local.name
  depends_on = [google_project_service.needed]
}

# a configuration never changes: another one is made, and the gateway moved to it
resource "google_api_gateway_api_config" "http" {
  provider             = google-beta
  api                  = google_api_gateway_api.http.api_id
  api_config_id_prefix = "${local.name}-"
  openapi_documents {
    document {
      path     = "openapi.json"
      contents = base64encode(jsonencode(local.openapi))
    }
  }
  gateway_config {
    backend_config { google_service_account = google_service_account.gateway.email }
  }
  lifecycle {
    create_before_destroy = true
  }
}

resource "google_api_gateway_gateway" "http" {
  provider   = google-beta
  gateway_id = local.name
  api_config = google_api_gateway_api_config.http.id
  region     = coalesce(var.gateway_region, var.region)
}
