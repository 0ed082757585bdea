"""Many histories: one after another, or in two processes where they are so many that it takes minutes."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.faults.histories import DEFAULT, Setting, run
from tests.faults.scoreboard import record

CHUNK = 500
PROCESSES = 2


@contextmanager
def scored(goal: str, size: int) -> Iterator[None]:
    """Put the block's row on the scoreboard; its failure counts as a violation."""
    start, violations = time.perf_counter(), 1
    try:
        yield
        violations = 0
    finally:
        record(goal, size, violations, time.perf_counter() - start)


def campaign(seeds: Iterable[int], setting: Setting = DEFAULT) -> Counter[str]:
    """Return what happened in all of these histories; a failure names its seed."""
    told: Counter[str] = Counter()
    for seed in seeds:
        try:
            told += run(seed, setting)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    return told


def large_campaign(count: int) -> Counter[str]:
    """Return what happened in the first `count` histories in memory."""
    if count <= CHUNK:
        return campaign(range(count))
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        return sum(pool.imap_unordered(campaign, chunks), Counter())
