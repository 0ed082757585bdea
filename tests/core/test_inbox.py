"""The inbox: which keys are work, and what is found when."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import jobs
from core.errors import CoreError, IntegrityError
from core.inbox import Memo, batch_of, pending, pending_at
from core.jobs import Pending, job_id, parse_key, source_id, view
from core.keys import log_key
from core.local_store import LocalStore
from core.registry import Registry
from core.store import MemoryStore
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
