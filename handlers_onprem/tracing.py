"""Traces by OTLP: a span of each request, sent where the environment says; nothing is loaded if it says nothing.

The variables are OpenTelemetry's own: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME …
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import ConfigError
from core.web import Request, Response
from handlers_onprem.telemetry import LineHandler

App = Callable[[Request], Response]
VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
MAX_PATH_CHARS = 256
_TOLD = {
    "x-request-id": "polysky.request_id",
    "x-model-name": "polysky.model",
    "x-model-version": "polysky.version",
}


class Traces:
    """Spans of this process. They leave in batches, by a thread of their own: nobody waits for the collector."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Raises ConfigError without OpenTelemetry's SDK and OTLP exporter."""
        try:
            sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
            export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
            otlp: Any = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        except ImportError:
            raise ConfigError(f"{VARIABLES[0]} needs opentelemetry-exporter-otlp-proto-http") from None
        self._api: Any = importlib.import_module("opentelemetry.trace")
        context: Any = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
        name = {} if env.get("OTEL_SERVICE_NAME") else {"service.name": "polysky"}
        self._provider = sdk.TracerProvider(resource=sdk.Resource.create(name), shutdown_on_exit=False)
        self._provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
        self._tracer, self._caller = self._provider.get_tracer("polysky"), context.TraceContextTextMapPropagator()
        logging.getLogger("opentelemetry").addHandler(LineHandler())
        logging.getLogger("opentelemetry").propagate = False

    def around(self, app: App) -> App:
        """Return `app` with a span around each request, a child of its caller's, without rows, tokens, query."""

        def answer(request: Request) -> Response:
            facts = {"http.request.method": request.method, "url.path": request.path[:MAX_PATH_CHARS]}
            parent, kind = self._caller.extract(request.headers), self._api.SpanKind.SERVER
            span = self._tracer.start_span(request.method, parent, kind, facts)
            response = app(request)  # never raises
            span.set_attribute("http.response.status_code", response.status)
            for name, value in response.headers:
                if name.lower() in _TOLD:
                    span.set_attribute(_TOLD[name.lower()], value)
            if response.status >= 500:
                span.set_status(self._api.StatusCode.ERROR)
            span.end()
            return response

        return answer

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def open_traces(env: Mapping[str, str]) -> Traces | None:
    """Return the traces if there is somebody to send them to. Raises ConfigError."""
    return Traces(env) if any(env.get(name) for name in VARIABLES) else None
