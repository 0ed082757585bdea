"""What may not differ between core's answer and what a client gets through an entry point."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.entry_point import App, EntryPoint, Refused
from tests.conformance.exchange import Answer, Script, Wire
from tests.conformance.golden import Golden, staged

COMPARED = (
    *("content-type", "content-encoding", "content-security-policy", "cache-control", "x-content-type-options"),
    *("x-model-name", "x-model-version", "x-request-id", "www-authenticate", "allow", "retry-after", "location"),
    *("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"),
    *("access-control-expose-headers", "access-control-max-age", "vary"),
)


def replay(entry: EntryPoint, script: Script, found: list[Golden]) -> Iterator[str]:
    """Yield the differences between golden answers and those that come through an entry point."""
    stage = staged(script)
    for golden in found:
        exchange = golden.exchange
        stage.prepare(exchange)
        wire = stage.filled(exchange.request)
        for line in _exchanged(entry, stage.app, wire, golden):
            yield f"{exchange.name}: {line}"


def _exchanged(entry: EntryPoint, app: App, wire: Wire, golden: Golden) -> Iterator[str]:
    expected = golden.expected(entry.name)
    try:
        answer = entry.send(app, wire)
    except Refused as refused:
        told = golden.exchange.unlike[entry.name].refused if expected is None else 0
        if told != refused.status:
            yield f"the platform refuses with {refused.status}, which the exchange does not tell"
        return
    if expected is None:
        yield "the platform should refuse this by itself"
        return
    yield from differences(entry, wire.method, expected, answer)


def differences(entry: EntryPoint, method: str, expected: Answer, answer: Answer) -> Iterator[str]:
    """Yield how an answer differs from the expected one in status, headers that matter, and body."""
    if answer.status != expected.status:
        yield f"status {answer.status} instead of {expected.status}"
    for name in COMPARED:
        wanted, got = expected.header(name), answer.header(entry.renamed.get(name, name))
        if wanted != got and not (wanted is None and name in entry.added):
            yield f"{name}: {got!r} instead of {wanted!r}"
    if answer.body != expected.body:
        yield f"body {answer.body[:80]!r} instead of {expected.body[:80]!r}"
    length = answer.header("content-length")
    if length is not None and _is_false(int(length), method, answer):
        yield f"content-length {length} for {len(answer.body)} bytes"


def _is_false(length: int, method: str, answer: Answer) -> bool:
    """Tell whether a length is wrong; of what HEAD leaves out it is not known, but it is never nothing."""
    return length == 0 if method == "HEAD" and answer.status == 200 else length != len(answer.body)
