"""The HTTP workers: Granian around one ASGI application a process."""

from __future__ import annotations

import os
import threading
from typing import Any

from core.config import Settings
from core.local_store import open_store
from core.reader import CLOUD_SCHEMES
from handlers_onprem.supervisor import end_with_parent
from handlers_onprem.telemetry import FOLDER_VARIABLE, SharedTelemetry, write_line

HOST_VARIABLE, PORT_VARIABLE, WORKERS_VARIABLE = "POLYSKY_HOST", "POLYSKY_PORT", "POLYSKY_WORKERS"
HEADER_TIMEOUT_MS = 10_000
HEADER_BYTES = 64 * 1024
STOP_S = 5


def run_server() -> None:
    """Run the HTTP workers until SIGTERM."""
    import multiprocessing

    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    # not fork: workers are started again from a process with threads
    multiprocessing.set_start_method("spawn")
    end_with_parent()
    server = Granian(
        "polysky",
        address=os.environ[HOST_VARIABLE],
        port=int(os.environ[PORT_VARIABLE]),
        workers=int(os.environ[WORKERS_VARIABLE]),
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HEADER_BYTES),
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_S,
        log_level=LogLevels.warning,
        log_dictconfig=_log_config(),
    )
    server.serve(target_loader=build_http, wrap_loader=False)


def in_cloud(url: str) -> bool:
    """Tell whether a store is a cloud's: its models are served here, while its jobs are done elsewhere."""
    return url.partition("://")[0] in CLOUD_SCHEMES and "://" in url


def _log_config() -> dict[str, Any]:
    handler = {"class": "handlers_onprem.telemetry.LineHandler"}
    logger = {"handlers": ["lines"], "level": "WARNING", "propagate": False}
    return {"handlers": {"lines": handler}, "loggers": {"_granian": logger}, "formatters": {}}


def build_http() -> Any:
    """Return the ASGI application of one worker process, from the environment."""
    from core.app import build_app
    from core.reader import open_reader
    from core.web import Request
    from handlers_onprem.server import Server
    from handlers_onprem.tracing import open_traces
    from handlers_onprem.vertex import Routes, with_routes

    settings = Settings.from_env(os.environ)
    telemetry = SharedTelemetry(write_line, os.environ[FOLDER_VARIABLE])
    reader = open_reader(settings.store, allow_http=settings.allow_http)
    store = None if in_cloud(settings.store) else open_store(settings.store)
    app = build_app(settings, reader, telemetry=telemetry, store=store)
    if routes := Routes.from_env(os.environ):
        app = with_routes(app, routes)
    traces = open_traces(os.environ)
    if traces:
        app = traces.around(app)
    end_with_parent()

    def warm() -> None:
        threading.Thread(target=app, args=(Request("GET", "/health/ready"),), daemon=True).start()

    return Server(
        app,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        on_active=lambda requests: telemetry.gauge("app_active_requests", requests),
        on_start=warm,
        on_stop=traces.close if traces else lambda: None,
    )
