"""No regular expression of the product takes more than linear time: a process that tries them all has a limit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.attacks.patterns import ROOT, patterns
from tests.core.house import House, table_model

LIMIT_S = 240  # far above what it takes, far below what one quadratic pattern over all texts takes
WHILE_RUNNING = {"core/rules", "core/terms"}  # what an operator's spec says, and what is put together of constants


def tried(*given: str, limit_s: float = LIMIT_S) -> list[str]:
    """Return the places whose patterns came through. Raises TimeoutExpired."""
    command = [sys.executable, "-m", "tests.attacks.patterns", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=True)
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_every_pattern_comes_through_hostile_texts() -> None:
    found = [pattern.place for pattern in patterns() if pattern.expression is not None]
    assert tried() == found
    assert len(found) >= 40


def test_patterns_that_are_made_while_running_are_known() -> None:
    unknown = {pattern.place.partition(":")[0] for pattern in patterns() if pattern.expression is None}
    assert unknown == WHILE_RUNNING


@pytest.mark.parametrize("bad", ["(a+)+", "(a|a)*", "(.*a){12}", "(a*)*b"])
def test_a_pattern_that_goes_back_and_forth_does_not_come_through(bad: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        tried(bad, limit_s=5)


def test_a_cell_of_many_digits_that_is_no_number_is_refused_at_once() -> None:
    house = House()
    house.publish("prices", table_model())
    token = house.token()
    for cell in ("0" * 130_000 + "!", "1" * 65_000 + "." + "1" * 65_000 + "!"):
        body = f"size,town\n{cell},a\n".encode()
        sent = {"content-type": "text/csv"}
        assert house.send("POST", "/predict/prices", body, token=token, headers=sent).status == 422
