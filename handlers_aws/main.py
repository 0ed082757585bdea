"""AWS's entry points, handlers_aws.main.NAME: http and control (HTTP), job (S3, EventBridge), tick (a schedule).

Each is made when the Lambda runtime asks for it by name, once a process.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from core.app import App, build_app
from core.config import Settings
from core.reader import StoreReader, open_reader
from core.secrets import open_tokens
from core.web import Request
from handlers_aws.events import created, deadline, deliver, from_response, summary, to_request
from handlers_aws.secrets import fetcher, sdk_fetcher
from handlers_aws.telemetry import Handler, LambdaTelemetry, PowertoolsTelemetry, write_line


def __getattr__(name: str) -> Handler:
    if name not in _MAKERS:
        raise AttributeError(name)
    return globals().setdefault(name, _MAKERS[name](Settings.from_env(os.environ)))  # type: ignore[no-any-return]


def _http(settings: Settings) -> Handler:
    telemetry = LambdaTelemetry(write_line, clock=time.time)
    reader = open_reader(settings.store, allow_http=settings.allow_http)
    tokens = open_tokens(settings, partial(fetcher, env=os.environ), clock=time.time)
    app = build_app(settings, reader, telemetry=telemetry, tokens=tokens)
    return telemetry.instrument(_served(app))


def _control(settings: Settings) -> Handler:
    telemetry, store = PowertoolsTelemetry(write_line, clock=time.time), _store(settings)
    tokens = open_tokens(settings, sdk_fetcher, clock=time.time)
    app = build_app(settings, StoreReader(store), telemetry=telemetry, store=store, tokens=tokens)
    return telemetry.instrument(_served(app))


def _served(app: App) -> Handler:
    app(Request("GET", "/health/ready"))  # loads the models before the first request comes
    return lambda event, context: from_response(app(to_request(event)), event)


def _job(settings: Settings) -> Handler:
    telemetry, worker = _worker(settings)

    def job(event: Any, context: Any) -> Any:
        return deliver(worker, created(event, settings.store, warn=telemetry.warn), deadline=deadline(context))

    return telemetry.instrument(job)


def _tick(settings: Settings) -> Handler:
    telemetry, worker = _worker(settings)
    return telemetry.instrument(lambda event, context: summary(worker.tick(deadline=deadline(context))))


def _worker(settings: Settings) -> tuple[PowertoolsTelemetry, Any]:
    from core.worker import build_worker

    telemetry, store = PowertoolsTelemetry(write_line, clock=time.time), _store(settings)
    return telemetry, build_worker(settings, store, telemetry=telemetry, n_jobs=os.cpu_count() or 1)


def _store(settings: Settings) -> Any:
    from handlers_aws.store import open_store

    return open_store(settings.store, allow_http=settings.allow_http)


_MAKERS = {"http": _http, "control": _control, "job": _job, "tick": _tick}
