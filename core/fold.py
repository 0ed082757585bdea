"""Which entry may follow in a ledger, and what each entry does to the state.

No I/O, no clock, no randomness: two readers of the same log hold the same state. Times in entries are recorded,
never compared, so no rule depends on anybody's clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from core.errors import Conflict
from core.keys import is_name, is_version
from core.state import PREVIOUS, PRODUCTION, Alias, Move, Source, Split, State, Version, op_key, splits_of

MAX_COVERS = 500
MAX_SPLITS = 10
_SRC = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check(state: State, entry: Mapping[str, Any]) -> None:
    """Return if `entry` may follow in this state; never changes it. Raises Conflict, naming the broken `rule`."""
    _fields(entry, _ENVELOPE)
    op = entry["op"]
    _rule(op in _OPS, "malformed", "unknown op")
    _rule(
        entry["n"] == state.head + 1 and entry["prev"] == state.hash, "chain", "the entry does not follow the head"
    )
    _rule(op_key(entry["op_id"]) not in state.ops, "op_id", "this op id is already in the log")
    fields, legal, _ = _OPS[op]
    _fields(entry, fields)
    legal(state, entry)


def fold(state: State, entry: Mapping[str, Any], digest: str) -> None:
    """Advance `state` by one entry whose bytes have sha256 `digest`. If illegal: Conflict, and no change."""
    check(state, entry)
    _OPS[entry["op"]][2](state, entry)
    state.ops[op_key(entry["op_id"])] = entry["n"]
    state.head, state.hash = entry["n"], digest


def _rule(holds: bool, rule: str, message: str) -> None:
    if not holds:
        raise Conflict(message, rule=rule)


def _fields(entry: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, kind in fields.items():
        value = entry.get(name)
        _rule(isinstance(value, kind) and not isinstance(value, bool), "malformed", f"{name} is missing or wrong")


# --- sources


def _targets(entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the (source, attempt) pairs of an outcome: its own and those it covers."""
    covers = entry.get("covers", {})
    _rule(isinstance(covers, dict) and len(covers) <= MAX_COVERS, "malformed", "covers is wrong or too long")
    _rule(entry["src"] not in covers, "malformed", "a source covers itself")
    return [(entry["src"], entry["attempt"]), *covers.items()]


def _claims(entry: Mapping[str, Any]) -> Iterable[tuple[str, int, str]]:
    """Yield (source, attempt, key) of a claim: its own and those it covers."""
    yield entry["src"], entry["attempt"], entry["key"]
    for src, told in _targets(entry)[1:]:
        _rule(
            isinstance(told, list) and len(told) == 2, "malformed", "covers needs [attempt, key] for each source"
        )
        yield src, told[0], told[1]


def _check_claim(state: State, entry: Mapping[str, Any]) -> None:
    for src, attempt, key in _claims(entry):
        _rule(_SRC.fullmatch(src) is not None and isinstance(key, str), "malformed", "src or key is wrong")
        source = state.sources.get(src)
        _rule(source is None or source.status == "claimed", "done", "the source has its outcome")
        latest = source.attempt if source else 0
        _rule(type(attempt) is int and attempt == latest + 1, "attempt", "the attempt is not the next one")


def _apply_claim(state: State, entry: Mapping[str, Any]) -> None:
    for src, attempt, key in _claims(entry):
        tail = (None, "", entry["actor"], entry["ts"], entry["n"])
        state.sources[src] = Source(attempt, entry["until"], "claimed", key, entry["kind"], *tail)
        state.open.add(src)


def _check_outcome(state: State, entry: Mapping[str, Any]) -> None:
    """Fencing: only the latest attempt of a source without an outcome may give it one."""
    for src, attempt in _targets(entry):
        source = state.sources.get(src)
        if source is None:
            raise Conflict("the source was never claimed", rule="unclaimed")
        _rule(source.status == "claimed", "done", "the source has its outcome")
        _rule(type(attempt) is int and attempt == source.attempt, "fenced", "a later attempt holds the source")


