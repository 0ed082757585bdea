"""Every store call of publish, promote, rollback, retire, collect and reconcile as the last one of a process."""

from __future__ import annotations

import functools
import itertools
import random

import pytest

from core.registry import Registry
from core.store import MemoryStore
from tests.faults.auditor import Violation
from tests.faults.campaigns import scored
from tests.faults.crash_points import ACTS, MODEL, Facts, Point, die_and_retry, points, undisturbed
from tests.faults.places import EMULATORS, STORES, Fresh
from tests.faults.sizes import size

ALL = 10_000
SIZES = {"memory": ALL, "local": size(16, ALL), **dict.fromkeys(EMULATORS, size(1, ALL))}  # points of each scene


@functools.cache
def wanted_of(scene: str) -> Facts:
    return undisturbed(scene)


@pytest.mark.parametrize("fresh", STORES, indirect=True)
def test_one_retry_recovers_from_a_death_at_any_store_call(fresh: Fresh, request: pytest.FixtureRequest) -> None:
    store = request.node.callspec.params["fresh"]
    tried = [(scene, point) for scene in ACTS for point in drawn(scene, store)]
    with scored(f"crash points: {store}", len(tried)):
        for scene, point in tried:
            judge(scene, point, fresh)


def drawn(scene: str, store: str) -> list[Point]:
    """Return all points, or as many as this store gives time for."""
    found = points(scene)
    return random.Random(f"{scene} {store}").sample(found, min(SIZES[store], len(found)))


def judge(scene: str, point: Point, fresh: Fresh) -> None:
    try:
        die_and_retry(scene, point, fresh(), wanted_of(scene))
    except Exception as error:
        raise AssertionError(f"{scene} {point}: {type(error).__name__}: {error}") from error


def test_an_operation_has_as_many_points_as_it_makes_calls_twice() -> None:
    counts = {scene: len(points(scene)) for scene in ACTS}
    assert min(counts.values()) >= 8, counts
    assert counts["reconcile"] > counts["publish"] > counts["retire"]


# --- planted: operations that cannot be called twice, that nobody takes up again, that do not die


def test_a_retry_under_another_id_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()

    def again(registry: Registry, now: float) -> None:
        registry.rollback(MODEL, op_id=f"undo-{next(numbers)}")

    wanted = wanted_of("rollback")
    monkeypatch.setitem(ACTS, "rollback", again)
    last = points("rollback")[-1]
    with pytest.raises(Violation, match="one retry"):
        die_and_retry("rollback", last, MemoryStore(), wanted)


def test_an_operation_that_is_not_taken_up_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, act = wanted_of("retire"), ACTS["retire"]

    def once(registry: Registry, now: float) -> None:
        if registry.actor != "heir":
            act(registry, now)

    monkeypatch.setitem(ACTS, "retire", once)
    with pytest.raises(Violation, match="one retry"):
        die_and_retry("retire", Point(1, False), MemoryStore(), wanted)


def test_a_death_that_does_not_come_is_noticed() -> None:
    with pytest.raises(Violation, match="nobody died"):
        die_and_retry("retire", Point(1000, False), MemoryStore(), {})
