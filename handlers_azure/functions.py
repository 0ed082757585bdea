"""The function that answers HTTP, around any application."""

from __future__ import annotations

import azure.functions as func

from core.app import App
from handlers_azure.events import from_response, to_request
from handlers_azure.telemetry import FunctionTelemetry


def http_functions(name: str, app: App, telemetry: FunctionTelemetry) -> func.FunctionApp:
    """Return a function app whose one function gives every request to `app`."""
    functions = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)  # core checks tokens itself

    @functions.function_name(name)
    @functions.route(route="{*path}")
    def http(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
        with telemetry.invocation(context):
            return from_response(app(to_request(req)))

    return functions
