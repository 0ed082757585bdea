"""Jobs: finding work in the inbox, claiming it, and one outcome for each source."""

from __future__ import annotations

import pytest

from core import jobs
from core.errors import Conflict, InvalidName, NotFound
from core.inbox import batch_of
from core.jobs import Claim, Pending, view
from core.registry import Registry
from core.store import MemoryStore
from tests.contracts.store_contract import in_threads
from tests.core.ledgers import MODEL, Clock, open_registry
from tests.core.workers import LEASE_S, finish, taken, work

UPLOAD = "uploads/m/a.csv"


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def registry(store: MemoryStore, clock: Clock) -> Registry:
    return open_registry(store, clock)


def test_new_uploads_of_a_model_share_a_run_and_the_rest_runs_alone(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    store.put("uploads/m/retried.csv", b"x")
    taken(registry, clock)
    clock.now += LEASE_S
    for key in ("uploads/m/b.csv", "uploads/n/a.csv", "uploads/m/c.csv", "jobs/m/1.json", "jobs/m/2.json"):
        store.put(key, b"x")
    runs = sorted([item.key for item in run] for run in batch_of(work(registry, clock)))
    assert runs == [
        ["jobs/m/1.json"],
        ["jobs/m/2.json"],
        ["uploads/m/b.csv", "uploads/m/c.csv"],
        ["uploads/m/retried.csv"],
        ["uploads/n/a.csv"],
    ]


def test_a_run_is_not_longer_than_a_claim_may_be(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    for n in range(1001):
        store.put(f"uploads/m/{n:04d}.csv", b"x")
    runs = batch_of(work(registry, clock))
    assert [len(run) for run in runs] == [500, 500, 1]
    for run in runs:
        finish(registry, taken(registry, clock, *run), gate={"passed": True})
    state = registry.state(MODEL)
    assert len(state.sources) == 1001
    assert {source.status for source in state.sources.values()} == {"published"}
    assert len(state.versions) == 3
    assert work(registry, clock) == []


# --- claiming


def test_one_of_many_workers_gets_the_claim(store: MemoryStore, clock: Clock) -> None:
    store.put(UPLOAD, b"x")
    got: list[Claim] = []

    item = work(open_registry(store, clock), clock)

    def race(me: int) -> None:
        held = jobs.claim(open_registry(store, clock, seed=me), item, now=clock.now, lease_s=LEASE_S)
        if held:
            got.append(held)

    in_threads(8, race)
    assert len(got) == 1


def test_a_claim_takes_what_is_left_of_a_run(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    for name in "abc":
        store.put(f"uploads/m/{name}.csv", b"x")
    items = work(registry, clock)
    taken(registry, clock, items[0])
    held = taken(registry, clock, *items)
    assert held.items == tuple(items[1:])
    assert (held.src, held.covers) == (items[1].src, {items[2].src: 1})
    assert jobs.claim(registry, items, now=clock.now, lease_s=LEASE_S) is None


def test_a_claim_that_is_malformed_is_not_taken_for_somebody_elses(registry: Registry, clock: Clock) -> None:
    item = Pending(MODEL, "upload", UPLOAD, "1", "not a source id", "train", 1)
    with pytest.raises(Conflict):
        jobs.claim(registry, [item], now=clock.now, lease_s=LEASE_S)


def test_one_bad_file_of_a_run_is_rejected_and_the_others_go_on(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    for name in "abc":
        store.put(f"uploads/m/{name}.csv", b"x")
    held = taken(registry, clock)
    bad, *good = held.items
    jobs.reject(registry, held, "schema", problems=[{"message": f"{n}"} for n in range(20)], src=bad.src)
    rest = held.without(bad.src)
    assert rest is not None
    assert (rest.src, rest.covers) == (good[0].src, {good[1].src: 1})
    finish(registry, rest, gate={"passed": True})
    shown = view(registry, bad.job_id, now=clock.now)
    assert (shown.status, shown.reason, len(shown.problems)) == ("rejected", "schema", 10)
    for item in good:
        assert view(registry, item.job_id, now=clock.now).status == "succeeded"
    assert rest._replace(items=rest.items[:1]).without(rest.src) is None


def test_a_whole_run_can_be_rejected_at_once(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    for name in "ab":
        store.put(f"uploads/m/{name}.csv", b"x")
    held = taken(registry, clock)
    jobs.reject(registry, held, "classes")
    jobs.reject(registry, held, "classes")
    assert {source.reason for source in registry.state(MODEL).sources.values()} == {"classes"}


def test_a_run_whose_first_upload_is_gone_by_now_is_rejected_all_the_same(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    for name in "abc":
        store.put(f"uploads/m/{name}.csv", b"x")
    held = taken(registry, clock)
    jobs.settle(registry, held.items[0]._replace(todo="reject", reason="gone"))
    jobs.reject(registry, held, "classes")
    sources = registry.state(MODEL).sources
    assert [sources[item.src].reason for item in held.items] == ["gone", "classes", "classes"]


def test_a_failed_attempt_is_retried_before_its_lease_ends_and_parked_after_three(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    for name in "ab":
        store.put(f"uploads/m/{name}.csv", b"x")
    assert jobs.fail(registry, taken(registry, clock), "timeout", retry_at=clock.now + 5)
    assert work(registry, clock) == []
    clock.now += 5
    runs = batch_of(work(registry, clock))
    assert [len(run) for run in runs] == [1, 1]
    assert jobs.fail(registry, taken(registry, clock, *runs[0]), "timeout", retry_at=clock.now)
    third = next(item for item in work(registry, clock) if item.src == runs[0][0].src)
    assert not jobs.fail(registry, taken(registry, clock, third), "out of memory", retry_at=clock.now)
    shown = view(registry, third.job_id, now=clock.now)
    assert (shown.status, shown.reason, shown.attempt) == ("parked", "out of memory", 3)


# --- showing


def test_a_job_is_shown_from_upload_to_verdict(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    store.put(UPLOAD, b"x")
    (item,) = work(registry, clock)
    assert view(registry, item.job_id, now=clock.now).status == "queued"
    held = taken(registry, clock, item)
    assert view(registry, item.job_id, now=clock.now).status == "running"
    assert view(registry, item.job_id, now=clock.now + LEASE_S).status == "queued"
    version = finish(registry, held, gate={"passed": False, "reason": "worse"})
    shown = view(registry, item.job_id, now=clock.now)
    assert (shown.status, shown.version, shown.attempt) == ("succeeded", version, 1)
    assert shown.gate == {"passed": False, "reason": "worse"}
    assert (shown.model, shown.kind, shown.key, shown.problems) == (MODEL, "upload", UPLOAD, ())


def test_an_unknown_job_is_not_found_and_a_malformed_id_is_refused(store: MemoryStore, registry: Registry) -> None:
    store.put(UPLOAD, b"x")
    store.put("uploads/m/.hidden", b"x")
    with pytest.raises(NotFound):
        view(registry, "m.0123456789abcdef", now=0.0)
    for job in ("", "m", "m.", "m.0123", "M.0123456789abcdef", "../m.0123456789abcdef"):
        with pytest.raises(InvalidName):
            view(registry, job, now=0.0)
