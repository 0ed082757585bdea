"""The seeds that once showed a bug, of ours or a planted one: replayed by `make test` before anything else.

A history is what its seed makes of the simulator as it is: who changes the simulator looks for new seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.histories import run
from tests.faults.linearizability import linearizable
from tests.faults.recordings import record_history

SEEDS = Path(__file__).with_name("seeds")


def _explain(seed: int) -> None:
    assert linearizable(record_history(seed))


REPLAY: dict[str, Callable[[int], Any]] = {"histories": run, "linearizability": _explain}
FOUND = [
    pytest.param(suite, seed, id=f"{suite}-{seed}: {bug['bug']}")
    for suite in REPLAY
    for bug in json.loads((SEEDS / f"{suite}.json").read_text())
    for seed in bug["seeds"]
]


@pytest.mark.parametrize(("suite", "seed"), FOUND)
def test_what_a_seed_once_showed_is_mended(suite: str, seed: int) -> None:
    REPLAY[suite](seed)


def test_every_file_of_seeds_is_replayed() -> None:
    assert {path.stem for path in SEEDS.iterdir()} == set(REPLAY)
