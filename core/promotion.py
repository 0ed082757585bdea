"""From published to in use: a version's verdict at the gate, and the move of the alias that follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from core import evaluation
from core.errors import Conflict
from core.evaluation import Metrics
from core.gate import GateVerdict, Rival, decide
from core.model import Model
from core.registry import Registry
from core.shelf import Shelf, holdout_sha256, pointed_at, spec_of
from core.spec import ModelSpec
from core.state import PRODUCTION, State, Version
from core.tuples import NamedTuple

STAGING = "staging"
ACTOR = "system:gate"
_RACES = 5


class Promotion(NamedTuple):
    """Where a version is: an alias that points to it ("": none does any more), and its verdict."""

    version: str
    alias: str
    gate: dict[str, Any]


def promote(registry: Registry, shelf: Shelf, model: str, version: str, *, target: str = PRODUCTION) -> Promotion:
    """Return where the version is now: `target` if it passes the gate, else `staging`. Done once, ever.

    Champion and challenger are judged on the challenger's frozen holdout. Only `production` has a gate: for any
    other target the verdict is recorded and the alias moved. Raises Conflict if the version is retired.
    """
    for _ in range(_RACES):
        state = registry.state(model)
        done = settled(state, version)
        if done is not None:
            return done
        verdict = _judge(state, shelf, version)
        alias = target if verdict.passed or target != PRODUCTION else STAGING
        gate = {**verdict.to_dict(), "version": version}
        rev = state.aliases[alias].rev if alias in state.aliases else 0
        try:
            registry.move(
                model,
                alias,
                version,
                expect_rev=rev,
                op_id=f"{version}.gate",
                actor=ACTOR,
                reason="; ".join(verdict.reasons)[:500],
                gate=gate,
            )
        except Conflict as error:
            if error.fields.get("rule") not in ("stale_rev", "op_id"):
                raise
            continue  # another champion came first, or another worker gave the verdict
        return Promotion(version, alias, gate)
    raise Conflict("the alias moves too often to be judged against", rule="stale_rev")


def settled(state: State, version: str) -> Promotion | None:
    """Return where a version is now if its verdict is recorded."""
    gate = state.versions[version].gate
    if gate is None:
        return None
    held = [name for name, alias in state.aliases.items() if version in {split.version for split in alias.splits}]
    first = PRODUCTION if gate.get("passed") else STAGING
    return Promotion(version, first if first in held else min(held, default=""), dict(gate))


def _judge(state: State, shelf: Shelf, version: str) -> GateVerdict:
    record = state.versions[version]
    challenger = shelf.model(record)
    facts = challenger.manifest.get("facts", {})
    metrics: Metrics | None = facts.get("evaluation")
    if metrics is None or holdout_sha256(record) is None:
        reason = "it was published without a holdout and figures of its own: move the alias by hand"
        return GateVerdict(False, (reason,), "", None)
    spec = spec_of(challenger)
    name = pointed_at(state, PRODUCTION)
    champion = None if name is None else _champion(state, shelf, name, record, spec)
    if name is not None and champion is None:
        note = f"the champion {name} answers another question or takes other columns, and was not compared"
        verdict = _suspected(decide(spec.gate, metrics), facts.get("suspicion"), spec)
        return replace(verdict, reasons=(*verdict.reasons, note))
    recent = list(_judged_alike(state, record, version))
    anchor = min(recent, key=lambda rival: state.versions[rival.version].n, default=None)
    verdict = decide(spec.gate, metrics, champion=champion, recent=recent, anchor=anchor)
    return _suspected(verdict, facts.get("suspicion"), spec)


def _suspected(verdict: GateVerdict, suspicion: Mapping[str, Any] | None, spec: ModelSpec) -> GateVerdict:
    """Return the verdict, failed if what was uploaded looks wrong; where the spec allows that, with a warning.

    Wrong labels look so, and so do corrections and a world that changed: an admin may still move the alias.
    """
    if suspicion is None:
        return verdict
    compared = {**verdict.compared, "upload": {k: v for k, v in suspicion.items() if k != "reasons"}}
    doubts = tuple(suspicion["reasons"])
    if not doubts:
        return replace(verdict, compared=compared)
    if spec.gate.allow_suspicion:
        warnings = tuple(f"warning: {doubt}" for doubt in doubts)
        return replace(verdict, reasons=(*verdict.reasons, *warnings), compared=compared)
    failures = () if verdict.passed else verdict.reasons
    return replace(verdict, passed=False, reasons=(*failures, *doubts), compared=compared)


def _champion(state: State, shelf: Shelf, name: str, record: Version, spec: ModelSpec) -> Rival | None:
    """Return the champion with its metrics on the challenger's holdout, None if it cannot answer those rows."""
    former = state.versions[name]
    model = shelf.model(former)
    if not comparable(model, spec):
        return None
    known = model.manifest.get("facts", {}).get("evaluation")
    if known is None or holdout_sha256(former) != holdout_sha256(record):
        known = evaluation.evaluate_on(model, shelf.holdout(record, spec))
    return Rival(name, known)


def comparable(model: Model, spec: ModelSpec) -> bool:
    """Return whether a model can be asked about rows of this spec."""
    given = {(column.name, column.kind, column.width) for column in spec.columns}
    return model.task == spec.task and {(c.name, c.kind, c.width) for c in model.schema.columns} <= given


def _judged_alike(state: State, record: Version, version: str) -> Iterator[Rival]:
    """Yield the unretired versions that were in production, by the time they last came, judged on this holdout."""
    names = [split.version for move in state.moves if move.name == PRODUCTION for split in move.splits]
    holdout = holdout_sha256(record)
    for name in reversed(dict.fromkeys(reversed(names))):
        former = state.versions[name]
        alike = holdout is not None and holdout_sha256(former) == holdout
        if name != version and alike and former.retired is None:
            yield Rival(name, dict(former.metrics))
