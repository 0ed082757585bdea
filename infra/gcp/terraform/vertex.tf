# Compute of another kind for the same model: the image serves Vertex AI's contract of a custom container (AIP_*). The
# provider makes the endpoint; models have no resource in it, so uploading and deploying is `vertex_commands`.
resource "google_vertex_ai_endpoint" "predict" {
  count        = var.vertex_endpoint ? 1 : 0
  name         = tostring(parseint(substr(md5(local.name), 0, 7), 16)) # digits only
  display_name = local.name
  location     = var.region
  region       = var.region
  depends_on   = [google_project_service.needed]
}
