"""Verifying a log: every edit, removal, swap and insertion is found, and found at its index."""

from __future__ import annotations

import random

import pytest

from core import audit
from core.errors import CoreError, Denied
from core.keys import checkpoint_key, log_key
from core.ledger import canonical, digest_of, parse_entry
from core.store import Blob, MemoryStore
from tests.core.ledgers import MODEL, filled, log_of


def with_log(bodies: list[bytes]) -> MemoryStore:
    """Return a store that holds just these entries."""
    store = MemoryStore()
    for n, body in enumerate(bodies):
        store.put(log_key(MODEL, n), body)
    return store


@pytest.fixture(scope="module")
def sound() -> list[bytes]:
    return log_of(filled(90)[0])


def anchor(bodies: list[bytes]) -> audit.Anchor:
    return audit.Anchor(len(bodies) - 1, digest_of(bodies[-1]))


def edited(body: bytes) -> bytes:
    return canonical({**parse_entry(body), "actor": "mallory"})


def test_a_sound_log_verifies(sound: list[bytes]) -> None:
    assert audit.verify(with_log(sound), MODEL) is None
    assert audit.verify(with_log(sound), MODEL, anchor(sound)) is None
    assert audit.verify(MemoryStore(), MODEL) is None


def test_every_edit_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound)):
        changed = [*sound[:n], edited(sound[n]), *sound[n + 1 :]]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == n
    for n in range(len(sound) - 1):
        changed = [*sound[:n], edited(sound[n]), *sound[n + 1 :]]
        assert audit.verify(with_log(changed), MODEL) == n


def test_an_edit_of_a_link_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound) - 1):
        entry = canonical({**parse_entry(sound[n]), "prev": "f" * 64})
        assert audit.verify(with_log([*sound[:n], entry, *sound[n + 1 :]]), MODEL) == n


def test_an_edit_of_the_last_link_is_found_at_its_index_with_an_anchor(sound: list[bytes]) -> None:
    entry = canonical({**parse_entry(sound[-1]), "prev": "f" * 64})
    assert audit.verify(with_log([*sound[:-1], entry]), MODEL, anchor(sound)) == len(sound) - 1
    last = len(sound) - 2
    changed = [*sound[:last], edited(sound[last]), sound[-1]]
    assert audit.verify(with_log(changed), MODEL, anchor(sound)) == last


def test_an_entry_that_stands_twice_is_found_at_the_second_place(sound: list[bytes]) -> None:
    for n in range(1, len(sound)):
        changed = [*sound[:n], sound[n - 1], *sound[n + 1 :]]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == n


def test_every_removal_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound)):
        store = with_log(sound)
        store.delete(log_key(MODEL, n))
        assert audit.verify(store, MODEL, anchor(sound)) == n
        closed_up = [*sound[:n], *sound[n + 1 :]]
        assert audit.verify(with_log(closed_up), MODEL, anchor(sound)) == n


def test_every_swap_is_found_at_its_first_index(sound: list[bytes]) -> None:
    rng = random.Random(5)
    for _ in range(60):
        low, high = sorted(rng.sample(range(len(sound)), 2))
        changed = list(sound)
        changed[low], changed[high] = sound[high], sound[low]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == low


def test_every_insertion_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound)):
        previous = digest_of(sound[n - 1]) if n else "0" * 64
        foreign = {**parse_entry(sound[n]), "op": "note", "op_id": "foreign", "n": n, "prev": previous}
        changed = [*sound[:n], canonical(foreign), *sound[n:]]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == n


def test_a_cut_tail_is_found_by_the_anchor_or_a_checkpoint(sound: list[bytes]) -> None:
    assert audit.verify(with_log(sound[:50]), MODEL, anchor(sound)) == 50
    assert audit.verify(with_log(sound[:50]), MODEL) is None
    store = with_log(sound[:50])
    store.put(checkpoint_key(MODEL, 63), b"{}")
    assert audit.verify(store, MODEL) == 50


@pytest.mark.parametrize("damage", [b"", b"null", b"{}", b"\xff"])
def test_an_entry_that_is_no_entry_is_found(sound: list[bytes], damage: bytes) -> None:
    for n in (0, 1, 40, len(sound) - 1):
        assert audit.verify(with_log([*sound[:n], damage, *sound[n + 1 :]]), MODEL) == n
    assert audit.verify(with_log([*sound[:40], edited(sound[40]), sound[41], damage, *sound[43:]]), MODEL) == 40


def test_an_illegal_entry_is_found_though_the_chain_holds() -> None:
    bodies = log_of(filled(5)[0])[:5]
    entry = {**parse_entry(bodies[-1]), "n": 5, "prev": digest_of(bodies[-1]), "op_id": "x"}
    assert audit.verify(with_log([*bodies, canonical(entry)]), MODEL) == 5


def test_a_verifier_without_access_does_not_call_the_log_sound() -> None:
    class Shut(MemoryStore):
        def get(self, key: str, token: str | None = None) -> Blob:
            raise Denied("no")

    with pytest.raises(CoreError):
        audit.verify(Shut(), MODEL)
