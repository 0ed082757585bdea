"""Jobs: finding work in the inbox, claiming it, and one outcome for each source."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import jobs
from core.errors import Conflict, CoreError, IntegrityError, InvalidName, NotFound
from core.inbox import Memo, batch_of, pending, pending_at
from core.jobs import Claim, Pending, job_id, parse_key, source_id, view
from core.keys import log_key
from core.local_store import LocalStore
from core.registry import Registry
from core.store import MemoryStore
from tests.contracts.store_contract import in_threads
from tests.core.ledgers import MODEL, Clock, open_registry

UPLOAD = "uploads/m/a.csv"
LEASE_S = 100.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def registry(store: MemoryStore, clock: Clock) -> Registry:
    return open_registry(store, clock)


def work(registry: Registry, clock: Clock, **more: Any) -> list[Pending]:
    """Return what is pending, young uploads too."""
    return pending(registry, now=clock.now, min_age_s=0.0, **more)


def taken(registry: Registry, clock: Clock, *items: Pending) -> Claim:
    """Return a claim that is there to be had."""
    held = jobs.claim(registry, items or work(registry, clock), now=clock.now, lease_s=LEASE_S)
    assert held is not None
    return held


def finish(registry: Registry, held: Claim, gate: dict[str, Any] | None = None) -> str:
    """Publish a claim's version; with `gate`, record the verdict."""
    version = "v-" + held.src[:12]
    key, digest = registry.put_artifact(held.model, held.src, held.attempt, held.src.encode())
    registry.publish(
        held.model,
        src=held.src,
        attempt=held.attempt,
        version=version,
        manifest_sha256=digest,
        artifact_key=key,
        size=32,
        metrics={},
        covers=held.covers,
        op_id=held.op_id("publish"),
    )
    if gate is not None:
        alias = "production" if gate["passed"] else "staging"
        registry.move(held.model, alias, version, op_id=f"{held.src}.gate", gate=gate)
    return version


# --- keys


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("uploads/spam/new.csv", ("spam", "upload", "new.csv")),
        ("uploads/spam/2024/05/new data.csv.gz", ("spam", "upload", "2024/05/new data.csv.gz")),
        ("uploads/spam/датa.jsonl", ("spam", "upload", "датa.jsonl")),
        ("jobs/spam/0123.json", ("spam", "job", "0123")),
    ],
)
def test_inbox_keys_are_read(key: str, found: tuple[str, str, str]) -> None:
    assert parse_key(key) == found


@pytest.mark.parametrize(
    "key",
    [
        "",
        "uploads",
        "uploads/spam",
        "uploads/spam/",
        "uploads//x.csv",
        "uploads/Spam/x.csv",
        "uploads/../x.csv",
        "uploads/spam/../../x.csv",
        "uploads/spam\\x.csv",
        "/uploads/spam/x.csv",
        "uploads/spam/.hidden.csv",
        "uploads/spam/.dir/x.csv",
        "uploads/spam/x.csv.sha256",
        "uploads/spam/x.csv.part",
        "uploads/spam/x.csv~",
        "jobs/spam/x.txt",
        "jobs/spam/deep/x.json",
        "jobs/spam/.json",
        "reg/spam/log/000000000000.json",
        "reg/spam/art/0123/1/abc",
        "reg/spam/alias/production.json",
        "auth/tokens/k.json",
    ],
)
def test_other_keys_are_nobodys_work(key: str, registry: Registry) -> None:
    assert parse_key(key) is None
    assert pending_at(registry, key, now=0.0, token="1") is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"(uploads|jobs|reg)/[a-z./\\]{0,20}"))
def test_no_key_whatever_breaks_the_parser(key: str) -> None:
    found = parse_key(key)
    assert found is None or key.startswith((f"uploads/{found.model}/", f"jobs/{found.model}/"))


