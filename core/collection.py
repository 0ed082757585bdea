"""Garbage collection: deletes only bytes that the log proves nobody can publish any more, and nobody reads.

What is dead stays dead: a later attempt, an outcome and a retirement are never taken back, and the fold refuses a
publication that names a dead attempt or a part of no unretired version. So the proof needs no lock and no clock,
and a LIST that misses keys only leaves more behind.
"""

from __future__ import annotations

from collections.abc import Iterator

from core.keys import artifact_prefix, checkpoint_prefix, number_of
from core.state import State, Version
from core.store import Entry, ObjectStore
from core.tuples import NamedTuple

READER_GRACE_S = 24 * 3600.0
CHECKPOINTS_KEPT = 2


class Swept(NamedTuple):
    """What a collection removed: the artifact keys, their bytes in all, and the number of old checkpoints."""

    keys: tuple[str, ...]
    size_bytes: int
    checkpoints: int


def collect(store: ObjectStore, state: State, *, now: float, reader_grace_s: float = READER_GRACE_S) -> Swept:
    """Delete what is dead in `state` and return it. `now` and `reader_grace_s` only delay: readers of a version
    that was just retired may finish. Raises Denied, Transient; what was deleted by then was dead.
    """
    dead = list(_dead(store, state, now - reader_grace_s))
    for entry in dead:
        store.delete(entry.key)
    old = _old_checkpoints(store, state)
    for key in old:
        store.delete(key)
    return Swept(tuple(entry.key for entry in dead), sum(entry.size for entry in dead), len(old))


def _dead(store: ObjectStore, state: State, before: float) -> Iterator[Entry]:
    prefix = artifact_prefix(state.model)
    kept = _kept(state, before)
    sources: dict[str, list[str]] = {}
    for src in state.sources:
        sources.setdefault(src[:12], []).append(src)
    for entry in store.list(prefix):
        src12, _, rest = entry.key[len(prefix) :].partition("/")
        attempt = rest.partition("/")[0]
        owners = sources.get(src12, [])
        known = bool(owners) and attempt.isascii() and attempt.isdigit()
        if known and entry.key not in kept and all(_over(state, src, int(attempt), before) for src in owners):
            yield entry


def _kept(state: State, before: float) -> set[str]:
    """Return the keys that an unretired, or only just retired, version needs."""
    versions = [version for version in state.versions.values() if not _gone(version, before)]
    return {
        key for version in versions for key in (version.artifact_key, *(part["key"] for part in version.parts))
    }


def _over(state: State, src: str, attempt: int, before: float) -> bool:
    """Return whether this attempt can never publish, or did and its version is gone."""
    source = state.sources[src]
    if attempt != source.attempt:
        return attempt < source.attempt or source.status != "claimed"
    if source.status == "published":
        return _gone(state.versions[source.version or ""], before)
    return source.status in ("rejected", "parked")


def _gone(version: Version, before: float) -> bool:
    return version.retired is not None and version.retired <= before


def _old_checkpoints(store: ObjectStore, state: State) -> list[str]:
    """Return the keys of all but the newest checkpoints that the log has passed."""
    keys = [entry.key for entry in store.list(checkpoint_prefix(state.model))]
    passed = sorted(key for key in keys if (n := number_of(key)) is not None and n < state.head)
    return passed[:-CHECKPOINTS_KEPT]
