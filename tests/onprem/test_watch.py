"""The job worker's process: one a store, and no source waits for a worker that was killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Denied, Unavailable
from core.inbox import pending
from core.jobs import claim, view
from core.registry import Registry
from core.store import Entry, MemoryStore
from core.telemetry import MemoryTelemetry
from core.worker import ACTOR, RETRY_S, Outcome
from handlers_onprem.watch import count_jobs, give_up_leases, open_inboxes, sole_worker, watch


def registry(store: MemoryStore, actor: str) -> Registry:
    return Registry(store, clock=time.time, sleep=time.sleep, rng=random.Random(1), actor=actor)


def claimed(store: MemoryStore, actor: str) -> str:
    """Return the job id of an upload that `actor` holds for an hour."""
    store.put(f"uploads/mood/{actor[:3]}.csv", b"x")
    found = registry(store, actor)
    item = pending(found, now=time.time() + 10, min_age_s=0)[0]
    held = claim(found, [item], now=time.time(), lease_s=3600)
    assert held is not None
    return item.job_id


def test_a_killed_workers_lease_is_given_up_at_the_next_start() -> None:
    store = MemoryStore()
    job = claimed(store, ACTOR)
    found = registry(store, ACTOR)
    assert give_up_leases(found, now=time.time()) == 1
    assert view(found, job, now=time.time() + 1).status == "queued"
    assert [item.attempt for item in pending(found, now=time.time() + 1, min_age_s=0)] == [2]


def test_a_lease_of_anybody_else_is_left_alone() -> None:
    store = MemoryStore()
    job = claimed(store, "cli:somebody")
    found = registry(store, ACTOR)
    assert give_up_leases(found, now=time.time()) == 0
    assert view(found, job, now=time.time() + 1).status == "running"


def test_jobs_are_counted_by_status() -> None:
    store = MemoryStore()
    claimed(store, ACTOR)
    telemetry = MemoryTelemetry(lambda line: None, clock=time.time)
    count_jobs(registry(store, ACTOR), telemetry)
    assert b'jobs_count{model="mood",status="running"} 1\n' in telemetry.exposition()
    assert b'jobs_count{model="mood",status="parked"} 0\n' in telemetry.exposition()


def test_a_broken_log_does_not_stop_the_other_models() -> None:
    store = MemoryStore()
    claimed(store, ACTOR)
    store.put("reg/_models/broken.json", b"{}")
    store.put("reg/broken/log/000000000000.json", b"garbage")
    found = registry(store, ACTOR)
    assert found.models() == ["broken", "mood"]
    telemetry = MemoryTelemetry(lambda line: None, clock=time.time)
    count_jobs(found, telemetry)
    assert b'jobs_count{model="mood",status="running"} 1\n' in telemetry.exposition()
    assert give_up_leases(found, now=time.time()) == 1


def test_each_model_gets_a_folder_to_drop_files_into(tmp_path: Path) -> None:
    store = MemoryStore()
    claimed(store, ACTOR)
    open_inboxes(str(tmp_path), registry(store, ACTOR))
    open_inboxes(str(tmp_path), registry(store, ACTOR))
    assert [path.name for path in tmp_path.glob("uploads/*")] == ["mood"]
    open_inboxes("/dev/null", registry(store, ACTOR))  # a disk that refuses is no reason to stop


class Stop(Exception):
    """Ends the endless loop of a test."""


class Failing:
    """A worker whose store is down, then comes back."""

    def __init__(self, shop: object) -> None:
        self.shop = shop
        self.ticks = 0

    def tick(self) -> list[object]:
        self.ticks += 1
        if self.ticks == 1:
            raise Unavailable("the store does not answer")
        return []


def test_polling_goes_on_after_an_error_of_the_store() -> None:
    lines: list[str] = []
    pauses: list[float] = []

    class Shop:
        registry = registry(MemoryStore(), ACTOR)

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 2:
            raise Stop

    worker = Failing(Shop())
    with pytest.raises(Stop):
        watch(worker, MemoryTelemetry(lines.append, clock=time.time), sleep=sleep)  # type: ignore[arg-type]
    assert worker.ticks == 2
    assert ["poll_failed" in line for line in lines] == [True]


HOLDER = """
import sys, time
from handlers_onprem.watch import sole_worker
with sole_worker(sys.argv[1]) as sole:
    print(sole, flush=True)
    time.sleep(60)
"""


def test_a_store_has_one_job_worker_and_the_next_takes_over_when_it_dies(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    with subprocess.Popen([sys.executable, "-c", HOLDER, store], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with sole_worker(store, wait=False) as sole:
            assert not sole
        holder.kill()
        with sole_worker(store) as sole:
            assert sole


class Interrupted:
    """A worker whose store fails while it holds a claim."""

    def __init__(self, shop: object) -> None:
        self.shop = shop

    def tick(self) -> list[Outcome]:
        return [Outcome("unavailable", "uploads/mood/sys.csv", "mood")]


def test_what_the_store_interrupted_does_not_wait_for_the_end_of_its_lease() -> None:
    store, pauses = MemoryStore(), 0
    job = claimed(store, ACTOR)

    class Shop:
        registry = registry(store, ACTOR)

    def sleep(pause_s: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            raise Stop

    telemetry = MemoryTelemetry(lambda line: None, clock=time.time)
    with pytest.raises(Stop):
        watch(Interrupted(Shop()), telemetry, sleep=sleep)  # type: ignore[arg-type]
    found = view(registry(store, ACTOR), job, now=time.time())
    assert (found.reason, found.attempt) == ("the store failed", 1)
    later = pending(registry(store, ACTOR), now=time.time() + RETRY_S + 1, min_age_s=0)
    assert [item.attempt for item in later] == [2]
    assert pending(registry(store, ACTOR), now=time.time() + RETRY_S - 5, min_age_s=0) == []


class Sullen(MemoryStore):
    """Fails once when it is told to."""

    fails = False

    def list(self, prefix: str) -> Iterator[Entry]:
        if self.fails:
            self.fails = False
            raise Denied("the store failed for now")
        return super().list(prefix)


def test_a_store_that_fails_at_the_start_does_not_end_the_process_and_leases_are_given_up_later() -> None:
    store, pauses = Sullen(), 0
    job = claimed(store, ACTOR)
    store.fails = True

    class Shop:
        registry = registry(store, ACTOR)

    class Idle(Interrupted):
        def tick(self) -> list[Outcome]:
            return []

    def sleep(pause_s: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 2:
            raise Stop

    lines: list[str] = []
    telemetry = MemoryTelemetry(lines.append, clock=time.time)
    with pytest.raises(Stop):
        watch(Idle(Shop()), telemetry, inherits=True, sleep=sleep)  # type: ignore[arg-type]
    assert ["poll_failed" in line for line in lines] == [True]
    assert view(registry(store, ACTOR), job, now=time.time()).reason == "the worker was ended"
