"""Keeps a fixed set of child processes running, and stops them all when told to."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

POLL_S = 0.1
FIRST_PAUSE_S, LAST_PAUSE_S = 0.25, 10.0
HEALTHY_S = 10.0  # a child that lived so long starts again with the first pause

Log = Callable[..., None]


@dataclass(slots=True)
class Child:
    """One process that should always run: its command, and when it may start again after a crash."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_s: float = field(default=FIRST_PAUSE_S)
    start_at: float = 0.0

    def signal(self, number: int) -> None:
        """Send a signal to the child's whole process group, if it still exists."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """Starts the children, restarts the ones that end, stops all on SIGTERM or SIGINT.

    Each child leads its own process group: a Ctrl-C in the terminal reaches the supervisor alone, and what a
    child leaves behind is ended with it.
    """

    def __init__(
        self, children: Sequence[Child], *, env: Mapping[str, str], log: Log, grace_s: float = 8.0
    ) -> None:
        self._children = children
        self._env = dict(env)
        self._log = log
        self._grace_s = grace_s
        self._stop = threading.Event()

    def request_stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Make `run` stop the children and return (also a signal handler)."""
        self._stop.set()

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Supervise until a stop is requested; on return no child is left."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.request_stop)
        try:
            self._tick()
            ready()
            while not self._stop.wait(POLL_S):
                self._tick()
        finally:
            self._stop_all()

    def _tick(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and (code := child.process.poll()) is not None:
                child.signal(signal.SIGKILL)  # what it left running
                lived_s = now - child.started_at
                child.pause_s = FIRST_PAUSE_S if lived_s >= HEALTHY_S else min(child.pause_s * 2, LAST_PAUSE_S)
                child.process, child.start_at = None, now + child.pause_s
                self._log("child_ended", level="error", child=child.name, code=code, restart_in_s=child.pause_s)
            if child.process is None and now >= child.start_at:
                child.process = subprocess.Popen(child.command, env=self._env, process_group=0)
                child.started_at = now
                self._log("child_started", child=child.name, pid=child.process.pid)

    def _stop_all(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + self._grace_s
        for child in self._children:
            if child.process is None:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            child.signal(signal.SIGKILL)
            child.process.wait()
            self._log("child_stopped", child=child.name, code=child.process.returncode)


def end_with_parent(poll_s: float = 1.0) -> None:
    """Make this process end (SIGTERM to itself) when its parent is gone, so that no orphan holds the port."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_s)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
