"""A registry copied into another store: models, versions, aliases, history and tokens, whole and verified.

What is copied is the logs as they stood when each was read. A reader of the copy never sees half of anything:
bytes go first, then the log that names them, then the documents that point to them, last the mark that lists the
model.
Nothing in the target is overwritten: log entries, artifacts and checkpoints are created or are there already with
the same bytes; documents of aliases, which are derived, move on as in any registry. Uploads and jobs are inboxes,
not registry: they stay where they are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from core import audit
from core.alias_docs import AliasDocs
from core.auth import TOKENS_PREFIX
from core.errors import Conflict, Exists, IntegrityError, Missing
from core.fold import fold
from core.keys import checkpoint_key, checkpoint_prefix, is_name, log_key, log_prefix, model_key, number_of
from core.ledger import Backoff, Ledger, digest_of, parse_entry
from core.state import State
from core.store import ObjectStore
from core.tuples import NamedTuple

_REGISTRY = "reg/"
_REVOKED = "auth/revoked/"
_ROUNDS = 5  # a version that is retired while it is copied has the model's log read again
_READS = 3


class Copied(NamedTuple):
    """What the target holds now of the source, and how much of it this call brought."""

    models: int
    entries: int
    artifacts: int
    tokens: int
    created: int
    created_bytes: int


class _Log(NamedTuple):
    """A model's log as it was read: the bytes of its entries, and what they add up to."""

    model: str
    entries: list[bytes]
    state: State


