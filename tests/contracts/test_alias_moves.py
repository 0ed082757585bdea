"""Many writers moving aliases at once, on every store: no move is lost, and no conflict is a false one."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from core.errors import Conflict, IntegrityError, Unavailable
from core.keys import alias_key, model_key
from core.local_store import LocalStore
from core.registry import Registry
from core.store import MemoryStore, ObjectStore
from tests.contracts.store_contract import in_threads
from tests.core.ledgers import MODEL, open_registry, train
from tests.emulators.emulator import Emulator
from tests.faults.auditor import audit
from tests.faults.campaigns import scored
from tests.faults.sizes import size

WRITERS = 8
MOVES = size(4, 100)  # of each writer
SHARED = "production"


class Place:
    """A store that each writer opens for himself, as processes do."""

    def __init__(self, store: ObjectStore | None = None, emulator: Emulator | None = None) -> None:
        self._store = store
        self._emulator = emulator
        self._url = emulator.new_store_url() if emulator else ""

    def open(self) -> ObjectStore:
        if self._emulator is not None:
            return self._emulator.open(self._url)
        assert self._store is not None
        return self._store


@pytest.fixture(params=["memory", "local", "moto", "gcs", "azurite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "memory":
        return Place(MemoryStore())
    if request.param == "local":
        return Place(LocalStore(str(tmp_path), fsync=False))
    return Place(emulator=request.getfixturevalue(request.param))


class Writer:
    """Moves the shared alias, by turns from the newest revision and from the one that he has read."""

    def __init__(self, me: int, store: ObjectStore, versions: list[str]) -> None:
        self._me = me
        self._registry = Registry(
            store, clock=time.time, sleep=time.sleep, rng=random.Random(me), actor=f"writer-{me}"
        )
        self._versions = versions
        self.acked: dict[str, int] = {}  # the revision that each move led to
        self.stale = 0
        self.false: list[str] = []

    def run(self, moves: int) -> None:
        for n in range(moves):
            op_id = f"{self._me}-{n}"
            while (rev := self._moved(op_id, expected=n % 2 == 1)) is None:
                pass
            self.acked[op_id] = rev

    def _moved(self, op_id: str, *, expected: bool) -> int | None:
        """Return the revision that the move led to; None if it is to be tried again."""
        version = self._versions[(self._me + len(self.acked)) % len(self._versions)]
        rev = self._rev() if expected else None
        try:
            return self._registry.move(MODEL, SHARED, version, expect_rev=rev, op_id=op_id).rev
        except Unavailable:
            return None
        except Conflict as conflict:
            self._judge(conflict, rev)
            return None

    def _rev(self) -> int:
        aliases = self._registry.state(MODEL).aliases
        return aliases[SHARED].rev if SHARED in aliases else 0

    def _judge(self, conflict: Conflict, rev: int | None) -> None:
        """Count a conflict: it is right if the alias has moved on from the revision that was expected."""
        if rev is not None and conflict.fields.get("rule") == "stale_rev" and self._rev() > rev:
            self.stale += 1
        else:
            self.false.append(f"{conflict.message} {conflict.fields}")


def test_eight_writers_lose_no_move_and_meet_no_false_conflict(
    place: Place, request: pytest.FixtureRequest
) -> None:
    with scored(f"alias moves by eight writers: {request.node.callspec.params['place']}", WRITERS * MOVES):
        _play(place)


def _play(place: Place) -> None:
    registry = open_registry(place.open())
    versions = [train(registry, name) for name in "abc"]
    writers = [Writer(me, place.open(), versions) for me in range(WRITERS)]
    in_threads(WRITERS, lambda me: writers[me].run(MOVES))
    assert [writer.false for writer in writers] == [[]] * WRITERS
    _check_log(place.open(), writers)
    _check_documents(place.open(), WRITERS * MOVES)


def _check_log(store: ObjectStore, writers: list[Writer]) -> None:
    """Each acknowledged move stands in the log once, at the revision that its writer was told."""
    acked = {op_id: rev for writer in writers for op_id, rev in writer.acked.items()}
    assert len(acked) == WRITERS * MOVES
    registry = open_registry(store)
    assert registry.verify_log(MODEL) is None
    facts = audit(store, MODEL, acked=acked)
    log = [entry for entry in registry.history(MODEL, limit=100_000).entries if entry["op"] == "alias"]
    assert Counter(entry["op_id"] for entry in log) == Counter(list(acked))
    assert {entry["op_id"]: entry["expect_rev"] + 1 for entry in log} == acked
    assert len(facts["revs"][SHARED]) == registry.state(MODEL).aliases[SHARED].rev == WRITERS * MOVES


def _check_documents(store: ObjectStore, rev: int) -> None:
    """What the predict path reads never went ahead of the log, and one repair brings it level."""
    key = alias_key(MODEL, SHARED)
    assert json.loads(store.get(key).data)["rev"] <= rev
    registry = open_registry(store)
    registry.repair_aliases(MODEL)
    assert json.loads(store.get(key).data)["rev"] == rev


class AnyCreate(MemoryStore):
    """Creates what exists, like a bucket that heeds no condition, but for the one write that would tell."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        if key == model_key(MODEL):
            return super().put_if_absent(key, data)
        time.sleep(0.002)
        return self.put(key, data)


def test_on_a_store_that_heeds_no_condition_the_same_writers_do_lose_moves() -> None:
    with pytest.raises((AssertionError, IntegrityError)):
        _play(Place(AnyCreate()))
