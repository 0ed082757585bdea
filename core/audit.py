"""Checking a whole log: dense numbers, an unbroken hash chain, only legal entries."""

from __future__ import annotations

from typing import Any

from core.errors import Conflict, Missing
from core.fold import fold
from core.keys import checkpoint_prefix, log_key, log_prefix, number_of
from core.ledger import digest_of, parse_entry
from core.state import State
from core.store import ObjectStore
from core.tuples import NamedTuple


class Anchor(NamedTuple):
    """A head noted earlier in a place that the log's writers cannot reach: entry `n` had this sha256."""

    n: int
    hash: str


def verify(store: ObjectStore, model: str, anchor: Anchor | None = None) -> int | None:
    """Return the index of the first entry that is missing, edited, moved or foreign; None if the log is sound.

    A chain cannot vouch for its own end: without `anchor` an edit or removal of the last entries may pass.
    Raises Denied, Transient.
    """
    state, expected = State(model), _expected(store, model, anchor)
    body = _read(store, model, 0)
    while body is not None:
        following = _read(store, model, state.head + 2)
        bad = _first_bad(state, body, following, anchor)
        if bad is not None:
            return bad
        body = following
    return state.head + 1 if state.head + 1 < expected else None


def _expected(store: ObjectStore, model: str, anchor: Anchor | None) -> int:
    """Return how many entries there must be at least, by all that is told elsewhere."""
    prefixes = (log_prefix(model), checkpoint_prefix(model))
    listed = [number_of(entry.key) for prefix in prefixes for entry in store.list(prefix)]
    told = [n for n in listed if n is not None] + ([anchor.n] if anchor else [])
    return max(told, default=-1) + 1


def _read(store: ObjectStore, model: str, n: int) -> bytes | None:
    try:
        return store.get(log_key(model, n)).data
    except Missing:
        return None


def _first_bad(state: State, body: bytes, following: bytes | None, anchor: Anchor | None) -> int | None:
    """Fold entry `body` into `state`; return who is to blame if that cannot be."""
    n, digest = state.head + 1, digest_of(body)
    try:
        entry = parse_entry(body)
        if (entry.get("n"), entry.get("prev")) != (n, state.hash):
            if anchor and anchor.n == n:
                return n - 1 if n and anchor.hash == digest else n
            return n if digest == state.hash else _blame(n, entry, digest, following)
        fold(state, entry, digest)
    except (ValueError, Conflict):
        return n
    return n if anchor and anchor.n == n and anchor.hash != digest else None


def _blame(n: int, entry: dict[str, Any], digest: str, following: bytes | None) -> int:
    """Return n or n - 1: an entry whose successor knows its sha256 is itself, so the one before it is not.

    One that belongs at n - 1 was pushed on by an insertion there.
    """
    if entry.get("n") != n:
        return n - 1 if entry.get("n") == n - 1 and n else n
    return n - 1 if n and _prev(following) in (None, digest) else n


def _prev(body: bytes | None) -> Any:
    """Return the sha256 that an entry names for the one before it, None if there is no such entry."""
    try:
        return parse_entry(body).get("prev") if body is not None else None
    except ValueError:
        return None