def _check_reject(state: State, entry: Mapping[str, Any]) -> None:
    """Attempt 0 rejects a source that nobody claimed (superseded or gone before anyone looked)."""
    if entry["attempt"] or entry["src"] in state.sources:
        return _check_outcome(state, entry)
    _fields(entry, {"key": str, "kind": str})
    _rule(_SRC.fullmatch(entry["src"]) is not None, "malformed", "src is wrong")
    return _rule(not entry.get("covers"), "malformed", "an unclaimed source covers nothing")


def _outcome(status: str) -> Callable[[State, Mapping[str, Any]], None]:
    def apply(state: State, entry: Mapping[str, Any]) -> None:
        for src, attempt in _targets(entry):
            source = state.sources.get(src) or Source(
                attempt, 0.0, status, entry["key"], entry["kind"], None, "", "", 0.0, 0
            )
            state.sources[src] = source._replace(
                status=status,
                version=entry["version"] if status == "published" else None,
                reason=entry["reason"],
                actor=entry["actor"],
                ts=entry["ts"],
                n=entry["n"],
            )
            state.open.discard(src)

    return apply


# --- versions


def _check_publish(state: State, entry: Mapping[str, Any]) -> None:
    _check_outcome(state, entry)
    version = entry["version"]
    _rule(is_version(version), "malformed", "not a version id")
    _rule(version not in state.versions, "exists", "the version is already published")
    own = f"reg/{state.model}/art/{entry['src'][:12]}/{entry['attempt']}/"
    _rule(entry["artifact_key"].startswith(own), "malformed", "the artifact is not under its source and attempt")
    _rule(_SHA256.fullmatch(entry["manifest_sha256"]) is not None, "malformed", "manifest_sha256 is wrong")
    for part in entry["parts"]:
        _rule(isinstance(part, dict), "malformed", "a part is not an object")
        _fields(part, {"key": str, "sha256": str})
        # a part of nobody may be collected at any time; once that is so, no later entry can bring it back
        mine = part["key"].startswith(own) or part["key"] in state.live_parts
        _rule(mine, "part", "a part belongs to no unretired version")


def _apply_publish(state: State, entry: Mapping[str, Any]) -> None:
    _outcome("published")(state, entry)
    parts = tuple(entry["parts"])
    state.versions[entry["version"]] = Version(
        entry["src"],
        entry["attempt"],
        entry["manifest_sha256"],
        entry["artifact_key"],
        entry["size"],
        entry["metrics"],
        parts,
        entry["ts"],
        entry["n"],
    )
    state.count_parts(parts, 1)
    state.open.add(entry["src"])


def _check_retire(state: State, entry: Mapping[str, Any]) -> None:
    _rule(_is_live(state, entry["version"]), "version", "no such version, or already retired")
    held = [
        name for name, alias in state.aliases.items() for split in alias.splits if split[0] == entry["version"]
    ]
    if held:
        raise Conflict("an alias points to the version", rule="in_use", aliases=held)


def _apply_retire(state: State, entry: Mapping[str, Any]) -> None:
    version = state.versions[entry["version"]]
    state.versions[entry["version"]] = version._replace(retired=entry["ts"])
    state.count_parts(version.parts, -1)
    state.open.discard(version.src)


def _is_live(state: State, name: Any) -> bool:
    version = state.versions.get(name) if isinstance(name, str) else None
    return version is not None and version.retired is None


# --- aliases and notes


def _check_alias(state: State, entry: Mapping[str, Any]) -> None:
    name, splits = entry["name"], entry["splits"]
    _rule(is_name(name) and not is_version(name), "malformed", "not an alias name")
    _rule(name != PREVIOUS, "previous", "previous follows production and cannot be moved")
    rev = state.aliases[name].rev if name in state.aliases else 0
    if entry["expect_rev"] != rev:
        raise Conflict("the alias has moved since it was read", rule="stale_rev", rev=rev)
    _rule(0 < len(splits) <= MAX_SPLITS, "malformed", "an alias needs one to ten splits")
    for split in splits:
        _rule(isinstance(split, dict), "malformed", "a split is not an object")
        _fields(split, {"version": str, "weight": int})
        _rule(split["weight"] > 0, "malformed", "a weight must be positive")
        _rule(_is_live(state, split["version"]), "version", "no such version, or retired")
    _rule(len({split["version"] for split in splits}) == len(splits), "malformed", "a version stands twice")
    _check_gate(state, entry)


