"""The job worker's process: it polls the store's inbox and does the jobs, alone on its store."""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from core import jobs
from core.errors import CoreError
from core.jobs import Claim, Pending
from core.telemetry import Telemetry
from core.worker import ACTOR, Worker

if TYPE_CHECKING:
    from core.registry import Registry
    from core.state import State

POLL_S = 1.0
_LOCK = ".tmp-worker.lock"  # no store lists what begins with .tmp
_STATUSES = {"claimed": "running", "published": "succeeded", "rejected": "rejected", "parked": "parked"}


@contextmanager
def sole_worker(root: str, *, wait: bool = True) -> Iterator[bool]:
    """Yield True once no other job worker of the store in `root` runs; without `wait`, False if one does."""
    path = Path(root) / _LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield _lock(file.fileno(), wait=wait)


def _lock(fd: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def watch(worker: Worker, telemetry: Telemetry, *, sleep: Callable[[float], None] = time.sleep) -> NoReturn:
    """Do the jobs that come, forever. An error of the store is logged and tried again."""
    while True:
        try:
            worker.tick()
            count_jobs(worker.shop.registry, telemetry)
        except CoreError as error:
            telemetry.log("poll_failed", "warning", code=error.code, detail=error.message)
        sleep(POLL_S)


def give_up_leases(registry: Registry, *, now: float) -> int:
    """Return how many sources were freed that a worker held when it was killed, so that nobody waits for them.

    Only for the one worker of a store: it knows that the holder is gone.
    """
    freed = 0
    for model in registry.models():
        for item in _held(registry.state(model), now):
            jobs.fail(registry, Claim((item,), 0.0), "the worker was ended", retry_at=now)
            freed += 1
    return freed


def _held(state: State, now: float) -> Iterator[Pending]:
    for src in sorted(state.open):
        source = state.sources[src]
        if source.status == "claimed" and source.actor == ACTOR and source.until > now:
            yield Pending(state.model, source.kind, source.key, None, src, "train", source.attempt)


def count_jobs(registry: Registry, telemetry: Telemetry) -> None:
    """Set the gauge of jobs by status for each model."""
    for model in registry.models():
        counts = Counter(source.status for source in registry.state(model).sources.values())
        for status, shown in _STATUSES.items():
            telemetry.gauge("jobs_count", counts[status], (model, shown))


def be_nice() -> None:
    """Let the HTTP workers go first: training must not slow down serving."""
    os.nice(10)
