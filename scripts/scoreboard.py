"""`make faults`: every suite that tries to break the promises, at full size, and one table of what came of it.

A suite is what lies in tests/faults and tests/attacks, and any other test whose size tests/faults/sizes.py sets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests/faults", "tests/attacks")
_SIZED = re.compile(r"\bPOLYSKY_FAULTS\b|tests\.faults(\.| import )(sizes|campaigns|scoreboard)\b")


class Row(NamedTuple):
    """One goal's outcome."""

    goal: str
    size: int
    violations: int
    seconds: float


class Goal(NamedTuple):
    """A promise: the words that its rows tell, how much must be tried in all of them, and in how many at least."""

    name: str
    words: str  # a regular expression
    size: int
    rows: int = 1


GOALS = (
    Goal("crash histories in memory", r"crash histor.*memory", 200_000),
    Goal("crash histories in a folder", r"crash histor.*local", 1000),
    Goal("crash histories on S3", r"crash histor.*moto", 100),
    Goal("crash histories on Cloud Storage", r"crash histor.*gcs", 100),
    Goal("crash histories on Blob storage", r"crash histor.*azurite", 100),
    Goal("crash points on every store", r"crash points", 1000, rows=4),
    Goal("linearizable histories", r"linearizab", 1000),
    Goal("bad histories rejected", r"bad histor", 20),
    Goal("mutants killed", r"mutant", 30),
    Goal("events delivered", r"^events", 10_000),
    Goal("corruptions noticed", r"corrupt", 10_000),
    Goal("malicious files", r"malicious", 500),
    Goal("fuzzed requests, each entry point", r"fuzz", 200_000, rows=4),
    Goal("mutated tokens refused", r"mutated token", 100_000),
    Goal("mutated JWTs refused", r"mutated JWT", 20_000),
    Goal("routes, roles and credentials", r"auth matrix", 100),
    Goal("the gate, 20 % of labels flipped", r"20 % flipped", 60),
    Goal("the gate, 5 % of labels flipped", r"(?<!\d)5 % flipped", 60),
    Goal("the gate, clean uploads", r"clean", 60),
    Goal("lost replies, each SDK", r"lost repl", 3000, rows=3),
    Goal("alias moves, each store", r"alias moves", 4000, rows=5),
)


def suites(root: Path = ROOT) -> list[str]:
    """Return the folders and files to run."""
    others = [
        str(path.relative_to(root))
        for path in sorted(root.glob("tests/**/test_*.py"))
        if not str(path.relative_to(root)).startswith(FOLDERS) and _SIZED.search(path.read_text())
    ]
    own = str(Path("tests", "test_scoreboard.py"))
    return [*FOLDERS, *(path for path in others if path != own)]


def read(path: Path) -> list[Row]:
    """Return the rows of a scoreboard file."""
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def missing(rows: Iterable[Row], goals: Sequence[Goal] = GOALS) -> list[str]:
    """Return the goals that no suite has told of, or not of enough, one sentence each."""
    found, rows = [], list(rows)
    for goal in goals:
        mine = [row for row in rows if re.search(goal.words, row.goal, re.IGNORECASE)]
        tried = sum(row.size for row in mine)
        if len(mine) < goal.rows or tried < goal.size:
            found.append(f"{goal.name}: {tried} of {goal.size} tried, {len(mine)} of {goal.rows} rows")
    return found


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned lines, with their sum."""
    violations, seconds = sum(row.violations for row in rows), sum(row.seconds for row in rows)
    width = max((len(row.goal) for row in rows), default=4)
    lines = [f"{'goal':<{width}} {'size':>9} {'violations':>10} {'seconds':>9}"]
    lines += [f"{row.goal:<{width}} {row.size:>9} {row.violations:>10} {row.seconds:>9.1f}" for row in rows]
    return "\n".join([*lines, f"{'all':<{width}} {'':>9} {violations:>10} {seconds:>9.1f}"])


def verdict(rows: Sequence[Row], exit_code: int, goals: Sequence[Goal] = GOALS) -> list[str]:
    """Return why the run failed, nothing if it did not; `exit_code` is pytest's."""
    found = [f"{row.goal}: {row.violations} violations" for row in rows if row.violations]
    if exit_code:
        found.append(f"pytest ended with exit code {exit_code}: see its report above")
    return found + missing(rows, goals)


def main(arguments: Sequence[str]) -> int:
    """Run the suites (`arguments` go to pytest), print the table; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        board = Path(folder, "scoreboard.jsonl")
        env = {**os.environ, "POLYSKY_FAULTS": "full", "POLYSKY_SCOREBOARD": str(board)}
        command = [sys.executable, "-m", "pytest", "--no-cov", *arguments, *suites()]
        done = subprocess.run(command, cwd=ROOT, env=env, check=False)
        rows = sorted(read(board))
    print(table(rows))
    found = verdict(rows, done.returncode)
    for line in found:
        print(f"faults: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
