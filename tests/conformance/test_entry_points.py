"""One core, many doors: the golden answers come through every entry point, and a broken adapter is noticed."""

from __future__ import annotations

from functools import cache

import pytest

from tests.conformance.comparison import replay
from tests.conformance.entry_point import EntryPoint
from tests.conformance.exchange import Script
from tests.conformance.faults import ANYWHERE, OF, UNSEEN, Fault
from tests.conformance.golden import SCRIPTS, Golden, perform
from tests.conformance.platforms import ENTRY_POINTS, NAMES

BY_NAME = {script.name: script for script in SCRIPTS}
BROKEN = [
    (entry, fault)
    for entry in ENTRY_POINTS
    for fault in (*ANYWHERE, *OF[entry.name])
    if (entry.name, fault.name) not in UNSEEN
]


@cache
def golden(name: str) -> list[Golden]:
    """Return a script's golden answers, made once; test_golden holds them to the files."""
    return perform(BY_NAME[name])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
@pytest.mark.parametrize("entry", ENTRY_POINTS, ids=lambda entry: entry.name)
def test_the_golden_answers_come_through(entry: EntryPoint, script: Script) -> None:
    assert list(replay(entry, script, golden(script.name))) == []


def test_every_platform_is_there() -> None:
    assert (
        *("api-gateway-v1", "http-api-v2", "function-url", "alb", "alb-multi"),
        *("functions-framework", "azure", "onprem"),
    ) == NAMES


def test_only_known_platforms_are_told_to_differ() -> None:
    told = {name for script in SCRIPTS for exchange in script.exchanges for name in exchange.unlike}
    assert told <= set(NAMES)


@pytest.mark.parametrize(("entry", "fault"), BROKEN, ids=lambda part: part.name.replace(" ", "-"))
def test_a_broken_adapter_is_noticed(entry: EntryPoint, fault: Fault) -> None:
    broken = entry._replace(invoke=fault.wrap(entry.invoke))
    differences = (line for name in fault.scripts for line in replay(broken, BY_NAME[name], golden(name)))
    assert next(differences, None) is not None


def test_each_platform_has_faults_of_its_own() -> None:
    assert all(len(OF[name]) >= 2 for name in NAMES)
