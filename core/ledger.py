"""The append-only, hash-chained log of one model: the registry's authority and its audit log in one.

Entry n is the object `log/{n}`, created with put-if-absent, never changed, never deleted. An operation takes
effect when its slot is created, and is checked against the fold of all slots before it. A write has three
outcomes: committed, not committed, unknown. Unknown re-sends the same bytes to the same key, and never cleans up.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, NoReturn, TypeVar

from core.errors import (
    Conflict,
    CoreError,
    Denied,
    Exists,
    IntegrityError,
    Missing,
    StoreError,
    Transient,
    Unavailable,
)
from core.fold import check, fold
from core.keys import checkpoint_key, checkpoint_prefix, log_key, model_key, number_of
from core.state import State
from core.store import ObjectStore

CHECKPOINT_EVERY = 64
MAX_ENTRY_BYTES = 1 << 20
_TRIES = 5
_READS = 3
_RACES = 64
_CHECKPOINTS_TRIED = 8
_FORMAT = 1
RETRY_AFTER_S = 2.0

T = TypeVar("T")
Maker = Callable[[State], Mapping[str, Any]]


class Backoff:
    """Calls again after Transient: at most five tries, with full jitter between them."""

    def __init__(self, sleep: Callable[[float], None], rng: random.Random) -> None:
        self._sleep = sleep
        self._rng = rng

    def pause(self, attempt: int) -> None:
        """Wait up to 50 ms × 2^attempt, two seconds at most."""
        self._sleep(self._rng.uniform(0.0, min(2.0, 0.05 * 2.0**attempt)))

    def call(self, action: Callable[[], T]) -> T:
        """Return what `action` returns. Raises its last Transient, and any other error at once.

        What an inner backoff has given up is not tried again: tries would multiply.
        """
        attempt = 0
        while True:
            try:
                return action()
            except Transient as error:
                attempt += 1
                if attempt >= _TRIES or "tries" in error.fields:
                    error.fields["tries"] = _TRIES
                    raise
                self.pause(attempt - 1)


class Ledger:
    """Reads and appends to the log of `model`. Thread-safe; each process has its own and needs no other."""

    def __init__(
        self,
        store: ObjectStore,
        model: str,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        rng: random.Random,
        actor: str,
    ) -> None:
        self._store = store
        self._model = model
        self._clock = clock
        self._actor = actor
        self._backoff = Backoff(sleep, rng)
        self._lock = threading.RLock()
        self._state = State(model)
        self._shown = self._state.snapshot()
        self._started = False
        self._marked = False

    def refresh(self) -> State:
        """Return the state after the last entry in the store. Raises Transient, Denied, IntegrityError."""
        with self._lock:
            self._advance()
            return self.known()

    def known(self) -> State:
        """Return the state as far as this process has read or written the log; asks the store nothing."""
        with self._lock:
            if self._shown.head != self._state.head:
                self._shown = self._state.snapshot()
            return self._shown

    def append(self, make_entry: Maker, op_id: str) -> dict[str, Any]:
        """Return the entry that carries `op_id`: appended now, or found because an earlier call committed it.

        `make_entry` gets the newest state and returns the entry without its envelope; it may be called again
        after a lost race. Raises Conflict (and what `make_entry` raises) if illegal; Transient or Denied before
        anything was written; Unavailable with `op_id` if the outcome is unknown: call again with the same id.
        """
        with self._lock:
            for race in range(_RACES):
                self._advance()
                n = self._state.seen(op_id)
                if n is not None:
                    return self.entry(n)
                body = self._draft(make_entry(self._state), op_id)
                if not self._marked:
                    self._mark()
                entry = self._commit(body, op_id)
                if entry is not None:
                    return entry
                self._backoff.pause(race)
        raise Unavailable("too many writers at once", op_id=op_id, retry_after_s=RETRY_AFTER_S)

    def entry(self, n: int) -> dict[str, Any]:
        """Return entry `n`. Raises Missing, Transient, Denied, IntegrityError."""
        blob = self._backoff.call(lambda: self._store.get(log_key(self._model, n)))
        try:
            return parse_entry(blob.data)
        except ValueError:
            self._corrupt(n)

    def _advance(self) -> None:
        if not self._started:
            self._state = self._checkpointed() or self._state
            self._started = True
        while (body := self._read(log_key(self._model, self._state.head + 1))) is not None:
            self._take(body)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._backoff.call(lambda: self._store.get(key)).data
        except Missing:
            return None

    def _take(self, body: bytes | None) -> bytes:
        """Return the next entry, folded; one that does not fit is read again, lest the reply was cut."""
        n = self._state.head + 1
        for _ in range(_READS):
            if body is not None and self._folded(body):
                return body
            body = self._read(log_key(self._model, n))
        return self._corrupt(n)

    def _folded(self, body: bytes) -> bool:
        try:
            fold(self._state, parse_entry(body), digest_of(body))
        except (ValueError, Conflict):
            return False
        return True

    def _corrupt(self, n: int) -> NoReturn:
        raise IntegrityError("the log is broken: verify it", model=self._model, n=n)

    def _draft(self, made: Mapping[str, Any], op_id: str) -> bytes:
        """Return the bytes of the next entry, checked against the state."""
        state = self._state
        default = {"actor": self._actor, "role": "system", "reason": "", "ts": self._clock()}
        entry = {**default, **made, "op_id": op_id, "n": state.head + 1, "prev": state.hash}
        body = self._encoded(entry)
        check(state, parse_entry(body))
        if entry["n"] % CHECKPOINT_EVERY or not entry["n"]:
            return body
        return self._encoded({**entry, "ckpt": self._save()})

    def _encoded(self, entry: Mapping[str, Any]) -> bytes:
        try:
            body = canonical(entry)
        except (TypeError, ValueError):
            raise Conflict("the entry is not strict JSON", rule="malformed") from None
        if len(body) > MAX_ENTRY_BYTES:
            raise Conflict("the entry is too long", rule="malformed", limit=MAX_ENTRY_BYTES)
        return body

    def _commit(self, body: bytes, op_id: str) -> dict[str, Any] | None:
        """Return the entry that slot head + 1 now holds, None if it is of another operation.

        It is `body`, or what another process wrote in the name of the same operation.
        """
        key = log_key(self._model, self._state.head + 1)
        if self._create(key, body):
            fold(self._state, parse_entry(body), digest_of(body))
            return parse_entry(body)
        try:
            found = self._read(key)
            entry = None if found is None else parse_entry(self._take(found))
        except CoreError as error:
            raise _unknown(op_id) from error
        if entry is None:
            raise _unknown(op_id)
        return entry if entry["op_id"] == op_id else None

    def _create(self, key: str, body: bytes) -> bool:
        """Return whether the store said the write is done; False: only a later read can tell."""
        for attempt in range(_TRIES):
            try:
                self._store.put_if_absent(key, body)
            except Exists:
                return False
            except Transient:
                self._backoff.pause(attempt)
            except Denied:
                if attempt == 0:
                    raise
                return False
            else:
                return True
        return False

    def _mark(self) -> None:
        """List the model before its first entry, and have the store refuse to do so again, once a process.

        A store that creates what is there would lose entries. Raises Transient, Denied.
        """
        for _ in range(2):
            try:
                self._backoff.call(lambda: self._store.put_if_absent(model_key(self._model), b"{}"))
            except Exists:
                self._marked = True
                return
        raise Denied("the store does not honour conditional writes: see `polysky doctor`")

    def _save(self) -> str:
        """Write a checkpoint of the state, as far as the store lets us; return its sha256 for the next entry."""
        state = self._state
        body = canonical({"format": _FORMAT, "n": state.head, "hash": state.hash, "state": state.to_json()})
        with suppress(StoreError):
            self._store.put_if_absent(checkpoint_key(self._model, state.head), body)
        return digest_of(body)

    def _checkpointed(self) -> State | None:
        """Return the newest state that a checkpoint gives and the chain vouches for; LIST is only a hint."""
        try:
            numbers = [number_of(entry.key) for entry in self._store.list(checkpoint_prefix(self._model))]
        except StoreError:
            return None
        newest = sorted((n for n in numbers if n is not None), reverse=True)[:_CHECKPOINTS_TRIED]
        return next((state for state in map(self._restored, newest) if state is not None), None)

    def _restored(self, n: int) -> State | None:
        """Return the state of checkpoint `n` if entry n + 1 names the sha256 of its bytes."""
        try:
            saved = self._read(checkpoint_key(self._model, n))
            following = self._read(log_key(self._model, n + 1))
            if saved is None or following is None:
                return None
            entry, body = parse_entry(following), json.loads(saved)
            if entry["ckpt"] != digest_of(saved) or (entry["n"], body["n"], body["format"]) != (n + 1, n, _FORMAT):
                return None
            return State.from_json(self._model, n, entry["prev"], body["state"])
        except (StoreError, ValueError, KeyError, TypeError, AttributeError):
            return None


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return the one JSON form of `value`: sorted keys, no blanks, ASCII. Raises ValueError, TypeError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(data: bytes) -> str:
    """Return the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def parse_entry(body: bytes) -> dict[str, Any]:
    """Return the entry in `body`. Raises ValueError if it is not a strict JSON object."""
    try:
        entry = json.loads(body.decode(), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    return entry


def _finite(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _unknown(op_id: str) -> Unavailable:
    message = "the outcome is unknown: ask again with the same op_id"
    return Unavailable(message, op_id=op_id, retry_after_s=RETRY_AFTER_S)
