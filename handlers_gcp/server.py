"""What the module that the server, gunicorn, loads before it forks its workers is told, and tells it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from threading import Timer

from gunicorn.config import ControlSocketDisable

from core.errors import ConfigError
from core.web import Request, Response

LIMIT_VARIABLE = "CLOUD_RUN_TIMEOUT_SECONDS"
PATIENCE_S = 0.1  # a request that waited for this process loads what it needs itself, faster if alone


def time_limit_s(env: Mapping[str, str], default: float) -> float:
    """Return how long a call may take, as Cloud Run tells it. Raises ConfigError."""
    try:
        found = float(env.get(LIMIT_VARIABLE) or default)
    except ValueError:
        found = 0.0
    if not 0.0 < found < float("inf"):
        raise ConfigError(f"{LIMIT_VARIABLE} must be a number of seconds", settings=[LIMIT_VARIABLE])
    return found


def prepare(app: Callable[[Request], Response]) -> None:
    """Have each worker load the models soon, on a thread of its own, and nothing get in the way of that."""
    ControlSocketDisable.default = True  # a server for operators' commands, which nobody here gives
    gc.freeze()  # what is loaded by now stays: shared by the workers, and looked through no more
    ready = Request("GET", "/health/ready")

    def warm() -> None:
        timer = Timer(PATIENCE_S, app, (ready,))
        timer.daemon = True
        timer.start()

    os.register_at_fork(after_in_child=warm)