class Copier:
    """Copies the registry in `source` to `target`; may be called again, also after it failed half way."""

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        *,
        sleep: Callable[[float], None],
        rng: random.Random,
        tokens: bool = True,
    ) -> None:
        """`tokens` says whether access tokens are copied too."""
        self._source, self._target, self._tokens = source, target, tokens
        self._sleep, self._rng, self._backoff = sleep, rng, Backoff(sleep, rng)
        self._docs = AliasDocs(target, rng, self._backoff)
        self._created = self._created_bytes = 0

    def run(self, progress: Callable[[str, int, int], None] = lambda *_: None) -> Copied:
        """Return what was copied; the target has been read back.

        Raises Conflict if the target holds anything but an earlier copy; IntegrityError if the source, or what the
        target gives back, is damaged; Denied, Transient.
        """
        self._created = self._created_bytes = 0
        names = self._models()
        logs = [self._log(name) for name in names]
        self._check_target(logs)
        tokens = self._copy_tokens() if self._tokens else 0
        artifacts = 0
        for done, name in enumerate(names):
            progress(name, done, len(logs))
            logs[done], copied = self._copy_bytes(logs[done])
            artifacts += copied
            self._copy_log(logs[done])
        entries = sum(len(log.entries) for log in logs)
        return Copied(len(logs), entries, artifacts, tokens, self._created, self._created_bytes)

    # --- the source

    def _models(self) -> list[str]:
        """Return the models of the source, also one whose mark is missing."""
        names = {key.split("/")[1] for key in self._keys(self._source, _REGISTRY) if "/log/" in key}
        return sorted(name for name in names if is_name(name))

    def _log(self, model: str) -> _Log:
        """Return the log, each entry proved by the next. Raises IntegrityError."""
        listed = [number_of(key) for key in self._keys(self._source, log_prefix(model))]
        entries, state = list[bytes](), State(model)
        try:
            while (body := self._found(self._source, log_key(model, len(entries)))) is not None:
                fold(state, parse_entry(body), digest_of(body))
                entries.append(body)
        except (ValueError, Conflict):
            raise IntegrityError("the log is broken: verify it", model=model, n=len(entries)) from None
        if state.head < max((n for n in listed if n is not None), default=-1):
            raise IntegrityError("an entry of the log is missing: verify it", model=model, n=len(entries))
        return _Log(model, entries, state)

    # --- what may stand in the target already

    def _check_target(self, logs: list[_Log]) -> None:
        """Raise Conflict unless the target is empty or an earlier copy."""
        known = {log.model: log for log in logs}
        for model in {key.split("/")[1] for key in self._keys(self._target, _REGISTRY) if "/log/" in key}:
            if model not in known:
                raise Conflict(f"the target is no copy of this registry: it has a model of its own, {model}")
            self._check_prefix(known[model])
        if self._tokens:
            mine = set(self._keys(self._source, TOKENS_PREFIX))
            if any(key not in mine for key in self._keys(self._target, TOKENS_PREFIX)):
                raise Conflict("the target is no copy of this registry: it has tokens of its own")

    def _check_prefix(self, log: _Log) -> None:
        """Raise Conflict unless the target's log is this one, or the beginning of it."""
        n = 0
        while (body := self._found(self._target, log_key(log.model, n))) is not None:
            if n >= len(log.entries) or body != log.entries[n]:
                message = f"the target has a history of its own of {log.model}, from entry {n} on"
                raise Conflict(message, model=log.model, n=n)
            n += 1

    # --- copying

    def _copy_tokens(self) -> int:
        """Copy the marks of revocation, then the records; return the number of records."""
        for key in self._keys(self._source, _REVOKED):
            self._create(key, self._get(self._source, key))
        keys = self._keys(self._source, TOKENS_PREFIX)
        for key in keys:
            self._copy_token(key, self._get(self._source, key))
        return len(keys)

    def _copy_token(self, key: str, data: bytes) -> None:
        """Create a token's record. One that stands may only be revoked by this."""
        held = self._found(self._target, key)
        if held is None or held == data:
            self._create(key, data)
            return
        theirs, record = _record(held, key, "target"), _record(data, key, "source")
        if {**theirs, "revoked": None} != {**record, "revoked": None}:
            raise Conflict("the target has another token of the same id", key=key)
        if record.get("revoked") is not None:
            self._backoff.call(lambda: self._target.put_if_match(key, data, self._target.get(key).token))

    def _copy_bytes(self, log: _Log) -> tuple[_Log, int]:
        """Copy all that the log names; return the log, newer if it went on, and the number of artifacts."""
        for _ in range(_ROUNDS):
            needed = dict(_needed(log.state))
            try:
                for key, sha256 in needed.items():
                    self._copy_artifact(key, sha256)
            except Missing:
                newer = self._log(log.model)  # its version may have been retired, and the bytes collected
                if len(newer.entries) == len(log.entries):
                    break
                log = newer
                continue
            return log, len(needed)
        raise IntegrityError("an artifact that the log names is missing", model=log.model)

    def _copy_artifact(self, key: str, sha256: str) -> None:
        """Copy an artifact. Raises Missing if the source has it no more, IntegrityError if it is damaged."""
        held = self._found(self._target, key)
        if held is not None and digest_of(held) == sha256:
            return
        if held is not None:
            raise IntegrityError("the target holds other bytes where an artifact belongs", key=key)
        data = self._get(self._source, key)
        if digest_of(data) != sha256:
            data = self._get(self._source, key)  # the reply may have been cut
        if digest_of(data) != sha256:
            raise IntegrityError("an artifact of the source is damaged", key=key)
        self._create(key, data)

    def _copy_log(self, log: _Log) -> None:
        model, state = log.model, log.state
        for n, following in enumerate(log.entries[1:]):
            self._copy_checkpoint(model, n, parse_entry(following).get("ckpt"))
        for n, body in enumerate(log.entries):
            self._create(log_key(model, n), body)
        if (bad := audit.verify(self._target, model, audit.Anchor(state.head, state.hash))) is not None:
            raise IntegrityError("the log in the target is not what was written there", model=model, n=bad)
        self._point(model)
        self._create(model_key(model), b"{}")

    def _point(self, model: str) -> None:
        """Write what the target's log says of aliases and versions; that log may have gone on by now."""
        ledger = Ledger(self._target, model, clock=float, sleep=self._sleep, rng=self._rng, actor="backup")
        state = ledger.refresh()
        for ref in (*state.versions, *state.aliases):
            self._docs.write(state, ref)
        self._backoff.call(lambda: self._docs.repair(state, ledger.refresh))  # tells of what write could not

    def _copy_checkpoint(self, model: str, n: int, sha256: str | None) -> None:
        """Copy a checkpoint that an entry vouches for; it is derived, so one that is gone or damaged is left."""
        key = checkpoint_key(model, n)
        if sha256 is None or key not in self._checkpoints(model):
            return
        data = self._found(self._source, key)
        if data is not None and digest_of(data) == sha256:
            self._create(key, data)

    def _checkpoints(self, model: str) -> set[str]:
        return set(self._keys(self._source, checkpoint_prefix(model)))

    # --- objects

    def _create(self, key: str, data: bytes) -> None:
        """Have the target hold exactly these bytes. Raises Conflict if it holds others, IntegrityError."""
        try:
            self._backoff.call(lambda: self._target.put_if_absent(key, data))
            self._created, self._created_bytes = self._created + 1, self._created_bytes + len(data)
        except Exists:
            pass  # from an earlier copy, or from a try whose reply was lost
        for _ in range(_READS):
            held = self._found(self._target, key)
            if held == data:
                return
        raise Conflict("the target holds other bytes at a key of the copy", key=key)

    def _get(self, store: ObjectStore, key: str) -> bytes:
        return self._backoff.call(lambda: store.get(key)).data

    def _found(self, store: ObjectStore, key: str) -> bytes | None:
        try:
            return self._get(store, key)
        except Missing:
            return None

    def _keys(self, store: ObjectStore, prefix: str) -> list[str]:
        return self._backoff.call(lambda: [entry.key for entry in store.list(prefix)])


def _record(data: bytes, key: str, place: str) -> dict[str, Any]:
    """Return a token's record. Raises IntegrityError."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise IntegrityError(
            f"the record of a token in the {place} is damaged, and nobody can use it there: {key}", key=key
        )
    return record


def _needed(state: State) -> Iterator[tuple[str, str]]:
    """Yield key and sha256 of each object that an unretired version needs."""
    for version in state.versions.values():
        if version.retired is None:
            yield version.artifact_key, version.artifact_key.rpartition("/")[2]
            for part in version.parts:
                yield part["key"], part["sha256"]
