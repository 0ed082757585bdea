"""What must hold once faults have stopped and a clean process has done all that waited."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from core.registry import Registry
from core.state import State
from core.store import ObjectStore
from tests.faults.auditor import Violation

MODEL = "m"


def agree(state: State, facts: dict[str, Any]) -> None:
    """What a newcomer reads, by way of a checkpoint if there is one, must be what the judge reads."""
    told = {
        "claims": {src: source.attempt for src, source in state.sources.items() if source.attempt},
        "outcome": {src: source.status for src, source in state.sources.items() if source.status != "claimed"},
        "versions": set(state.versions),
        "retired": {name for name, version in state.versions.items() if version.retired is not None},
        "aliases": {name: [tuple(split) for split in alias.splits] for name, alias in state.aliases.items()},
        "revs": {name: alias.rev for name, alias in state.aliases.items()},
        "parts": state.live_parts,
    }
    live = facts["versions"].keys() - facts["retired"]
    statuses = {"publish": "published", "reject": "rejected", "park": "parked"}
    true = {
        **{name: facts[name] for name in ("claims", "retired", "aliases")},
        "outcome": {src: statuses[op] for src, op in facts["outcome"].items()},
        "versions": set(facts["versions"]),
        "revs": {name: len(moves) for name, moves in facts["revs"].items()},
        "parts": Counter(
            key for name in live for key in {part["key"] for part in facts["versions"][name]["parts"]}
        ),
    }
    for name, value in true.items():
        if told[name] != value:
            raise Violation(f"a newcomer reads other {name} than the log tells")


def all_settled(facts: dict[str, Any], sources: Iterable[str]) -> None:
    """Every source that a finished run carried must have its outcome."""
    for src in sources:
        if src not in facts["outcome"]:
            raise Violation(f"I3 the outcome of {src} is lost")


def repeat(registry: Registry, acked: Iterable[str]) -> None:
    """What was acknowledged is done, so that calling it again does nothing."""

    def refuse(_: State) -> dict[str, Any]:
        raise Violation("I3 an operation would be done again")

    for op_id in acked:
        if registry.append(MODEL, refuse, op_id=op_id)["op_id"] != op_id:
            raise Violation("I3 an op id leads to another's entry")


def nothing_is_left(store: ObjectStore, facts: dict[str, Any]) -> None:
    """Every upload that is there has its outcome, every version had its alias, no document names lost bytes."""
    for entry in store.list(f"uploads/{MODEL}/"):
        src = hashlib.sha256(f"{entry.key}\n{entry.token}".encode()).hexdigest()[:32]
        if src not in facts["outcome"]:
            raise Violation(f"I10 {entry.key} has no outcome")
    moved = {version for moves in facts["revs"].values() for told in moves for version, _ in told}
    if waiting := set(facts["versions"]) - moved - facts["retired"]:
        raise Violation(f"I10 {waiting} never had a verdict")
    for version in facts["retired"]:
        for entry in store.list(f"reg/{MODEL}/alias/{version}.json"):
            if json.loads(store.get(entry.key).data)["splits"]:
                raise Violation(f"I8 a document still names the bytes of {version}, which is retired")


def no_orphans(store: ObjectStore, facts: dict[str, Any]) -> None:
    entries = [entry for name, entry in facts["versions"].items() if name not in facts["retired"]]
    needed = {entry["artifact_key"] for entry in entries} | {p["key"] for entry in entries for p in entry["parts"]}
    left = {entry.key for entry in store.list(f"reg/{MODEL}/art/")}
    for key in left - needed:
        raise Violation(f"orphan {key} was not collected")
