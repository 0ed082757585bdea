"""The small documents that the predict path reads: where an alias or a version points. Derived from the ledger.

They are caches: written after the commit as far as the store lets us, by compare-and-swap, and `rev` only rises.
Each carries the sha256 of its fields and key, for no chain covers it.
A published version has one too, as if it were an alias of itself: rev 1; retired: rev 2, without splits.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from core.errors import Exists, Missing, Stale, StoreError
from core.keys import alias_key, alias_prefix
from core.ledger import Backoff, canonical
from core.state import Split, State
from core.store import Blob, ObjectStore
from core.versions import document_sha256, is_whole

_TRIES = 3
_SAMPLE = 64


class AliasDocs:
    """Writes and repairs the documents of all models."""

    def __init__(self, store: ObjectStore, rng: random.Random, backoff: Backoff) -> None:
        self._store = store
        self._rng = rng
        self._backoff = backoff

    def write(self, state: State, ref: str) -> bool:
        """Write the document of `ref`, if the one in the store has a lower rev; return whether it was written.

        Tries again after Transient: until the document is there, nobody serves what was acknowledged.
        """
        fresh = _document(state, ref)
        for _ in range(_TRIES):
            try:
                return self._backoff.call(
                    lambda: self._replace(state.model, ref, fresh, self._read(state.model, ref))
                )
            except (Exists, Stale, Missing):
                continue
            except StoreError:
                break
        return False

    def repair(self, state: State, refresh: Callable[[], State], *, aliases_only: bool = False) -> list[str]:
        """Return the names of the documents that were missing, behind or damaged, and are now right.

        Of the versions' documents that are there, which nobody writes again, up to _SAMPLE are looked at, by lot.
        """
        if aliases_only:
            return [ref for ref in sorted(state.aliases) if self._mend(state.model, ref, refresh)]
        listed = {entry.key for entry in self._store.list(alias_prefix(state.model))}
        live = [name for name, version in state.versions.items() if version.retired is None]
        present = [name for name in live if alias_key(state.model, name) in listed]
        drawn = set(live) - set(present) | set(self._rng.sample(present, min(_SAMPLE, len(present))))
        wanted = (*sorted(state.aliases), *(name for name in live if name in drawn))
        return [ref for ref in wanted if self._mend(state.model, ref, refresh)]

    def _mend(self, model: str, ref: str, refresh: Callable[[], State]) -> bool:
        """Put the right document in place. The state is read after the document, so it cannot be behind it."""
        try:
            present = self._read(model, ref)
            fresh = _document(refresh(), ref)
            found = _parse(present.data, alias_key(model, ref)) if present else None
            same = found and (found["rev"], found["splits"]) == (fresh["rev"], fresh["splits"])
            if same and found and "sha256" in found:
                return False
            self._put(model, ref, fresh, present)
        except (Exists, Stale, Missing):
            return False
        return True

    def _replace(self, model: str, ref: str, fresh: dict[str, Any], present: Blob | None) -> bool:
        found = _parse(present.data, alias_key(model, ref)) if present else None
        if present and (found is None or found["rev"] >= fresh["rev"]):
            return False  # a document that cannot be read may be newer: repair() decides with a newer state
        self._put(model, ref, fresh, present)
        return True

    def _put(self, model: str, ref: str, fresh: dict[str, Any], present: Blob | None) -> None:
        key, made = alias_key(model, ref), {**fresh, "write_id": f"{self._rng.getrandbits(64):016x}"}
        body = canonical({**made, "sha256": document_sha256(made, key)})
        if present is None:
            self._store.put_if_absent(key, body)
        else:
            self._store.put_if_match(key, body, present.token)

    def _read(self, model: str, ref: str) -> Blob | None:
        try:
            return self._store.get(alias_key(model, ref))
        except Missing:
            return None


def _document(state: State, ref: str) -> dict[str, Any]:
    if ref in state.aliases:
        alias = state.aliases[ref]
        return {"rev": alias.rev, "splits": [_share(state, split) for split in alias.splits], "log_n": alias.n}
    version = state.versions[ref]
    if version.retired is not None:
        return {"rev": 2, "splits": [], "log_n": version.n}
    return {"rev": 1, "splits": [_share(state, Split(ref, 100))], "log_n": version.n}


def _share(state: State, split: Split) -> dict[str, Any]:
    version = state.versions[split.version]
    return {
        "version": split.version,
        "weight": split.weight,
        "artifact_key": version.artifact_key,
        "manifest_sha256": version.manifest_sha256,
    }


def _parse(body: bytes, key: str) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
        whole = isinstance(found["rev"], int) and isinstance(found["splits"], list) and is_whole(body, found, key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if whole else None
