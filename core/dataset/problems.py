"""Every problem of one file, collected so that all are reported at once."""

from __future__ import annotations

from core.errors import DataRejected, Problem
from core.schema import MAX_PROBLEMS

MAX_BAD_ROWS = 100_000  # bad rows remembered for quarantine; with more, nothing is set aside


class Problems:
    """Problems of cells, by 1-based data row. The first ten are kept, all are counted."""

    def __init__(self) -> None:
        self.shown: list[Problem] = []
        self.total = 0
        self.bad_rows: set[int] = set()
        self.kept_all_rows = True

    def add(self, message: str, field: str, row: int) -> None:
        """Note one bad cell; `row` is 0-based here and shown 1-based."""
        self.total += 1
        if len(self.bad_rows) < MAX_BAD_ROWS:
            self.bad_rows.add(row)
        else:
            self.kept_all_rows = self.kept_all_rows and row in self.bad_rows
        if len(self.shown) < MAX_PROBLEMS:
            self.shown.append(Problem(message, field[:64], row + 1))

    def rejection(self) -> DataRejected:
        """Return the error that carries them, in row order."""
        return rejected(self.shown, self.total)


def rejected(problems: list[Problem], total: int) -> DataRejected:
    """Return a schema rejection that names the first problem in its message and carries all that are shown."""
    problems = sorted(problems, key=lambda problem: problem.row or 0)
    first = problems[0]
    where = f"row {first.row}, " if first.row else ""
    more = f" (and {total - 1} more)" if total > 1 else ""
    message = f"{where}column {first.field}: {first.message}{more}"
    return DataRejected("schema", message, tuple(problems[:MAX_PROBLEMS]), total=total)
