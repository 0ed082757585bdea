"""The on-premises platform's entry points: the supervisor, the HTTP workers and the job worker.

`python -m handlers_onprem.main server|jobs` are the supervisor's children; people use `polysky serve`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from core.config import Settings
from core.errors import ConfigError
from core.local_store import open_store
from handlers_onprem.supervisor import Child, Supervisor, end_with_parent
from handlers_onprem.telemetry import FOLDER_VARIABLE, SharedTelemetry, write_line

HOST_VARIABLE, PORT_VARIABLE, WORKERS_VARIABLE = "POLYSKY_HOST", "POLYSKY_PORT", "POLYSKY_WORKERS"
HEADER_TIMEOUT_MS = 10_000
HEADER_BYTES = 64 * 1024
STOP_S = 5
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def serve(settings: Settings, *, host: str, port: int, workers: int, env: Mapping[str, str]) -> None:
    """Serve `settings.store` until SIGTERM or SIGINT: HTTP workers and one job worker, restarted when they crash.

    Prints the URL on stdout once the port answers; port 0 is any free one. Raises ConfigError for a port in use
    and for a store that is no folder.
    """
    store, port = open_store(settings.store), _free_port(host, port)
    if os.path.exists(store.root) and not os.path.isdir(store.root):
        raise ConfigError("the store is a file where a folder should be", setting="POLYSKY_STORE")
    folder = tempfile.mkdtemp(prefix="polysky-metrics-")
    child_env = {
        **env,
        # the children find this code, and nothing that happens to lie in the folder where they are started
        "PYTHONPATH": os.pathsep.join(filter(None, [_ROOT, env.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",
        "POLYSKY_STORE": store.root,
        FOLDER_VARIABLE: folder,
        HOST_VARIABLE: host,
        PORT_VARIABLE: str(port),
        WORKERS_VARIABLE: str(workers),
    }
    command = [sys.executable, "-m", "handlers_onprem.main"]
    children = [Child("server", [*command, "server"]), Child("jobs", [*command, "jobs"])]
    try:
        telemetry = SharedTelemetry(write_line, folder)
        supervisor = Supervisor(children, env=child_env, log=telemetry.log, grace_s=STOP_S + 3)
        announce = threading.Thread(target=_announce, args=(host, port), daemon=True)
        supervisor.run(ready=announce.start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0. The workers share their port, so they would not notice a stranger."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", port=port) from error
        return int(probe.getsockname()[1])


def _announce(host: str, port: int) -> None:
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    name = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"serving on http://{name}:{port}\n")
    sys.stdout.flush()


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

    settings = Settings.from_env(os.environ)
    telemetry = SharedTelemetry(write_line, os.environ[FOLDER_VARIABLE])
    app = build_app(settings, open_reader(settings.store), telemetry=telemetry, store=open_store(settings.store))
    end_with_parent()

    def warm() -> None:
        threading.Thread(target=app, args=(Request("GET", "/health/ready"),), daemon=True).start()

    return Server(
        app,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        on_active=lambda requests: telemetry.gauge("app_active_requests", requests),
        on_start=warm,
    )


def run_jobs() -> None:
    """Run the job worker until SIGTERM."""
    from core.worker import build_worker
    from handlers_onprem.watch import be_nice, give_up_leases, sole_worker, watch

    end_with_parent()
    be_nice()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    settings = Settings.from_env(os.environ)
    telemetry = SharedTelemetry(write_line, os.environ[FOLDER_VARIABLE])
    store = open_store(settings.store)
    worker = build_worker(settings, store, telemetry=telemetry, n_jobs=os.cpu_count() or 1)
    with sole_worker(store.root):
        give_up_leases(worker.shop.registry, now=time.time())
        watch(worker, telemetry, root=store.root)


def _exit(number: int, frame: object) -> NoReturn:
    """End the process, a running job too: every step of a job may be cut off, and the next start takes it up."""
    raise SystemExit(0)


def main() -> None:
    """Run what the first argument names."""
    {"server": run_server, "jobs": run_jobs}[sys.argv[1]]()


if __name__ == "__main__":
    main()
