"""Launches the platform: its processes, their environment, and the word that the port answers."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping

from core.config import Settings
from core.errors import ConfigError
from core.local_store import open_store
from handlers_onprem.supervisor import Child, Supervisor
from handlers_onprem.telemetry import FOLDER_VARIABLE, SharedTelemetry, write_line
from handlers_onprem.workers import HOST_VARIABLE, PORT_VARIABLE, STOP_S, WORKERS_VARIABLE, in_cloud

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def serve(settings: Settings, *, host: str, port: int, workers: int, env: Mapping[str, str]) -> None:
    """Serve `settings.store` until SIGTERM or SIGINT: HTTP workers and one job worker, restarted when they crash.

    A cloud's store is only read: no job worker, no control endpoints. Prints the URL on stdout once the port
    answers; port 0 is any free one. Raises ConfigError for a port in use and for a store that cannot be one.
    """
    place, port = _place(settings.store), _free_port(host, port)
    folder = tempfile.mkdtemp(prefix="polysky-metrics-")
    child_env = {
        **env,
        # the children find this code, and nothing that happens to lie in the folder where they are started
        "PYTHONPATH": os.pathsep.join(filter(None, [_ROOT, env.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",
        "POLYSKY_STORE": place,
        FOLDER_VARIABLE: folder,
        HOST_VARIABLE: host,
        PORT_VARIABLE: str(port),
        WORKERS_VARIABLE: str(workers),
    }
    command = [sys.executable, "-m", "handlers_onprem.main"]
    names = ("server",) if in_cloud(place) else ("server", "jobs")
    children = [Child(name, [*command, name]) for name in names]
    try:
        telemetry = SharedTelemetry(write_line, folder)
        supervisor = Supervisor(children, env=child_env, log=telemetry.log, grace_s=STOP_S + 3)
        announce = threading.Thread(target=_announce, args=(host, port), daemon=True)
        supervisor.run(ready=announce.start)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(url: str) -> str:
    """Return the absolute path of a folder, or a cloud's URL as it is."""
    if in_cloud(url):
        return url
    root = open_store(url).root
    if os.path.exists(root) and not os.path.isdir(root):
        raise ConfigError("the store is a file where a folder should be", setting="POLYSKY_STORE")
    return root


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
