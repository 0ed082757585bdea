"""Garbage collection: what the log proves dead goes, everything else stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import Conflict
from core.keys import alias_key, checkpoint_key
from core.registry import Registry
from core.store import Entry, MemoryStore
from tests.core.ledgers import MODEL, Clock, claim, open_registry, src_of, train, version_of

A, B = version_of("a"), version_of("b")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def registry(store: MemoryStore, clock: Clock) -> Registry:
    registry = open_registry(store, clock)
    for name in "abc":
        train(registry, name)
        clock.now += 10
    return registry


def document(store: MemoryStore, ref: str) -> dict[str, Any]:
    """Return the alias document that the predict path would read."""
    found: dict[str, Any] = json.loads(store.get(alias_key(MODEL, ref)).data)
    return found


def part(key: str, digest: str) -> dict[str, Any]:
    return {"key": key, "sha256": digest}


def keys_of(store: MemoryStore) -> set[str]:
    """Return the keys of all artifacts."""
    return {entry.key for entry in store.list("reg/m/art/")}


def test_collection_takes_only_what_can_never_be_published(store: MemoryStore, registry: Registry) -> None:
    published = keys_of(store)
    registry.append(MODEL, lambda _: claim("x"), op_id="x1")
    stale, _ = registry.put_artifact(MODEL, src_of("x"), 1, b"first try")
    live, _ = registry.put_artifact(MODEL, src_of("x"), 2, b"second try")
    unclaimed, _ = registry.put_artifact(MODEL, src_of("nobody"), 1, b"who knows")
    store.put("reg/m/art/odd", b"")
    assert registry.collect_garbage(MODEL).keys == ()
    registry.append(MODEL, lambda _: claim("x", 2), op_id="x2")
    swept = registry.collect_garbage(MODEL)
    assert (swept.keys, swept.size_bytes) == ((stale,), len(b"first try"))
    assert keys_of(store) == {*published, live, unclaimed, "reg/m/art/odd"}
    registry.append(
        MODEL, lambda _: {"op": "park", "src": src_of("x"), "attempt": 2, "reason": "3 attempts"}, op_id="x3"
    )
    assert registry.collect_garbage(MODEL).keys == (live,)


def test_the_bytes_of_a_retired_version_stay_for_the_grace_of_its_readers(
    store: MemoryStore, registry: Registry, clock: Clock
) -> None:
    key = registry.state(MODEL).versions[A].artifact_key
    registry.retire(MODEL, A, op_id="1")
    clock.now += 23 * 3600
    assert registry.collect_garbage(MODEL).keys == ()
    clock.now += 2 * 3600
    assert registry.collect_garbage(MODEL).keys == (key,)
    assert document(store, A)["splits"] == []


def test_known_data_stays_while_any_unretired_version_needs_it(store: MemoryStore, clock: Clock) -> None:
    registry = open_registry(store, clock)
    registry.append(MODEL, lambda _: claim("a"), op_id="early")
    data = part(*registry.put_artifact(MODEL, src_of("a"), 1, b"known data"))
    registry.append(
        MODEL, lambda _: {"op": "note", "src": src_of("a"), "attempt": 1, "until": 0.0}, op_id="nothing lost"
    )
    key, digest = registry.put_artifact(MODEL, src_of("a"), 1, b"model")
    registry.publish(
        MODEL,
        src=src_of("a"),
        attempt=1,
        version=A,
        manifest_sha256=digest,
        artifact_key=key,
        size=5,
        metrics={},
        parts=[data],
        op_id="a",
    )
    train(registry, "b", parts=[data])
    registry.retire(MODEL, A, op_id="1")
    assert registry.collect_garbage(MODEL, reader_grace_s=0.0).keys == (key,)
    assert store.get(data["key"]).data == b"known data"
    registry.retire(MODEL, B, op_id="2")
    assert data["key"] in registry.collect_garbage(MODEL, reader_grace_s=0.0).keys
    with pytest.raises(Conflict, match="part"):
        train(registry, "c", parts=[data])


def test_old_checkpoints_are_collected_and_the_newest_are_kept(store: MemoryStore, registry: Registry) -> None:
    for n in range(260):
        registry.append(MODEL, lambda _: {"op": "note"}, op_id=f"note {n}")
    assert registry.collect_garbage(MODEL).checkpoints == 2
    assert [entry.key for entry in store.list("reg/m/ckpt/")] == [checkpoint_key(MODEL, n) for n in (191, 255)]
    assert open_registry(store).state(MODEL).head == registry.state(MODEL).head


def test_a_listing_that_hides_keys_only_leaves_more_behind(store: MemoryStore) -> None:
    class Hiding(MemoryStore):
        def list(self, prefix: str) -> Iterator[Entry]:
            return iter([entry for n, entry in enumerate(super().list(prefix)) if n % 2])

    hiding = Hiding()
    registry = open_registry(hiding)
    for name in "abcd":
        train(registry, name)
    before = {version.artifact_key for version in registry.state(MODEL).versions.values()}
    registry.collect_garbage(MODEL, reader_grace_s=0.0)
    assert all(hiding.get(key) for key in before)
