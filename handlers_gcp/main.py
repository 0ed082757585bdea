"""Google Cloud's entry points: http and control (HTTP), job (posted to by Eventarc), tick (by Cloud Scheduler).

A process serves the one in FUNCTION_TARGET. This module is loaded before gunicorn forks its workers, and threads,
such as the reader has once it has read, do not survive that: until then nothing is read or written.
"""

import os
import time
from functools import partial
from typing import Any

import flask
import functions_framework

from core.app import build_app
from core.config import Settings
from core.reader import StoreReader, open_reader
from core.secrets import open_tokens
from handlers_gcp.events import answer_every_path, created, deliver, from_response, reconcile, to_request
from handlers_gcp.secrets import fetcher
from handlers_gcp.server import prepare, time_limit_s
from handlers_gcp.telemetry import CloudTelemetry, write_line

SETTINGS = Settings.from_env(os.environ)
TELEMETRY = CloudTelemetry(write_line, clock=time.time)
TIMEOUT_S = time_limit_s(os.environ, SETTINGS.timeout_s)


def _build(target: str) -> Any:
    """Return the application or the worker that a target serves."""
    if target == "http":
        return _app(open_reader(SETTINGS.store, allow_http=SETTINGS.allow_http))
    from handlers_gcp.store import open_store

    store = open_store(SETTINGS.store, allow_http=SETTINGS.allow_http)
    if target == "control":
        return _app(StoreReader(store), store=store)
    from core.worker import build_worker

    return build_worker(SETTINGS, store, telemetry=TELEMETRY, n_jobs=os.cpu_count() or 1)


def _app(reader: Any, **more: Any) -> Any:
    secret = partial(fetcher, env=os.environ, allow_http=SETTINGS.allow_http)
    tokens = open_tokens(SETTINGS, secret, clock=time.time)
    return build_app(SETTINGS, reader, telemetry=TELEMETRY, tokens=tokens, **more)


@functions_framework.http
def http(call: flask.Request) -> flask.Response:
    """Return an answer: of the plane that only reads, or as `control` of the one that writes too."""
    message = to_request(call, LIMIT)
    with TELEMETRY.request(message.headers):
        return from_response(SERVED(message))


@functions_framework.http
def job(call: flask.Request) -> flask.Response:
    """Work on the upload or request that an event tells of; anything but 2xx has it delivered again."""
    message = to_request(call)
    with TELEMETRY.request(message.headers):
        hints = created(message, SETTINGS.store, warn=TELEMETRY.warn)
        return from_response(deliver(SERVED, hints, deadline=time.time() + TIMEOUT_S))


@functions_framework.http
def tick(call: flask.Request) -> flask.Response:
    """Take up what no event told of, and what was left half done."""
    with TELEMETRY.request(to_request(call).headers):
        return from_response(reconcile(SERVED, deadline=time.time() + TIMEOUT_S))


control, TARGET = http, os.environ.get("FUNCTION_TARGET", "http")
LIMIT = SETTINGS.max_upload_bytes if TARGET == "control" else SETTINGS.max_body_bytes
SERVED = _build(TARGET)
if TARGET in ("http", "control"):
    answer_every_path(http)
    prepare(SERVED)
