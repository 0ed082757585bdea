"""Timing of calls and of whole processes, paired: the two sides take turns, so that both meet the same machine."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Median cost of one process from start to exit: seconds of wall clock and CPU, peak memory in MB."""

    wall_s: float
    cpu_s: float
    rss_mb: float


def paired(
    ours: Callable[[Any], Any], theirs: Callable[[Any], Any], items: Sequence[Any], rounds: int, passes: int = 1
) -> tuple[float, float]:
    """Return the median seconds per call of both.

    In each round one side goes `passes` times through `items`, then the other: with several passes most calls
    meet the caches that a busy process has, with one they meet what the other side left.
    """
    sides: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.freeze()  # neither side pays for collecting what the benchmark itself holds
    for _ in range(rounds):
        for side, call in zip(sides, (ours, theirs), strict=True):
            for item in [item for _ in range(passes) for item in items]:
                start = time.perf_counter()
                call(item)
                side.append(time.perf_counter() - start)
    return statistics.median(sides[0]), statistics.median(sides[1])


def process(command: Sequence[str]) -> Cost:
    """Return the cost of one run, whose last line of output is its own peak memory in kB.

    (What the kernel reports for a child starts at the size of its parent.) Raises RuntimeError if it fails.
    """
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    output, message = child.communicate()
    if child.returncode:
        raise RuntimeError(message.decode(errors="replace"))
    peak_kb = float(output.split()[-1])
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak_kb / 1024)


def paired_processes(ours: Sequence[str], theirs: Sequence[str], rounds: int) -> tuple[Cost, Cost]:
    """Return the median costs of two commands run in turn (after one unmeasured run of each)."""
    runs: tuple[list[Cost], list[Cost]] = ([], [])
    for _ in range(rounds + 1):
        for side, command in zip(runs, (ours, theirs), strict=True):
            side.append(process(command))
    return _median(runs[0][1:]), _median(runs[1][1:])


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))
