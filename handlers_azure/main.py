"""Azure Functions' entry points, made when function_app.py asks for `app`.

A package without the Blob store (handlers_azure/store.py) is the app that predicts: one function, `http`, which
reads. A package with it is the app that trains: `control` (all of HTTP), `job` and `tick`, which write.
"""

from __future__ import annotations

import os
import time
from functools import partial
from importlib.util import find_spec
from typing import Any

import azure.functions as func

from core.app import build_app
from core.config import Settings
from core.reader import open_reader
from core.secrets import open_tokens
from core.web import Request
from handlers_azure.events import created, deliver
from handlers_azure.functions import http_functions
from handlers_azure.secrets import fetcher
from handlers_azure.telemetry import FunctionTelemetry


def __getattr__(name: str) -> func.FunctionApp:
    if name != "app":
        raise AttributeError(name)
    return train_app() if find_spec("handlers_azure.store") else predict_app()


def predict_app() -> func.FunctionApp:
    """Return the function app that predicts, from the environment."""
    return _http_app("http", Settings.from_env(os.environ), FunctionTelemetry())


def train_app() -> func.FunctionApp:
    """Return the function app that trains and governs, from the environment."""
    from core.worker import build_worker
    from handlers_azure.store import open_store

    settings, telemetry = Settings.from_env(os.environ), FunctionTelemetry()
    store = open_store(settings.store, allow_http=settings.allow_http)
    functions = _http_app("control", settings, telemetry, store=store)
    worker = build_worker(settings, store, telemetry=telemetry, n_jobs=os.cpu_count() or 1)

    @functions.function_name("job")
    @functions.event_grid_trigger(arg_name="event")
    def job(event: func.EventGridEvent, context: func.Context) -> None:
        with telemetry.invocation(context):
            hints = created(event, settings.store, warn=partial(telemetry.warn, "event_dropped"))
            deliver(worker, hints, deadline=time.time() + settings.timeout_s)

    @functions.function_name("tick")
    @functions.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
    def tick(timer: func.TimerRequest, context: func.Context) -> None:
        with telemetry.invocation(context):
            worker.tick(deadline=time.time() + settings.timeout_s)

    return functions


def _http_app(name: str, settings: Settings, telemetry: FunctionTelemetry, **more: Any) -> func.FunctionApp:
    reader = open_reader(settings.store, allow_http=settings.allow_http)
    fetch = partial(fetcher, env=os.environ, allow_http=settings.allow_http)
    tokens = open_tokens(settings, fetch, clock=time.time)
    app = build_app(settings, reader, telemetry=telemetry, tokens=tokens, **more)
    app(Request("GET", "/health/ready"))  # loads the models before the first request comes
    return http_functions(name, app, telemetry)
