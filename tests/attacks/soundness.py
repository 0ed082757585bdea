"""What must hold of every answer and of every log line, whatever was asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from core.api import STATUS
from core.telemetry import MAX_FIELD_CHARS
from core.web import PROBLEM_TYPE, TITLES
from tests.conformance.entry_point import EntryPoint
from tests.conformance.exchange import Answer, Wire

_ALWAYS = {"type", "title", "status", "code", "detail", "request_id"}
_ASKED = {401: "www-authenticate", 405: "allow", 429: "retry-after", 503: "retry-after"}


def faults(
    entry: EntryPoint, wire: Wire, answer: Answer, secrets: Sequence[bytes], *, down: bool
) -> Iterator[str]:
    """Yield what is wrong with an answer; `down`: the store fails, so that 503 is right."""
    if answer.status >= 500 and not (down and answer.status == 503):
        yield f"status {answer.status}: {answer.body[:200]!r}"
    whole = answer.body + "\n".join(f"{name}: {value}" for name, value in answer.headers).encode()
    if any(secret in whole for secret in secrets):
        yield f"a secret in the answer: {whole[:300]!r}"
    if answer.status >= 400 and not (answer.status == 503 and wire.path.rstrip("/") == "/health/ready"):
        yield from _problem_faults(entry, wire, answer)


def _problem_faults(entry: EntryPoint, wire: Wire, answer: Answer) -> Iterator[str]:
    if answer.header("content-type") != PROBLEM_TYPE:
        yield f"{answer.status} as {answer.header('content-type')}"
    asked = _ASKED.get(answer.status, "content-type")
    if answer.header(entry.renamed.get(asked, asked)) is None:
        yield f"{answer.status} without {asked}"
    if wire.method == "HEAD":
        return
    found: dict[str, Any] = json.loads(answer.body)
    code, status = found.get("code", ""), found.get("status")
    right = (
        set(found) >= _ALWAYS
        and set(found) <= _ALWAYS | {"errors", "limit"}
        and status == answer.status == STATUS.get(code)
        and found["type"] == f"urn:polysky:problem:{code}"
        and found["title"] == TITLES[answer.status]
        and found["request_id"] == answer.header("x-request-id")
    )
    if not right:
        yield f"not the shape of a problem: {found}"


def line_faults(lines: Iterable[str], secrets: Sequence[bytes]) -> Iterator[str]:
    """Yield what is wrong with log lines: each is one JSON object of short fields, without a secret."""
    for line in lines:
        if any(secret.decode() in line for secret in secrets):
            yield f"a secret in the log: {line[:300]}"
        if not line.endswith("\n") or len(line.splitlines()) != 1:
            yield f"not one line: {line[:300]!r}"
        found = json.loads(line)
        if not isinstance(found, dict) or any(len(str(value)) > MAX_FIELD_CHARS for value in found.values()):
            yield f"not an object of short fields: {line[:300]}"
