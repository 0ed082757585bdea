"""What kills mutants: the suites of this folder, each seed by seed, the likeliest first."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from core.store import MemoryStore
from tests.faults.crash_points import ACTS, Facts, Point, die_and_retry, points, undisturbed
from tests.faults.flips import artifacts, flip, shelf
from tests.faults.histories import MENDING, Setting, run
from tests.faults.linearizability import linearizable
from tests.faults.patching import Mutant, planted
from tests.faults.recordings import record_history
from tests.faults.test_machine import RegistryMachine

MOST = 1000
EXAMPLES = 5  # of the machine, for each seed
Killer = Callable[[int], object]


class Kill(NamedTuple):
    """How a mutant died: which suite noticed it, how many seeds that took, and what it said."""

    mutant: str
    killer: str
    seeds: int
    said: str


@functools.cache
def sound() -> tuple[list[tuple[str, Point]], dict[str, Facts]]:
    """Return all crash points in a shuffled order, and where the operations lead; to be asked before planting."""
    artifacts()
    shelf()
    found = [(scene, point) for scene in ACTS for point in points(scene)]
    random.Random(0).shuffle(found)
    return found, {scene: undisturbed(scene) for scene in ACTS}


def mend(seed: int) -> None:
    """One history of actors that do little else but move aliases and mend their documents."""
    run(seed, Setting(moods=(MENDING,), rates=(0.02,), bursts=(0.0,), turns=(14,)))


def die(seed: int) -> None:
    """One crash point."""
    found, wanted = sound()
    if seed < len(found):
        scene, point = found[seed]
        die_and_retry(scene, point, MemoryStore(), wanted[scene])


def compare(seed: int) -> None:
    """One concurrent history."""
    if not linearizable(record_history(seed)):
        raise AssertionError("not linearizable")


def drive(seed: int) -> None:
    """A few examples of the state machine."""
    machine: Any = hypothesis.seed(seed)(type("Machine", (RegistryMachine,), {}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


KILLERS: dict[str, Killer] = {
    "histories": run,
    "mending": mend,
    "crash points": die,
    "linearizability": compare,
    "flips": flip,
    "machine": drive,
}
# how far each goes before the next has its turn; whoever outlives them all has to face all seeds of all
FIRST_ROUND = {"flips": 60, "crash points": 60, "histories": 40, "mending": 20, "linearizability": 5, "machine": 4}
LAST_ROUND = dict.fromkeys(("mending", "histories", "crash points", "flips", "linearizability", "machine"), MOST)


def kill(mutant: Mutant, rounds: Iterable[Mapping[str, int]] = (FIRST_ROUND, LAST_ROUND)) -> Kill | None:
    """Return how the mutant died, None if it survived all seeds."""
    sound()
    with planted(mutant):
        for seeds in rounds:
            for killer, count in seeds.items():
                for seed in range(count):
                    try:
                        KILLERS[killer](seed)
                    except Exception as error:  # noqa: BLE001 - a mutant may break in any way
                        return Kill(mutant.name, killer, seed + 1, f"{type(error).__name__}: {error}")
    return None


def table(kills: Iterable[Kill]) -> str:
    """Return who killed whom, and after how many seeds."""
    rows = [f"{kill.mutant} · {kill.killer} · {kill.seeds} · {kill.said.splitlines()[0][:80]}" for kill in kills]
    return "\n".join(["mutant · killer · seeds · what it said", *rows])
