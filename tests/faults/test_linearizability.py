"""Concurrent histories of eight clients are sequences in disguise; the checker tells disguises from lies."""

from __future__ import annotations

import ast
import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from core.errors import Transient
from core.registry import Registry
from core.store import Blob, MemoryStore
from tests.core.ledgers import MODEL, train
from tests.faults.bad_histories import LIES, spoil
from tests.faults.campaigns import scored
from tests.faults.linearizability import NEVER, Op, linearizable
from tests.faults.recordings import CLIENTS, OPERATIONS, record_history
from tests.faults.sizes import size

HISTORIES = size(30, 1000)
BAD = 20
A, B = "v-a", "v-b"


def test_recorded_histories_are_linearizable() -> None:
    told: Counter[str] = Counter()
    with scored("linearizable histories", HISTORIES):
        for seed in range(HISTORIES):
            history = record_history(seed)
            assert linearizable(history), f"seed {seed}"
            told.update(op.kind for op in history)
            told["unknown"] += sum(op.end == NEVER for op in history)
    assert told["move"] > told["publish"] > told["roll back"] > told["retire"] > HISTORIES
    assert told["unknown"] > HISTORIES // 4
    assert sum(told.values()) > 0.9 * HISTORIES * CLIENTS * OPERATIONS


def test_the_same_seed_gives_the_same_history() -> None:
    assert record_history(1) == record_history(1) != record_history(2)


def test_the_checker_rejects_twenty_of_twenty_bad_histories() -> None:
    with scored("bad histories rejected", BAD):
        assert not [number for number in range(BAD) if linearizable(bad_history(number))]


def bad_history(number: int) -> list[Op]:
    """Return a sound history with one lie in it; another one if it offers no place for that lie."""
    for seed in itertools.count(1000 * number):
        history = record_history(seed)
        spoiled = spoil(history, number)
        if spoiled is not None:
            assert linearizable(history)
            return spoiled
    raise AssertionError(LIES[number % len(LIES)])


def test_the_checker_shares_no_code_with_core() -> None:
    tree = ast.parse(Path(__file__).with_name("linearizability.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert set(names) == {"__future__", "collections.abc", "typing"}


# --- small histories that people can judge


def op(kind: str, *args: object, at: tuple[int, int], says: tuple[object, ...] | None) -> Op:
    return Op(kind, args, at[0], at[1], says)


PUBLISHED = [op("publish", A, at=(0, 1), says=("ok",)), op("publish", B, at=(2, 3), says=("ok",))]
MOVED = op("move", "production", A, 0, at=(10, 20), says=("ok", 1, A))
SILENT = op("move", "production", A, 0, at=(10, NEVER), says=None)
NEW, OLD = (1, A), (0, None)


def look(at: tuple[int, int], says: tuple[object, ...]) -> Op:
    return op("look", "production", at=at, says=says)


SOUND = {
    "nothing happened": [],
    "a read beside a move sees the old": [MOVED, look((11, 12), OLD)],
    "a read beside a move sees the new": [MOVED, look((11, 12), NEW)],
    "old, then new, beside a move": [MOVED, look((11, 12), OLD), look((13, 14), NEW)],
    "a move without an answer is seen": [SILENT, look((30, 40), NEW)],
    "a move without an answer is never seen": [SILENT, look((30, 40), OLD)],
    "a move without an answer is seen late": [SILENT, look((30, 40), OLD), look((41, 42), NEW)],
    "the later of two overlapping moves is refused": [
        MOVED,
        op("move", "production", B, 0, at=(11, 19), says=("stale", 1)),
    ],
    "a roll-back undoes": [
        MOVED,
        op("move", "production", B, 1, at=(21, 22), says=("ok", 2, B)),
        op("roll back", at=(23, 24), says=("ok", 3, A)),
        op("look", "previous", at=(25, 26), says=(2, B)),
    ],
}
UNSOUND = {
    "a read after a move sees the old": [MOVED, look((21, 22), OLD)],
    "a read before a move sees the new": [MOVED, look((5, 6), NEW)],
    "new, then old, beside a move": [MOVED, look((11, 12), NEW), look((13, 14), OLD)],
    "a move without an answer is seen and gone": [SILENT, look((30, 40), NEW), look((41, 42), OLD)],
    "a move without an answer is seen before its call": [SILENT, look((5, 6), NEW)],
    "two moves from one revision": [MOVED, op("move", "production", B, 0, at=(11, 19), says=("ok", 1, B))],
    "a version in use is retired": [MOVED, op("retire", A, at=(21, 22), says=("ok",))],
    "a move to a version that nobody published": [
        op("move", "production", "v-c", 0, at=(11, 19), says=("ok", 1, "v-c")),
    ],
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_history_is_accepted(name: str) -> None:
    assert linearizable([*PUBLISHED, *SOUND[name]])


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_history_is_rejected(name: str) -> None:
    assert not linearizable([*PUBLISHED, *UNSOUND[name]])


# --- found by these histories


class Fainting(MemoryStore):
    """Cannot be read any more once the log holds `mark`."""

    mark = b"\0"

    def get(self, key: str, token: str | None = None) -> Blob:
        if any(self.mark in body for name, (body, _) in self._objects.items() if "/log/" in name):
            raise Transient("away")
        return super().get(key, token)


def test_a_store_that_goes_away_after_the_commit_does_not_hide_it() -> None:
    store = Fainting()
    registry = Registry(store, clock=lambda: 0.0, sleep=lambda _: None, rng=random.Random(1), actor="w")
    version = train(registry, "a")
    store.mark = b'"op_id":"the move"'
    assert registry.move(MODEL, "production", version, op_id="the move").rev == 1
    store.mark = b'"op_id":"the other"'
    assert registry.move(MODEL, "production", version, op_id="the other").rev == 2
