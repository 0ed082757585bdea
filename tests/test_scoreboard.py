"""The table of `make faults`: it collects every sized suite, and nothing missing or broken passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.scoreboard import FOLDERS, GOALS, Goal, Row, missing, read, suites, table, verdict
from tests.faults.scoreboard import record

GOAL = Goal("tokens", "token", 100, rows=2)
GOOD = [Row("mutated tokens, ours", 60, 0, 1.0), Row("mutated Tokens, OIDC", 40, 0, 2.0)]


def test_enough_rows_without_violations_pass() -> None:
    assert verdict(GOOD, 0, [GOAL]) == []


@pytest.mark.parametrize(
    ("rows", "exit_code"),
    [
        ([], 0),
        (GOOD[:1], 0),
        ([GOOD[0], GOOD[1]._replace(size=39)], 0),
        ([GOOD[0], GOOD[1]._replace(violations=1)], 0),
        (GOOD, 1),
    ],
    ids=["nothing", "a row too few", "too small", "a violation", "a failed test"],
)
def test_what_is_missing_too_small_or_broken_fails(rows: list[Row], exit_code: int) -> None:
    assert verdict(rows, exit_code, [GOAL])


def test_every_goal_is_missed_when_no_suite_ran() -> None:
    assert len(missing([])) == len(GOALS)


def test_the_rows_that_suites_record_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = tmp_path / "board"
    assert read(board) == []
    monkeypatch.setenv("POLYSKY_SCOREBOARD", str(board))
    record("a", 3, 0, 0.1239)
    record("b", 4, 1, 2.0)
    assert read(board) == [Row("a", 3, 0, 0.124), Row("b", 4, 1, 2.0)]


def test_the_table_has_one_line_a_goal_and_the_sums() -> None:
    assert [line.split() for line in table([Row("a", 3, 1, 0.5), Row("b c", 4, 1, 2.0)]).splitlines()] == [
        ["goal", "size", "violations", "seconds"],
        ["a", "3", "1", "0.5"],
        ["b", "c", "4", "1", "2.0"],
        ["all", "2", "2.5"],
    ]


def test_sized_tests_are_collected_wherever_they_lie(tmp_path: Path) -> None:
    (tmp_path / "tests" / "core").mkdir(parents=True)
    (tmp_path / "tests" / "core" / "test_sized.py").write_text("from tests.faults.sizes import size\n")
    (tmp_path / "tests" / "core" / "test_other.py").write_text("from tests.faults.auditor import audit\n")
    assert suites(tmp_path) == [*FOLDERS, "tests/core/test_sized.py"]
    assert {"tests/contracts/test_lost_replies.py", "tests/contracts/test_alias_moves.py"} <= set(suites())