def test_events_for_everything_that_the_system_writes_start_nothing(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    store.put(UPLOAD, b"x")
    finish(registry, taken(registry, clock), gate={"passed": True})
    for n in range(70):
        registry.append(MODEL, lambda _: {"op": "note"}, op_id=f"{n}")
    for entry in store.list(""):
        assert pending_at(registry, entry.key, now=1e9) is None
        assert pending_at(registry, entry.key, now=1e9, token=entry.token) is None


def test_a_source_is_one_generation_of_one_object() -> None:
    assert len(source_id("k", "t")) == 32
    assert len({source_id("k", "t"), source_id("k", "u"), source_id("l", "t"), source_id("k\nt", "")}) == 4
    assert job_id("spam", "0123456789abcdef0123456789abcdef") == "spam.0123456789abcdef"


# --- finding


def test_new_uploads_and_requests_are_found_oldest_first(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    store.put("uploads/m/b.csv", b"22")
    clock.now += 1
    store.put("jobs/m/1.json", b"{}")
    clock.now += 1
    store.put("uploads/n/a.csv", b"1")
    found = work(registry, clock)
    assert [(item.model, item.kind, item.key, item.todo, item.attempt) for item in found] == [
        ("m", "upload", "uploads/m/b.csv", "train", 1),
        ("m", "job", "jobs/m/1.json", "train", 1),
        ("n", "upload", "uploads/n/a.csv", "train", 1),
    ]
    assert (found[0].size, found[0].modified, found[0].token) == (2, 1000.0, store.head("uploads/m/b.csv").token)
    assert found[0].job_id == job_id("m", found[0].src)
    assert [item.model for item in work(registry, clock, model="n")] == ["n"]


def test_an_upload_that_may_still_grow_is_left_for_later(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    store.put(UPLOAD, b"x")
    store.put("jobs/m/1.json", b"{}")
    assert [item.kind for item in pending(registry, now=1001.0, min_age_s=2.0)] == ["job"]
    assert [item.kind for item in pending(registry, now=1002.0, min_age_s=2.0)] == ["job", "upload"]
    assert len(pending(registry, now=-1e6, min_age_s=2.0)) == 2


def test_a_claim_hides_the_work_until_its_lease_ends(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    store.put(UPLOAD, b"x")
    held = taken(registry, clock)
    assert held.until == 1000.0 + LEASE_S
    assert work(registry, clock) == []
    clock.now += LEASE_S
    assert [(item.todo, item.attempt) for item in work(registry, clock)] == [("train", 2)]


def test_finished_work_is_never_found_again(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    for name in "abc":
        store.put(f"uploads/m/{name}.csv", b"x")
    first, second, third = work(registry, clock)
    finish(registry, taken(registry, clock, first), gate={"passed": True})
    jobs.reject(registry, taken(registry, clock, second), "schema")
    jobs.settle(registry, Pending(*taken(registry, clock, third).items[0][:5], "park", 1))
    clock.now += 1e6
    assert work(registry, clock) == []


def test_a_published_version_without_a_verdict_is_found_after_the_lease(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    store.put(UPLOAD, b"x")
    version = finish(registry, taken(registry, clock))
    assert work(registry, clock) == []
    clock.now += LEASE_S
    assert [(item.todo, item.version) for item in work(registry, clock)] == [("gate", version)]
    store.delete(UPLOAD)
    assert [(item.todo, item.version, item.token) for item in work(registry, clock)] == [("gate", version, None)]
    registry.move(MODEL, "staging", version, op_id="gate", gate={"passed": False})
    assert work(registry, clock) == []


def test_three_failed_attempts_are_parked(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    store.put(UPLOAD, b"x")
    store.put("uploads/m/good.csv", b"x")
    for attempt in (1, 2, 3):
        found = [item for item in work(registry, clock) if item.key == UPLOAD]
        assert taken(registry, clock, *found).attempt == attempt
        clock.now += LEASE_S
    last = next(item for item in work(registry, clock) if item.key == UPLOAD)
    assert (last.todo, last.attempt) == ("park", 3)
    jobs.settle(registry, last)
    jobs.settle(registry, last)
    assert [item.key for item in work(registry, clock)] == ["uploads/m/good.csv"]
    assert view(registry, last.job_id, now=clock.now).status == "parked"


def test_a_replaced_upload_is_superseded_and_a_removed_one_is_gone(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    for name in "ab":
        store.put(f"uploads/m/{name}.csv", b"old")
        taken(registry, clock)
    store.put("uploads/m/a.csv", b"new")
    store.delete("uploads/m/b.csv")
    assert [item.todo for item in work(registry, clock)] == ["train"]
    clock.now += LEASE_S
    found = {(item.key, item.todo): item for item in work(registry, clock)}
    assert set(found) == {
        ("uploads/m/a.csv", "train"),
        ("uploads/m/a.csv", "reject"),
        ("uploads/m/b.csv", "reject"),
    }
    assert found["uploads/m/a.csv", "reject"].reason == "superseded"
    assert found["uploads/m/b.csv", "reject"].reason == "gone"
    for key in ("uploads/m/a.csv", "uploads/m/b.csv"):
        jobs.settle(registry, found[key, "reject"])
    assert [(item.key, item.todo) for item in work(registry, clock)] == [("uploads/m/a.csv", "train")]
    assert view(registry, found["uploads/m/b.csv", "reject"].job_id, now=0.0).reason == "gone"


def test_an_object_that_a_listing_missed_is_not_taken_for_gone(clock: Clock) -> None:
    class Hiding(MemoryStore):
        hidden = False

        def list(self, prefix: str) -> Any:
            return iter([entry for entry in super().list(prefix) if not (self.hidden and entry.key == UPLOAD)])

    store = Hiding(clock)
    registry = open_registry(store, clock)
    store.put(UPLOAD, b"x")
    taken(registry, clock)
    store.hidden = True
    clock.now += LEASE_S
    assert [(item.todo, item.attempt) for item in work(registry, clock)] == [("train", 2)]
    for _ in range(2):
        taken(registry, clock)
        clock.now += LEASE_S
    assert [item.todo for item in work(registry, clock)] == ["park"]


def test_an_event_finds_its_work_and_a_repeated_one_finds_nothing(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    token = store.put(UPLOAD, b"x")
    item = pending_at(registry, UPLOAD, now=clock.now, token=token)
    assert item is not None
    assert item == pending_at(registry, UPLOAD, now=clock.now)
    held = taken(registry, clock, item)
    assert pending_at(registry, UPLOAD, now=clock.now, token=token) is None
    finish(registry, held, gate={"passed": True})
    clock.now = 1e9
    assert pending_at(registry, UPLOAD, now=clock.now, token=token) is None


def test_an_old_event_after_a_new_upload_is_superseded(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    old = store.put(UPLOAD, b"old")
    new = store.put(UPLOAD, b"new")
    item = pending_at(registry, UPLOAD, now=clock.now, token=old)
    assert item is not None
    assert (item.todo, item.reason, item.attempt, item.token) == ("reject", "superseded", 0, None)
    jobs.settle(registry, item)
    assert pending_at(registry, UPLOAD, now=clock.now, token=old) is None
    assert view(registry, item.job_id, now=clock.now).status == "rejected"
    fresh = pending_at(registry, UPLOAD, now=clock.now, token=new)
    assert fresh is not None
    assert fresh.todo == "train"


def test_an_event_for_a_deleted_object_is_gone(store: MemoryStore, registry: Registry, clock: Clock) -> None:
    token = store.put(UPLOAD, b"x")
    held = taken(registry, clock)
    store.delete(UPLOAD)
    assert pending_at(registry, UPLOAD, now=clock.now) is None
    assert pending_at(registry, UPLOAD, now=clock.now, token=token) is None
    item = pending_at(registry, UPLOAD, now=clock.now + LEASE_S, token=token)
    assert item is not None
    assert (item.reason, item.attempt) == ("gone", held.attempt)


def test_a_memo_saves_looking_at_settled_objects_again(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    memo = Memo()
    token = store.put(UPLOAD, b"x")
    store.put("uploads/m/b.csv", b"x")
    first, second = work(registry, clock, memo=memo)
    finish(registry, taken(registry, clock, first), gate={"passed": True})
    assert work(registry, clock, memo=memo) == [second]
    entry = store.head(UPLOAD)
    assert entry.token == token
    assert memo.unsettled([entry]) == []
    store.put(UPLOAD, b"y")
    assert {item.key for item in work(registry, clock, memo=memo)} == {UPLOAD, "uploads/m/b.csv"}
    store.delete(UPLOAD)
    work(registry, clock, memo=memo)
    assert memo.unsettled([entry]) == [entry]


def test_a_model_with_a_broken_log_does_not_stop_the_others(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    store.put(UPLOAD, b"x")
    store.put("uploads/n/a.csv", b"x")
    registry.append(MODEL, lambda _: {"op": "note"}, op_id="x")
    store.put(log_key(MODEL, 0), b"damage")
    fresh = open_registry(store, clock)
    told: list[tuple[str, CoreError]] = []
    found = work(fresh, clock, on_broken=lambda model, error: told.append((model, error)))
    assert [item.model for item in found] == ["n"]
    assert [model for model, _ in told] == [MODEL]
    with pytest.raises(IntegrityError):
        work(fresh, clock)


def test_polling_over_thousands_of_settled_uploads_is_cheap(tmp_path: Path, clock: Clock) -> None:
    store = LocalStore(str(tmp_path), fsync=False)
    folder = tmp_path / "uploads" / "m"
    folder.mkdir(parents=True)
    for n in range(3000):
        (folder / f"{n}.csv").write_bytes(b"x")
        os.utime(folder / f"{n}.csv", (1, 1))
    registry, memo = open_registry(store, clock), Memo()
    for batch in batch_of(work(registry, clock, memo=memo)):
        finish(registry, taken(registry, clock, *batch), gate={"passed": True})
    assert work(registry, clock, memo=memo) == []
    start = time.process_time()
    assert work(registry, clock, memo=memo) == []
    assert time.process_time() - start < 0.5


# --- batches


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
