"""The golden answers: that they are core's, and that they are about everything that core answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.api import ENDPOINTS, STATUS
from core.web import PROBLEM_TYPE
from tests.conformance.exchange import Answer, Exchange, Script
from tests.conformance.golden import FOLDER, SCRIPTS, document, perform

AT_LEAST = 60
# only the worker raises these; a job's answer tells them as its reason
NOT_ANSWERED = {"data_rejected"}


def _recorded() -> Iterator[dict[str, Any]]:
    for script in SCRIPTS:
        yield from json.loads((FOLDER / f"{script.name}.json").read_text(encoding="utf-8"))["exchanges"]


def _problems() -> Iterator[dict[str, Any]]:
    for exchange in _recorded():
        response = exchange["response"]
        if f"Content-Type: {PROBLEM_TYPE}" in response["headers"] and "body" in response:
            yield json.loads(response["body"]["text"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_core_answers_as_the_golden_file_says(script: Script) -> None:
    recorded = (FOLDER / f"{script.name}.json").read_text(encoding="utf-8").splitlines()
    made = document(script, perform(script)).splitlines()
    different = [(old, new) for old, new in zip(recorded, made, strict=False) if old != new]
    assert different == [], "if this is meant: python -m tests.conformance.record"
    assert len(recorded) == len(made)


def test_there_is_a_file_for_each_script_and_no_other() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {script.name for script in SCRIPTS}


def test_exchanges_are_many_and_have_names_of_their_own() -> None:
    names = [exchange["name"] for exchange in _recorded()]
    assert len(names) >= AT_LEAST
    assert len(set(names)) == len(names)


def test_every_endpoint_succeeds_in_some_exchange() -> None:
    missing = {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    for exchange in _recorded():
        method, path = exchange["request"]["method"], exchange["request"]["path"]
        for endpoint in ENDPOINTS:
            fits = endpoint.method == method and _fits(endpoint.path, path)
            if fits and exchange["response"]["status"] == endpoint.status:
                missing.discard((endpoint.method, endpoint.path))
    assert missing == set()


def _fits(template: str, path: str) -> bool:
    parts, given = template.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        part == segment or (part.startswith("{") and segment) for part, segment in zip(parts, given, strict=True)
    )


def test_every_error_is_answered_in_some_exchange_with_its_status() -> None:
    found = {problem["code"]: problem["status"] for problem in _problems()}
    assert found == {code: status for code, status in STATUS.items() if code not in NOT_ANSWERED} | {
        "internal": 500
    }


def test_no_golden_file_holds_a_token() -> None:
    assert [path.name for path in FOLDER.iterdir() if "polysky_" in path.read_text(encoding="utf-8")] == []


def test_what_a_platform_cannot_carry_is_told_with_its_reason() -> None:
    told = [unlike for exchange in _recorded() for unlike in exchange.get("unlike", {}).values()]
    assert told
    assert all(unlike["reason"] and ("seen" in unlike) != ("refused" in unlike) for unlike in told)


def test_a_changed_answer_is_noticed() -> None:
    script = Script("x", (Exchange("live", SCRIPTS[0].exchanges[0].request),))
    found = perform(script)
    changed = [found[0]._replace(answer=Answer(found[0].answer.status, found[0].answer.headers, b"{}"))]
    assert document(script, found) != document(script, changed)
