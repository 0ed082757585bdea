"""Every planted bug is noticed: `python -m tests.faults.test_mutants` prints by which suite, and how soon."""

from __future__ import annotations

from collections import Counter

import pytest

import core.jobs
from tests.faults.campaigns import scored
from tests.faults.killers import Kill, kill, table
from tests.faults.mutants import MUTANTS
from tests.faults.patching import Mutant, changed_codes, planted
from tests.faults.sizes import size

PLANTED = MUTANTS[1 :: size(4, 1)] + MUTANTS[: size(0, 1)]


def test_every_planted_bug_is_noticed() -> None:
    with scored("protocol mutants", len(PLANTED)):
        survivors = [mutant.name for mutant in PLANTED if kill(mutant) is None]
        assert survivors == []


def test_there_are_bugs_in_every_part_of_the_protocol() -> None:
    told = Counter(mutant.module for mutant in MUTANTS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) > 50
    assert {"core.ledger", "core.fold", "core.registry", "core.jobs", "core.flatfile", "core.state"} < set(told)


def test_every_patch_fits_the_code() -> None:
    for mutant in MUTANTS:
        assert changed_codes(mutant), mutant.name


def test_a_harmless_change_survives_and_is_taken_back() -> None:
    source_id = core.jobs.source_id
    harmless = Mutant("as it was", "core.jobs", 'f"{key}\\n{token}"', 'f"{key}\\n{token!s}"')
    sound = source_id("k", "t"), source_id.__code__
    assert (
        kill(harmless, [{"histories": 3, "crash points": 3, "linearizability": 1, "flips": 3, "machine": 1}])
        is None
    )
    assert (source_id("k", "t"), source_id.__code__) == sound


def test_a_patch_that_does_not_fit_is_refused() -> None:
    for old in ("no such text", "return"):
        with pytest.raises(ValueError, match="times in"), planted(Mutant("x", "core.jobs", old, "")):
            raise AssertionError


def test_the_table_tells_who_noticed_what_and_how_soon() -> None:
    assert (
        table([Kill("a bug", "flips", 3, "Violation: it\nmore")]).splitlines()[1]
        == "a bug · flips · 3 · Violation: it"
    )


if __name__ == "__main__":
    print(table(filter(None, map(kill, MUTANTS))))
