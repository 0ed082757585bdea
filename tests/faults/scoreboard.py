"""The rows of the table that `make faults` prints."""

from __future__ import annotations

import json
import os


def record(goal: str, size: int, violations: int, seconds: float) -> None:
    """Append a row to the file named by POLYSKY_SCOREBOARD, if there is one."""
    path = os.environ.get("POLYSKY_SCOREBOARD")
    if path:
        row = {"goal": goal, "size": size, "violations": violations, "seconds": round(seconds, 3)}
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")
