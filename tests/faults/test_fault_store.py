"""The store that fails does fail, in each of its ways: a kind one would let every history pass."""

from __future__ import annotations

import io
import random

import pytest

from core.errors import Missing, Transient
from core.store import MemoryStore
from tests.faults.fault_store import BURST, Crash, FaultStore, LateWrites, Plan

CALLS = 2000
KINDS = ("nothing happened", "in flight, may land later", "it happened, the answer was lost")


class Stage:
    """A sound store, and one actor's faulty view of it."""

    def __init__(self, plan: Plan, seed: int = 1) -> None:
        rng = random.Random(seed)
        self.base, self.late, self.turns = MemoryStore(), LateWrites(rng), 0
        self.faulty = FaultStore(self.base, plan, rng=rng, late=self.late, turn=self._turn)

    def _turn(self) -> None:
        self.turns += 1

    def has(self, key: str) -> bool:
        try:
            self.base.get(key)
        except Missing:
            return False
        return True

    def create(self, key: str, data: bytes = b"mine") -> str:
        """Return "" for a write that was acknowledged, else what was said."""
        try:
            self.faulty.put_if_absent(key, data)
        except Transient as error:
            return error.message.removeprefix("injected: ")
        return ""


def test_writes_are_lost_or_late_or_lose_their_answer() -> None:
    stage = Stage(Plan(rate=0.5))
    told: dict[str, list[str]] = {kind: [] for kind in ("", *KINDS)}
    at_once = {}
    for number in range(CALLS):
        kind = stage.create(f"k{number}")
        told[kind].append(f"k{number}")
        at_once[f"k{number}"] = stage.has(f"k{number}")
    assert min(map(len, told.values())) > CALLS // 50
    lost, late, unanswered = (told[kind] for kind in KINDS)
    assert all(at_once[key] for key in told[""] + unanswered)
    assert not any(at_once[key] for key in late)
    assert not any(stage.has(key) for key in lost)
    landed = sum(stage.has(key) for key in late)
    assert landed > len(late) // 2
    stage.late.land_all()
    assert all(stage.has(key) for key in late)
    assert not any(stage.has(key) for key in lost)
    assert stage.turns == stage.faulty.calls == CALLS


def test_a_late_write_lands_while_others_go_on_and_keeps_its_condition() -> None:
    stage = Stage(Plan(rate=0.5))
    taken = 0
    for number in range(CALLS):
        key = f"k{number}"
        if stage.create(key) == KINDS[1]:
            stage.base.put_if_absent(key, b"another's")
            taken += 1
    before = len(stage.late._waiting)
    stage.late.land_all()
    assert 0 <= before < taken
    assert sum(stage.base.get(entry.key).data == b"another's" for entry in stage.base.list("k")) == taken


def test_reads_fail_or_are_cut_and_lists_miss_keys() -> None:
    stage = Stage(Plan(rate=0.5))
    for number in range(20):
        stage.base.put(f"k{number}", b"0123456789")
    cut, missed, failed = 0, 0, 0
    for _ in range(CALLS):
        try:
            cut += stage.faulty.get("k1").data == b"01234"
            missed += len(list(stage.faulty.list("k"))) < 20
            stage.faulty.head("k1")
            stage.faulty.fetch("k1", io.BytesIO())
        except Transient:
            failed += 1
    assert min(cut, missed, failed) > CALLS // 50
    assert [entry.size for entry in stage.base.list("k")] == [10] * 20


def test_a_store_that_goes_away_takes_no_write_for_a_while_and_comes_back() -> None:
    stage = Stage(Plan(rate=0.0, bursts=0.02))
    said = "".join("." if stage.create(f"k{number}") == "" else "x" for number in range(CALLS))
    away = [len(run) for run in said.split(".") if run]
    assert len(away) > 5
    assert min(away) >= BURST[0]
    assert said.count(".") > CALLS // 3
    calm = Stage(Plan(rate=0.0))
    assert {calm.create(f"k{number}") for number in range(100)} == {""}


def test_while_it_is_away_it_may_be_read_or_not() -> None:
    read = {True: 0, False: 0}
    for seed in range(40):
        stage = Stage(Plan(rate=0.0, bursts=1.0), seed)
        stage.base.put("k", b"x")
        try:
            stage.faulty.get("k")
        except Transient:
            read[False] += 1
        else:
            read[True] += 1
    assert min(read.values()) > 5


@pytest.mark.parametrize("after", [False, True])
def test_a_process_dies_at_its_call_before_the_effect_or_after_it(after: bool) -> None:
    stage = Stage(Plan(rate=0.0, crash_at=3, crash_after=after))
    stage.faulty.put("a", b"x")
    stage.faulty.put("b", b"x")
    with pytest.raises(Crash):
        stage.faulty.put("c", b"x")
    assert (stage.has("a"), stage.has("b"), stage.has("c")) == (True, True, after)
