"""Checkpoints: a cold start is short, and nothing that stands in one is believed without the chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import Denied, Transient
from core.keys import checkpoint_key, log_key, number_of
from core.ledger import CHECKPOINT_EVERY, canonical, digest_of, parse_entry
from core.state import State
from core.store import Blob, Entry, MemoryStore
from tests.core.ledgers import MODEL, add, filled, open_ledger, version_of


def same(a: State, b: State) -> bool:
    """Return whether two states agree in everything."""
    return all(getattr(a, name) == getattr(b, name) for name in State.__slots__)


class Counting(MemoryStore):
    """Counts the reads."""

    reads = 0

    def get(self, key: str, token: str | None = None) -> Blob:
        self.reads += 1
        return super().get(key, token)


def copied(store: MemoryStore, into: MemoryStore | None = None) -> MemoryStore:
    """Return a copy of a store."""
    target = into or MemoryStore()
    for entry in store.list(""):
        target.put(entry.key, store.get(entry.key).data)
    return target


@pytest.mark.parametrize("count", [1, 63, 64, 65, 66, 127, 128, 129, 130, 300])
def test_a_cold_start_reads_a_checkpoint_and_at_most_64_entries(count: int) -> None:
    store, ledger = filled(count)
    cold = copied(store, Counting())
    assert isinstance(cold, Counting)
    state = open_ledger(cold).refresh()
    assert same(state, ledger.refresh())
    assert cold.reads <= CHECKPOINT_EVERY + 4


def test_checkpoints_are_pinned_by_the_chain() -> None:
    store, _ = filled(140)
    numbers = [number_of(entry.key) for entry in store.list("reg/m/ckpt/")]
    assert numbers == [63, 127]
    for n in (63, 127):
        pin = parse_entry(store.get(log_key(MODEL, n + 1)).data)["ckpt"]
        assert pin == digest_of(store.get(checkpoint_key(MODEL, n)).data)


def _forged(body: bytes) -> bytes:
    """A checkpoint whose own hash is right but whose state is not."""
    document = json.loads(body)
    document["state"]["aliases"]["production"][1] = [[version_of("s1"), 100]]
    return canonical(document)


DAMAGE = {
    "a flipped bit": lambda body: bytes([body[0] ^ 1]) + body[1:],
    "a late flipped bit": lambda body: body[:-30] + bytes([body[-30] ^ 1]) + body[-29:],
    "half of it": lambda body: body[: len(body) // 2],
    "nothing": lambda body: b"",
    "a forged state": _forged,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_forged_checkpoint_is_ignored(name: str) -> None:
    store, ledger = filled(140)
    for n in (63, 127):
        store.put(checkpoint_key(MODEL, n), DAMAGE[name](store.get(checkpoint_key(MODEL, n)).data))
    assert same(open_ledger(store).refresh(), ledger.refresh())


@pytest.mark.parametrize("change", [{"format": 99}, {"state": None}, {"state": {}}, {"n": 5}])
def test_a_checkpoint_of_another_form_is_ignored_even_if_the_chain_names_it(change: dict[str, Any]) -> None:
    """As a newer or an older version of the code would write it."""
    store = MemoryStore()
    ledger = open_ledger(store)
    add(ledger, *[{"op": "note"}] * 65)
    body = canonical({**json.loads(store.get(checkpoint_key(MODEL, 63)).data), **change})
    store.put(checkpoint_key(MODEL, 63), body)
    entry = parse_entry(store.get(log_key(MODEL, 64)).data)
    store.put(log_key(MODEL, 64), canonical({**entry, "ckpt": digest_of(body)}))
    state = open_ledger(store).refresh()
    assert (state.head, len(state.ops)) == (64, 65)


def test_correctness_does_not_depend_on_list() -> None:
    class Blind(MemoryStore):
        def list(self, prefix: str) -> Iterator[Entry]:
            raise Denied("no")

    store, ledger = filled(140)
    blind = copied(store, Blind())
    assert same(open_ledger(blind).refresh(), ledger.refresh())

    class Empty(MemoryStore):
        def list(self, prefix: str) -> Iterator[Entry]:
            return iter(())

    assert same(open_ledger(copied(store, Empty())).refresh(), ledger.refresh())


def test_a_store_that_takes_no_checkpoints_still_takes_entries() -> None:
    class Picky(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            if "/ckpt/" in key:
                raise Transient("503")
            return super().put_if_absent(key, data)

    store, ledger = Picky(), None
    ledger = open_ledger(store)
    for n in range(70):
        ledger.append(lambda _: {"op": "note"}, f"{n}")
    assert open_ledger(store).refresh().head == 69
    assert list(store.list("reg/m/ckpt/")) == []


def test_a_checkpoint_whose_entry_cannot_be_read_is_passed_over() -> None:
    class Flaky(MemoryStore):
        shut = False

        def get(self, key: str, token: str | None = None) -> Blob:
            if self.shut and "/ckpt/" in key:
                raise Denied("no")
            return super().get(key, token)

    store, ledger = filled(70)
    flaky = copied(store, Flaky())
    assert isinstance(flaky, Flaky)
    flaky.shut = True
    assert same(open_ledger(flaky).refresh(), ledger.refresh())
