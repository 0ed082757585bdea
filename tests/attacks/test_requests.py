"""Hostile requests through every entry point: no 5xx, no leak, refusals in shape, one answer on all platforms."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import cache, partial
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from gunicorn.http.errors import ParseException

from core.api import ENDPOINTS, ROUTER
from core.messages import TYPES
from core.openapi import document
from core.web import Request, Response
from tests.attacks.requests import Maker, secrets_of
from tests.attacks.soundness import faults, line_faults
from tests.conformance.entry_point import App, EntryPoint, Refused
from tests.conformance.exchange import Answer, Exchange, Wire, asked, told
from tests.conformance.platforms import ENTRY_POINTS
from tests.conformance.stage import Stage
from tests.faults.scoreboard import record
from tests.faults.sizes import size

REQUESTS = size(400, 50_000)  # per entry point: half of them plain, half wild
ACT = 100  # requests until the stage is set anew
CANARY = "Cana$rY7xQ"  # neither a legal name nor a legal request id, so that it has no reason to be anywhere
DOWN = range(80, 90)  # requests of an act during which the store fails
DOCUMENT = document(ENDPOINTS)
CORE = EntryPoint("core", lambda wire: wire, lambda app, wire: app(asked(wire)), lambda wire, found: told(found))


class Heard:
    """An application that notes what it was asked and what it answered."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.request: Request | None = None
        self.response = Response(0)

    def __call__(self, request: Request) -> Response:
        self.request, self.response = request, self._app(request)
        return self.response


