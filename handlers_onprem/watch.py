"""The job worker's process: it polls the store's inbox and does the jobs, alone on its store."""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from core import jobs
from core.errors import CoreError, IntegrityError
from core.jobs import Claim, Pending
from core.telemetry import Telemetry
from core.worker import ACTOR, RETRY_S, Worker

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


def watch(
    worker: Worker,
    telemetry: Telemetry,
    *,
    root: str = "",
    inherits: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Do the jobs that come, forever. An error of the store is logged and tried again.

    In the store's folder `root` each model gets a folder to drop files into. `inherits` says that leases of a
    process that ended may stand, which nobody needs to wait for.
    """
    interrupted = False  # a job, by the store
    while True:
        try:
            if root:
                open_inboxes(root, worker.shop.registry)
            if inherits:
                give_up_leases(worker.shop.registry, now=time.time())
                inherits = False
            if interrupted:  # nobody else works here, so its source need not wait for the end of the lease
                give_up_leases(worker.shop.registry, now=time.time(), reason="the store failed", rest_s=RETRY_S)
            interrupted = any(outcome.status == "unavailable" for outcome in worker.tick())
            count_jobs(worker.shop.registry, telemetry)
        except CoreError as error:
            telemetry.log("poll_failed", "warning", code=error.code, detail=error.message)
        sleep(POLL_S)


def open_inboxes(root: str, registry: Registry) -> None:
    """Make the folder `uploads/{model}` of each model, as far as the disk lets us."""
    for model in registry.models():
        with suppress(OSError):
            Path(root, "uploads", model).mkdir(parents=True, exist_ok=True)


def give_up_leases(
    registry: Registry, *, now: float, reason: str = "the worker was ended", rest_s: float = 0.0
) -> int:
    """Return how many sources were freed that no worker works on any more, so that nobody waits for them.

    Only for the one worker of a store, between two jobs: it knows that there is no other holder.
    """
    freed = 0
    for state in _sound(registry):
        for item in _held(state, now):
            jobs.fail(registry, Claim((item,), 0.0), reason, retry_at=now + rest_s)
            freed += 1
    return freed


def _sound(registry: Registry) -> Iterator[State]:
    """Yield the state of each model whose log can be read: a broken one must not stop the others."""
    for model in registry.models():
        try:
            state = registry.state(model)
        except IntegrityError:
            continue  # the worker's tick tells of it
        yield state


def _held(state: State, now: float) -> Iterator[Pending]:
    for src in sorted(state.open):
        source = state.sources[src]
        if source.status == "claimed" and source.actor == ACTOR and source.until > now:
            yield Pending(state.model, source.kind, source.key, None, src, "train", source.attempt)


def count_jobs(registry: Registry, telemetry: Telemetry) -> None:
    """Set the gauge of jobs by status for each model."""
    for state in _sound(registry):
        counts = Counter(source.status for source in state.sources.values())
        for status, shown in _STATUSES.items():
            telemetry.gauge("jobs_count", counts[status], (state.model, shown))


def be_nice() -> None:
    """Let the HTTP workers go first: training must not slow down serving."""
    os.nice(10)
