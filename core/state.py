"""What the log of one model adds up to: its sources, versions and aliases. `core.fold` moves it on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from core.tuples import NamedTuple

GENESIS = "0" * 64
PRODUCTION = "production"
PREVIOUS = "previous"


class Source(NamedTuple):
    """One upload or request: its latest attempt and outcome. `n` is the entry that last changed it.

    `status` is claimed | published | rejected | parked; `until` (advisory) is when its lease ends.
    """

    attempt: int
    until: float
    status: str
    key: str
    kind: str
    version: str | None
    reason: str
    actor: str
    ts: float
    n: int


class Version(NamedTuple):
    """A published model. `parts` are further objects it needs, each a mapping with `key` and `sha256`.

    `gate` is the verdict recorded for it, `retired` the time of its retirement; both None until they happen.
    """

    src: str
    attempt: int
    manifest_sha256: str
    artifact_key: str
    size: int
    metrics: Mapping[str, Any]
    parts: tuple[Mapping[str, Any], ...]
    created: float
    n: int
    gate: Mapping[str, Any] | None = None
    retired: float | None = None


class Split(NamedTuple):
    """A share of an alias: `weight` is relative to the sum of the alias's weights."""

    version: str
    weight: int


class Alias(NamedTuple):
    """Where an alias points since entry `n`; `rev` counts its moves."""

    rev: int
    splits: tuple[Split, ...]
    n: int
    ts: float


class Move(NamedTuple):
    """One past move of an alias."""

    n: int
    ts: float
    name: str
    splits: tuple[Split, ...]


class State:
    """The folded log of `model`: `head` is the number of its last entry (-1: none), `hash` that entry's sha256.

    `open` holds the sources that still need work (claimed, or published without a verdict); `live_parts` counts
    the unretired versions that need an object. Read-only for everybody but `fold`.
    """

    __slots__ = ("aliases", "hash", "head", "live_parts", "model", "moves", "open", "ops", "sources", "versions")

    def __init__(self, model: str) -> None:
        self.model = model
        self.head = -1
        self.hash = GENESIS
        self.ops: dict[str, int] = {}
        self.sources: dict[str, Source] = {}
        self.versions: dict[str, Version] = {}
        self.aliases: dict[str, Alias] = {}
        self.moves: list[Move] = []
        self.open: set[str] = set()
        self.live_parts: dict[str, int] = {}

    def seen(self, op_id: str) -> int | None:
        """Return the number of the entry that carries `op_id`, None if there is none."""
        return self.ops.get(op_key(op_id))

    def snapshot(self) -> State:
        """Return a copy that later folds do not change (records are immutable; `ops` is shared)."""
        copy = State(self.model)
        copy.head, copy.hash, copy.ops = self.head, self.hash, self.ops
        copy.sources, copy.versions = self.sources.copy(), self.versions.copy()
        copy.aliases, copy.moves = self.aliases.copy(), self.moves.copy()
        copy.open, copy.live_parts = self.open.copy(), self.live_parts.copy()
        return copy

    def count_parts(self, parts: Iterable[Mapping[str, Any]], step: int) -> None:
        """Add `step` to the count of unretired versions that need each part."""
        for key in {part["key"] for part in parts}:
            count = self.live_parts.get(key, 0) + step
            self.live_parts[key] = count
            if not count:
                del self.live_parts[key]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; an op id costs sixteen characters, in log order."""
        return {
            "sources": self.sources,
            "versions": self.versions,
            "aliases": self.aliases,
            "moves": self.moves,
            "ops": "".join(self.ops),
        }

    @classmethod
    def from_json(cls, model: str, head: int, digest: str, body: Mapping[str, Any]) -> State:
        """Return the state after entry `head`. Raises TypeError, KeyError, ValueError if `body` is not one."""
        state = cls(model)
        state.head, state.hash = head, digest
        ops = body["ops"]
        state.ops = {ops[16 * n : 16 * n + 16]: n for n in range(head + 1)}
        state.sources = {src: Source(*row) for src, row in body["sources"].items()}
        state.versions = {name: _version(row) for name, row in body["versions"].items()}
        state.aliases = {
            name: Alias(rev, splits_of(s), n, ts) for name, (rev, s, n, ts) in body["aliases"].items()
        }
        state.moves = [Move(n, ts, name, splits_of(splits)) for n, ts, name, splits in body["moves"]]
        state.open = _open(state)
        for version in state.versions.values():
            if version.retired is None:
                state.count_parts(version.parts, 1)
        return state


def op_key(op_id: str) -> str:
    """Return the sixteen hex digits under which the state remembers an op id."""
    return hashlib.blake2b(op_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def splits_of(rows: Iterable[Any]) -> tuple[Split, ...]:
    """Return the splits of an entry (objects) or of a checkpoint (pairs)."""
    return tuple(Split(row["version"], row["weight"]) if isinstance(row, dict) else Split(*row) for row in rows)


def _version(row: list[Any]) -> Version:
    version = Version(*row)
    return version._replace(parts=tuple(version.parts))


def _open(state: State) -> set[str]:
    """Return the sources that are claimed, or published with neither a verdict, nor an alias ever, nor retired."""
    claimed = {src for src, source in state.sources.items() if source.status == "claimed"}
    moved = {split.version for move in state.moves for split in move.splits}
    waiting = {name: v for name, v in state.versions.items() if v.gate is None and v.retired is None}
    return claimed | {version.src for name, version in waiting.items() if name not in moved}
