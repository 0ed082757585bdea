"""An independent judge of what a history left in the store. Shares no code with core: reads raw objects only.

The rules are numbered as in the commit protocol: I1 dense numbers, I2 chain, I3 an acknowledged operation stands
exactly once, I4 aliases point to published, unretired versions whose bytes are there, I5 one outcome a source,
I6 attempts count the claims, I7 an alias's expected revision counts its earlier moves, I8 alias documents only
rise and say what the log says, I9 no byte is gone that an unretired version needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

PRODUCTION, PREVIOUS = "production", "previous"


class Violation(AssertionError):
    """A promise was broken."""


def audit(
    store: Any,
    model: str,
    *,
    acked: Iterable[str] = (),
    claimed: Iterable[tuple[str, int]] = (),
    documents: Any = (),
) -> dict[str, Any]:
    """Return what the log adds up to. Raises Violation."""
    entries = _chain(store, model)
    ops = [entry["op_id"] for entry in entries]
    _rule(len(ops) == len(set(ops)), "I3 an operation stands twice")
    for op_id in acked:
        _rule(op_id in ops, f"I3 acknowledged operation {op_id} is lost")
    facts = _replay(entries)
    for src, attempt in claimed:
        _rule(facts["claims"].get(src, 0) >= attempt, f"I3 acknowledged claim {attempt} of {src} is lost")
    _bytes(store, facts)
    _documents(documents, model, facts)
    return facts


def _rule(holds: bool, message: str) -> None:
    if not holds:
        raise Violation(message)


def _chain(store: Any, model: str) -> list[dict[str, Any]]:
    prefix = f"reg/{model}/log/"
    keys = [entry.key for entry in store.list(prefix)]
    _rule(keys == [f"{prefix}{n:012d}.json" for n in range(len(keys))], "I1 the numbers have a gap")
    entries, previous = [], "0" * 64
    for n, key in enumerate(keys):
        body = store.get(key).data
        entry = json.loads(body)
        _rule(entry["n"] == n and entry["prev"] == previous, f"I2 the chain breaks at {n}")
        previous = hashlib.sha256(body).hexdigest()
        entries.append(entry)
    return entries


def _replay(entries: list[dict[str, Any]]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "keys": {},
        "claims": {},
        "outcome": {},
        "versions": {},
        "retired": set(),
        "revs": {},
        "aliases": {},
    }
    facts["rollbacks"] = sum(bool(entry.get("rollback")) for entry in entries)
    facts["covered"] = sum(len(entry.get("covers", {})) for entry in entries if entry["op"] == "publish")
    for entry in entries:
        if entry["op"] in _ACTS:
            _ACTS[entry["op"]](facts, entry)
        for name, told in facts["aliases"].items():
            _rule(
                not facts["retired"] & {version for version, _ in told}, f"I4 {name} points to a retired version"
            )
    return facts


def _claim(facts: dict[str, Any], entry: dict[str, Any]) -> None:
    covers = entry.get("covers", {})
    facts["keys"] |= {entry["src"]: entry["key"], **{src: pair[1] for src, pair in covers.items()}}
    told = {entry["src"]: entry["attempt"], **{src: pair[0] for src, pair in covers.items()}}
    for src, attempt in told.items():
        _rule(src not in facts["outcome"], "I5 a finished source was claimed")
        facts["claims"][src] = facts["claims"].get(src, 0) + 1
        _rule(attempt == facts["claims"][src], "I6 an attempt is not the count of claims")


def _outcome(facts: dict[str, Any], entry: dict[str, Any]) -> None:
    for src, attempt in {entry["src"]: entry["attempt"], **entry.get("covers", {})}.items():
        _rule(src not in facts["outcome"], "I5 a source has two outcomes")
        _rule(attempt == facts["claims"].get(src, 0), "I6 a fenced attempt gave an outcome")
        facts["outcome"][src] = entry["op"]


def _note(facts: dict[str, Any], entry: dict[str, Any]) -> None:
    for src, attempt in (
        {entry["src"]: entry["attempt"], **entry.get("covers", {})}.items() if "src" in entry else ()
    ):
        _rule(src not in facts["outcome"], "I5 a finished source is worked on")
        _rule(attempt == facts["claims"].get(src, 0), "I6 a fenced attempt gave up a lease")


def _publish(facts: dict[str, Any], entry: dict[str, Any]) -> None:
    _outcome(facts, entry)
    _rule(entry["version"] not in facts["versions"], "I5 a version was published twice")
    facts["versions"][entry["version"]] = entry


def _alias(facts: dict[str, Any], entry: dict[str, Any]) -> None:
    name, told = entry["name"], [(split["version"], split["weight"]) for split in entry["splits"]]
    _rule(name != PREVIOUS, "I4 previous was moved by hand")
    _rule(len(dict(told)) == len(told) > 0, "I4 an alias points nowhere, or twice to one version")
    _rule(all(weight > 0 for _, weight in told), "I4 a weight is not positive")
    _rule(entry["expect_rev"] == len(facts["revs"].get(name, [])), "I7 a move was made from an old revision")
    for version, _ in told:
        _rule(version in facts["versions"] and version not in facts["retired"], "I4 an alias to nowhere")
    former = facts["aliases"].get(name)
    _point(facts, name, told)
    if name == PRODUCTION and former is not None and former != told:
        _point(facts, PREVIOUS, former)


def _point(facts: dict[str, Any], name: str, told: list[tuple[str, int]]) -> None:
    facts["aliases"][name] = told
    facts["revs"].setdefault(name, []).append(told)


def _retire(facts: dict[str, Any], entry: dict[str, Any]) -> None:
    _rule(entry["version"] in facts["versions"], "I4 an unknown version was retired")
    _rule(entry["version"] not in facts["retired"], "I4 a version was retired twice")
    facts["retired"].add(entry["version"])


def _bytes(store: Any, facts: dict[str, Any]) -> None:
    there = {entry.key for entry in store.list("reg/")}
    for version, entry in facts["versions"].items():
        if version in facts["retired"]:
            continue
        needed = [(entry["artifact_key"], entry["artifact_key"].rsplit("/", 1)[1])]
        for key, sha256 in needed + [(part["key"], part["sha256"]) for part in entry["parts"]]:
            _rule(key in there, f"I9 bytes of {version} are gone")
            _rule(hashlib.sha256(store.get(key).data).hexdigest() == sha256, f"I9 bytes of {version} are wrong")


def _documents(documents: Iterable[tuple[str, bytes]], model: str, facts: dict[str, Any]) -> None:
    newest: dict[str, int] = {}
    for key, body in documents:
        ref, document = key.rsplit("/", 1)[1].removesuffix(".json"), json.loads(body)
        _rule(document["rev"] >= newest.get(ref, 0), f"I8 the document of {ref} went back")
        newest[ref] = document["rev"]
        told = [(split["version"], split["weight"]) for split in document["splits"]]
        if ref in facts["revs"]:
            _rule(document["rev"] <= len(facts["revs"][ref]), f"I8 the document of {ref} is ahead of the log")
            _rule(told == facts["revs"][ref][document["rev"] - 1], f"I8 the document of {ref} tells another story")
        else:
            _rule(ref in facts["versions"], f"I8 a document of {ref}, which the log does not know")
            _rule(not told or told == [(ref, 100)], f"I8 the document of {ref} tells another story")


_ACTS = {
    "claim": _claim,
    "reject": _outcome,
    "park": _outcome,
    "note": _note,
    "publish": _publish,
    "alias": _alias,
    "retire": _retire,
}