def acts(kind: str) -> Iterator[tuple[Stage, Maker, range]]:
    for start in range(0, REQUESTS // 2, ACT):
        stage = Stage()
        maker = Maker(DOCUMENT, stage.tokens, start * 2 + (kind == "wild"), CANARY)
        yield stage, maker, range(start, min(start + ACT, REQUESTS // 2))


def send(entry: EntryPoint, app: App, wire: Wire) -> Answer | None:
    """Return the answer, None where the platform refuses by itself."""
    try:
        return entry.send(app, wire)
    except (Refused, ParseException):
        return None


def leaked(wire: Wire, answer: Answer, stage: Stage) -> tuple[bytes, ...]:
    """Return the secrets that this answer may not hold: an admin's own reasons are in the history he asks for."""
    secrets = secrets_of(stage.tokens, CANARY)
    return tuple(secrets[1:]) if answer.status == 200 and wire.path.endswith("/history") else tuple(secrets)


def plain(entry: EntryPoint) -> tuple[list[str], list[tuple[int, str]]]:
    """Return what is wrong with the answers to plain requests, and their statuses and digests of their bodies."""
    wrong, answers = list[str](), list[tuple[int, str]]()
    for stage, maker, numbers in acts("plain"):
        for number in numbers:
            wire = maker.plain()
            stage.prepare(Exchange(f"plain-{number}", wire, advance_s=1.0))
            answer = send(entry, stage.app, wire)
            if answer is None:
                wrong.append(f"{number}: refused by the platform: {wire}")
                continue
            found = [*faults(entry, wire, answer, leaked(wire, answer, stage), down=False), *_shape(wire, answer)]
            wrong += [f"plain {number}: {text}: {wire}" for text in found]
            answers.append((answer.status, sha256(answer.body).hexdigest()))
        wrong += line_faults(stage.lines, secrets_of(stage.tokens, CANARY))
    return wrong, answers


def _shape(wire: Wire, answer: Answer) -> Iterator[str]:
    """Yield how an answer differs from what the interface says of it."""
    if answer.status >= 300 or wire.method in ("HEAD", "OPTIONS"):
        return
    gives = ROUTER.find(wire.method, wire.path).endpoint.gives
    if gives:
        try:
            msgspec.json.decode(answer.body, type=TYPES[gives])
        except msgspec.ValidationError as error:
            yield f"not a {gives}: {error}"


def wild(entry: EntryPoint) -> tuple[list[str], int]:
    """Return what is wrong with the answers to wild requests, and how many reached core."""
    wrong, reached = list[str](), 0
    for stage, maker, numbers in acts("wild"):
        for number in numbers:
            wire = maker.wild()
            down = number % ACT in DOWN
            stage.prepare(Exchange(f"wild-{number}", wire, 1.0, faults={"": "unavailable"} if down else {}))
            heard = Heard(stage.app)
            answer = send(entry, heard, wire)
            if answer is None or heard.request is None:
                continue
            reached += 1
            after = number % ACT in range(DOWN.start, DOWN.stop + 10)  # until what was remembered is forgotten
            found = list(faults(entry, wire, answer, leaked(wire, answer, stage), down=after))
            if (answer.status, answer.body) != (heard.response.status, heard.response.body):
                found.append(f"core said {heard.response.status}, the client got {answer.status}")
            wrong += [f"wild {number}: {text}: {wire}" for text in found]
        wrong += line_faults(stage.lines, secrets_of(stage.tokens, CANARY))
    return wrong, reached


@cache
def core_answers() -> list[tuple[int, str]]:
    """Return the answers that core gives without any platform."""
    wrong, answers = plain(CORE)
    assert wrong == []
    return answers


@pytest.mark.parametrize("entry", ENTRY_POINTS, ids=lambda entry: entry.name)
def test_hostile_requests_are_answered_alike_and_give_nothing_away(entry: EntryPoint) -> None:
    expected = core_answers()
    started = time.perf_counter()
    wrong, answers = plain(entry)
    unlike = [number for number, pair in enumerate(zip(answers, expected, strict=True)) if pair[0] != pair[1]]
    more, reached = wild(entry)
    violations = len(wrong) + len(more) + len(unlike)
    record(f"fuzzed requests: {entry.name}", REQUESTS, violations, time.perf_counter() - started)
    assert wrong == []
    assert unlike == []
    assert more == []
    assert reached >= REQUESTS // 4


def test_plain_requests_get_every_kind_of_answer() -> None:
    statuses = {status for status, _ in core_answers()}
    assert statuses >= {200, 202, 400, 401, 403, 404, 422}


# -- the checks can fail


def _broken(change: Any) -> EntryPoint:
    return CORE._replace(invoke=lambda app, wire: change(wire, app(asked(wire))))


BROKEN: dict[str, Any] = {
    "a bug": lambda wire, found: found._replace(status=500) if found.status == 404 else found,
    "an echo": lambda wire, found: found._replace(body=found.body + wire.body) if found.status == 422 else found,
    "a token in a header": lambda wire, found: found._replace(
        headers=(*found.headers, ("X-You", dict(wire.headers).get("Authorization", "")))
    ),
    "another shape": lambda wire, found: found._replace(body=found.body.replace(b'"code"', b'"kode"')),
    "another type": lambda wire, found: found._replace(
        headers=tuple((name, value.replace("problem+", "")) for name, value in found.headers)
    ),
    "no challenge": lambda wire, found: found._replace(
        headers=tuple(pair for pair in found.headers if pair[0] != "WWW-Authenticate")
    ),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_broken_application_is_noticed(change: Any) -> None:
    entry = _broken(change)
    stage = Stage()
    maker = Maker(DOCUMENT, stage.tokens, 0, CANARY)
    found = list[str]()
    for number in range(200):
        wire = maker.plain()
        stage.prepare(Exchange(f"broken-{number}", wire, advance_s=1.0))
        answer = send(entry, stage.app, wire)
        assert answer is not None
        try:
            found += faults(entry, wire, answer, secrets_of(stage.tokens, CANARY), down=False)
        except json.JSONDecodeError as error:
            found.append(str(error))
    assert found


def test_a_leaking_or_broken_log_is_noticed() -> None:
    check = partial(line_faults, secrets=[CANARY.encode()])
    for line in (f'{{"a": "{CANARY}"}}\n', '{"a": 1}', '{"a":\n1}\n', '{"a": "' + "x" * 300 + '"}\n', "[1]\n"):
        assert list(check([line]))
    assert list(check(['{"a": 1}\n'])) == []
