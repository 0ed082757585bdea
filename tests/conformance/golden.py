"""The golden answers: every script played to core itself, and the files that hold what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.conformance import control, predictions, reading, refusals
from tests.conformance.exchange import Answer, Exchange, Script, asked, spelt_answer, spelt_request, to_text, told
from tests.conformance.stage import Stage

FOLDER = Path(__file__).parent / "golden"
SCRIPTS = (*predictions.SCRIPTS, *refusals.SCRIPTS, *reading.SCRIPTS, *control.SCRIPTS)


class Golden(NamedTuple):
    """What core answers to an exchange, and to what each platform that cannot carry it makes of it."""

    exchange: Exchange
    answer: Answer
    others: dict[str, Answer]

    def expected(self, entry: str) -> Answer | None:
        """Return what must come back through an entry point; None if its platform refuses by itself."""
        if entry in self.exchange.unlike and self.exchange.unlike[entry].refused:
            return None
        return self.others.get(entry, self.answer)


def perform(script: Script) -> list[Golden]:
    """Return the golden answers of a script, made by core now."""
    return [
        Golden(exchange, answer, {entry: _other(script, index, entry) for entry in _seen_otherwise(exchange)})
        for index, (exchange, answer) in enumerate(_played(script))
    ]


def staged(script: Script) -> Stage:
    """Return the fresh stage that a script starts on."""
    return Stage(**script.options, **script.settings)


def _seen_otherwise(exchange: Exchange) -> list[str]:
    return [entry for entry, unlike in exchange.unlike.items() if unlike.seen is not None]


def _played(script: Script) -> Iterator[tuple[Exchange, Answer]]:
    stage = staged(script)
    for exchange in script.exchanges:
        stage.prepare(exchange)
        yield exchange, told(stage.app(asked(stage.filled(exchange.request))))


def _other(script: Script, index: int, entry: str) -> Answer:
    """Return core's answer to what this entry point delivers in place of one exchange, on a stage of its own."""
    stage = staged(script)
    answer = Answer(0)
    for exchange in script.exchanges[: index + 1]:
        unlike = exchange.unlike.get(entry)
        wire = unlike.seen if unlike and unlike.seen else exchange.request
        stage.prepare(exchange)
        if not (unlike and unlike.refused):
            answer = told(stage.app(asked(stage.filled(wire))))
    return answer


def document(script: Script, found: list[Golden]) -> str:
    """Return the text of a script's golden file."""
    exchanges = [_spelt(golden) for golden in found]
    return to_text({"stage": {**script.options, **script.settings}, "exchanges": exchanges})


def _spelt(golden: Golden) -> dict[str, Any]:
    exchange = golden.exchange
    found: dict[str, Any] = {"name": exchange.name}
    if exchange.advance_s:
        found["advance_s"] = exchange.advance_s
    if exchange.act:
        found["act"] = exchange.act
    if exchange.faults is not None:
        found["faults"] = dict(exchange.faults)
    found["request"] = spelt_request(exchange.request)
    found["response"] = spelt_answer(golden.answer)
    if exchange.unlike:
        found["unlike"] = {entry: _spelt_other(golden, entry) for entry in exchange.unlike}
    return found


def _spelt_other(golden: Golden, entry: str) -> dict[str, Any]:
    unlike = golden.exchange.unlike[entry]
    if unlike.seen is None:
        return {"reason": unlike.reason, "refused": unlike.refused}
    seen, answer = spelt_request(unlike.seen), spelt_answer(golden.others[entry])
    return {"reason": unlike.reason, "seen": seen, "response": answer}
