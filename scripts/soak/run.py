"""A busy server on a bad disk for POLYSKY_SOAK_S seconds: prints a table; the exit code is 1 for a violation."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from scripts.soak.clients import PREVIOUS, PRODUCTION, Client, Line, Reply, Tally
from scripts.soak.field import MODEL, open_registry
from scripts.soak.machine import Machine, Memory, machine
from scripts.soak.operations import Operations, Pace
from scripts.soak.verdict import MAX_RECOVERY_S, Goal, Outage, goals, growth

CLIENTS = 4
RATE = 0.01
JOBS_TIMEOUT_S = 120.0
_EVERYWHERE = 24  # connections that have met both workers, but for one chance in 8 million
T = TypeVar("T")


class Plan(NamedTuple):
    """How long to soak, when the disk goes down and for how long, how fast clients and operators are."""

    duration_s: float
    down_at_s: float
    down_s: float
    pace: Pace
    seed: int = 1

    @classmethod
    def of(cls, duration_s: float, seed: int = 1) -> Plan:
        """Return the plan for a duration: down at half time for a fifteenth of it, 2 minutes of 30."""
        pace = Pace(min(2.0, max(0.3, duration_s / 300)), min(20.0, max(2.0, duration_s / 60)))
        return cls(duration_s, duration_s / 2, duration_s / 15, pace, seed)


def soak(plan: Plan, folder: Path) -> tuple[list[Goal], list[str]]:
    """Return the goals, and lines that tell what happened."""
    with machine(folder, rate=RATE, seed=plan.seed) as on:
        _wait_ready(on)
        stop = threading.Event()
        clients = [Client(Line(on.server.url, on.server.token), stop) for _ in range(CLIENTS)]
        operations = Operations(on, stop, plan.pace, plan.seed)
        with Memory(on, max(0.1, plan.duration_s / 1000)) as memory:
            for thread in (*clients, operations):
                thread.start()
            outage = _brown_out(on, operations, plan)
            stop.set()
            for thread in (*clients, operations):
                thread.join()
        lost = operations.unfinished(JOBS_TIMEOUT_S)
        tally = Tally()
        for client in clients:
            tally.add(client.tally)
        found = goals(tally, operations, on.store, outage)
        jobs, ends = len(operations.jobs), _outcomes(operations)
        found.append(Goal("accepted uploads with an outcome", jobs, len(lost), ends))
        recovered = f"{outage.recovery_s:.1f} s"
        found.append(Goal("recovery within 30 s", 1, int(outage.recovery_s > MAX_RECOVERY_S), recovered))
        found.append(growth(*memory.growth(), plan.duration_s))
        found += machine_goals(on)
        return found, _story(on, tally, outage)


def _wait_ready(on: Machine) -> None:
    """Wait until every worker answers for both references: from then on it may refuse nothing."""
    for ref in (PRODUCTION, PREVIOUS):
        while set(_everywhere(on, ref, lambda reply: reply.status)) != {200}:
            time.sleep(0.1)


def _brown_out(on: Machine, operations: Operations, plan: Plan) -> Outage:
    """Let the time pass, with the disk down in the middle; return how that went."""
    started = time.monotonic()
    time.sleep(plan.down_at_s)
    on.disk.take_down()
    down = time.time()
    time.sleep(plan.down_s)
    on.disk.bring_up()
    up, mended = time.time(), time.monotonic()
    with operations.hold:
        recovery_s = _recovery(on, operations, mended)
    time.sleep(max(0.0, started + plan.duration_s - time.monotonic()))
    return Outage(down, up, recovery_s)


def _recovery(on: Machine, operations: Operations, since: float) -> float:
    """Return the seconds until a move was taken and every worker answers with its version."""
    while time.monotonic() - since < 2 * MAX_RECOVERY_S:
        target = operations.versions()[-1]
        if operations.promote(target) and _follow(on, target, since):
            return time.monotonic() - since
    return 2 * MAX_RECOVERY_S


def _follow(on: Machine, target: str, since: float) -> bool:
    """Tell whether all workers came to answer with `target`; False if a finished job took production meanwhile."""
    while time.monotonic() - since < 2 * MAX_RECOVERY_S:
        splits = open_registry(on.store).state(MODEL).aliases[PRODUCTION].splits
        if [split.version for split in splits] != [target]:
            return False
        if set(_everywhere(on, PRODUCTION, lambda reply: reply.headers.get("x-model-version"))) == {target}:
            return True
        time.sleep(0.1)
    return False


def _everywhere(on: Machine, ref: str, read: Callable[[Reply], T]) -> list[T]:
    """Return what is read of the answers to many new connections."""

    def ask(_: int) -> T:
        line = Line(on.server.url, on.server.token)
        try:
            return read(line.ask("POST", f"/predict/{MODEL}?version={ref}", b'{"text": "cake"}'))
        finally:
            line.close()

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, range(_EVERYWHERE)))


def machine_goals(on: Machine) -> list[Goal]:
    """Return what the machine's own logs and its disk tell."""
    by_chance, by_outage = on.disk.faults()
    ended = [str(event) for event in on.events("child_ended", "unhandled")]
    token = on.server.token.rpartition("_")[0]
    with on.log.open() as lines:
        echoed = sum(token in line for line in lines)
    return [
        Goal("the disk did fail", by_chance + by_outage, int(not (by_chance and by_outage))),
        Goal("processes that ended by themselves", 1, len(ended), ended[0] if ended else ""),
        Goal("log lines with the token", 1, echoed),
    ]


def _outcomes(operations: Operations) -> str:
    counts = Counter(operations.outcomes.values())
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def _story(on: Machine, tally: Tally, outage: Outage) -> list[str]:
    by_chance, by_outage = on.disk.faults()
    versions: Counter[str] = Counter()
    for (version, _, _), count in tally.answers.items():
        versions[version] += count
    return [
        f"predictions by version: {', '.join(f'{name} {count}' for name, count in sorted(versions.items()))}",
        f"disk: {by_chance} calls failed by chance, {by_outage} in {outage.end - outage.start:.0f} s of outage",
        f"longest answer: {tally.slowest_s:.2f} s",
    ]


def table(found: list[Goal]) -> str:
    """Return the goals as aligned lines."""
    width = max(len(goal.name) for goal in found)
    lines = [f"{'goal':<{width}} {'size':>9} {'violations':>10}"]
    lines += [f"{goal.name:<{width}} {goal.size:>9} {goal.violations:>10}  {goal.note}" for goal in found]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    """Soak, print the table; return the exit code."""
    plan = Plan.of(float(os.environ.get("POLYSKY_SOAK_S", "60")), int(os.environ.get("POLYSKY_SOAK_SEED", "1")))
    with tempfile.TemporaryDirectory(prefix="polysky-soak-") as folder:
        found, story = soak(plan, Path(folder))
    print(f"soak of {plan.duration_s:g} s, seed {plan.seed}, {CLIENTS} clients, 2 workers")
    print(table(found), *story, sep="\n")
    return int(any(goal.violations for goal in found))


if __name__ == "__main__":
    sys.exit(main())
