"""Functions that do nothing, one for each platform: what they cost is the platform's own share."""

EMPTY = {
    "aws": """def handler(event, context):
    return {"statusCode": 200, "body": "{}"}
""",
    "gcp": """import functions_framework

@functions_framework.http
def http(request):
    return "{}"
""",
    "azure": """import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

@app.route(route="{*path}")
def http(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("{}")
""",
}
