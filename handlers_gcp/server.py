"""What the server, gunicorn, is told by the module that it loads before it forks its workers."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from threading import Timer

from gunicorn.config import ControlSocketDisable

from core.web import Request, Response

PATIENCE_S = 0.1  # a request that waited for this process loads what it needs itself, faster if alone


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