def _check_gate(state: State, entry: Mapping[str, Any]) -> None:
    """A verdict names its version, or the entry has only one."""
    if "gate" in entry:
        _rule(isinstance(entry["gate"], dict), "malformed", "gate is not an object")
        _rule(_gated(entry) in state.versions, "version", "the verdict is for no published version")


def _gated(entry: Mapping[str, Any]) -> Any:
    splits = entry.get("splits") if entry.get("op") == "alias" else None  # of an alias entry they were checked
    only = splits[0]["version"] if splits and len(splits) == 1 else None
    named = entry["gate"].get("version") or entry.get("version") or only
    return named if isinstance(named, str) else None


def _apply_alias(state: State, entry: Mapping[str, Any]) -> None:
    splits = splits_of(entry["splits"])
    former = state.aliases.get(entry["name"])
    _point(state, entry["name"], splits, entry)
    if entry["name"] == PRODUCTION and former and former.splits != splits:
        _point(state, PREVIOUS, former.splits, entry)
    for split in splits:
        state.open.discard(state.versions[split.version].src)
    _apply_gate(state, entry)


def _point(state: State, name: str, splits: tuple[Split, ...], entry: Mapping[str, Any]) -> None:
    rev = state.aliases[name].rev if name in state.aliases else 0
    state.aliases[name] = Alias(rev + 1, splits, entry["n"], entry["ts"])
    state.moves.append(Move(entry["n"], entry["ts"], name, splits))


def _apply_gate(state: State, entry: Mapping[str, Any]) -> None:
    if "gate" in entry:
        version = state.versions[_gated(entry)]
        state.versions[_gated(entry)] = version._replace(gate=entry["gate"])
        state.open.discard(version.src)


def _check_note(state: State, entry: Mapping[str, Any]) -> None:
    """A note with `src` gives up a lease early: `until` is then when the next attempt may start."""
    if "src" in entry:
        _fields(entry, {"src": str, "attempt": int, "until": (int, float)})
        _check_outcome(state, entry)
    _check_gate(state, entry)


def _apply_note(state: State, entry: Mapping[str, Any]) -> None:
    for src, _ in _targets(entry) if "src" in entry else ():
        told = {"until": entry["until"], "reason": entry["reason"], "n": entry["n"]}
        state.sources[src] = state.sources[src]._replace(**told)
    _apply_gate(state, entry)


_NUMBER = (int, float)
_ENVELOPE: dict[str, type | tuple[type, ...]] = {
    "n": int,
    "prev": str,
    "op": str,
    "op_id": str,
    "actor": str,
    "role": str,
    "reason": str,
    "ts": _NUMBER,
}
_OUTCOME: dict[str, type | tuple[type, ...]] = {"src": str, "attempt": int}
_PUBLISH: dict[str, type | tuple[type, ...]] = {
    **_OUTCOME,
    "version": str,
    "manifest_sha256": str,
    "artifact_key": str,
    "size": int,
    "metrics": dict,
    "parts": list,
}
_Rule = Callable[[State, Mapping[str, Any]], None]
_OPS: dict[str, tuple[dict[str, type | tuple[type, ...]], _Rule, _Rule]] = {
    "claim": ({**_OUTCOME, "until": _NUMBER, "key": str, "kind": str}, _check_claim, _apply_claim),
    "reject": (_OUTCOME, _check_reject, _outcome("rejected")),
    "park": (_OUTCOME, _check_outcome, _outcome("parked")),
    "publish": (_PUBLISH, _check_publish, _apply_publish),
    "retire": ({"version": str}, _check_retire, _apply_retire),
    "alias": ({"name": str, "expect_rev": int, "splits": list}, _check_alias, _apply_alias),
    "note": ({}, _check_note, _apply_note),
}
