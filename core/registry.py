"""The registry of models: versions, aliases and their history, all derived from one ledger per model."""

from __future__ import annotations

import os
import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from core import audit
from core.alias_docs import AliasDocs
from core.collection import READER_GRACE_S, Swept, collect
from core.errors import Conflict, Exists, IntegrityError, Missing, NotFound, Transient
from core.keys import MODELS_PREFIX, artifact_key, check_name, is_name, log_key
from core.ledger import Backoff, Ledger, Maker, digest_of
from core.state import PREVIOUS, PRODUCTION, Alias, Split, State, Version, splits_of
from core.store import ObjectStore
from core.tuples import NamedTuple

WHOLE = 100
_READS = 3


class VersionView(NamedTuple):
    """A version as people see it; `aliases` are the names that point to it now."""

    version: str
    created: float
    src: str
    metrics: Mapping[str, Any]
    size: int
    aliases: tuple[str, ...]
    gate: Mapping[str, Any] | None
    retired: float | None


class History(NamedTuple):
    """Past entries, newest first, and where each alias pointed after the newest of them."""

    entries: list[dict[str, Any]]
    aliases: dict[str, Alias]


class Registry:
    """All models of one store. Thread-safe.

    Every changing call takes `op_id` and has one effect however often it is repeated with it. It raises Conflict
    if illegal now, Unavailable (with `op_id`) if the outcome is unknown, Transient or Denied if nothing was done.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        rng: random.Random,
        actor: str,
    ) -> None:
        self.store = store
        self.actor = actor
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._backoff = Backoff(sleep, rng)
        self._docs = AliasDocs(store, rng, self._backoff)
        self._ledgers: dict[str, Ledger] = {}
        self._lock = threading.Lock()

    def ledger(self, model: str) -> Ledger:
        """Return the model's ledger, which this registry keeps. Raises InvalidName."""
        check_name(model, "model")
        with self._lock:
            if model not in self._ledgers:
                self._ledgers[model] = Ledger(
                    self.store, model, clock=self._clock, sleep=self._sleep, rng=self._rng, actor=self.actor
                )
            return self._ledgers[model]

    def new_id(self) -> str:
        """Return an id for a call that must not be merged with any other; forked processes differ too."""
        with self._lock:
            return f"{os.getpid():x}-{self._rng.getrandbits(64):016x}"

    # --- reading

    def models(self) -> list[str]:
        """Return the names of the models that have a ledger, sorted."""
        found = [entry.key[len(MODELS_PREFIX) :].removesuffix(".json") for entry in self.store.list(MODELS_PREFIX)]
        return [name for name in found if is_name(name) and self._has_log(name)]

    def state(self, model: str) -> State:
        """Return the model's newest state; its head is -1 if there is no ledger. Raises InvalidName."""
        return self.ledger(model).refresh()

    def versions(self, model: str) -> list[VersionView]:
        """Return the published versions, newest first. Raises NotFound."""
        state = self._known(model)
        newest = sorted(state.versions.items(), key=lambda item: -item[1].n)
        return [_view(state, name, version) for name, version in newest]

    def resolve(self, model: str, ref: str) -> tuple[Split, ...]:
        """Return where `ref`, an alias or a version, points. Raises NotFound; Conflict if it is retired."""
        state = self._known(model)
        if ref in state.aliases:
            return state.aliases[ref].splits
        if _published(state, ref).retired is not None:
            raise Conflict("the version is retired", version=ref)
        return (Split(ref, WHOLE),)

    def history(self, model: str, at: float | None = None, limit: int = 100) -> History:
        """Return who did what and why, up to time `at` (None: now), and where the aliases pointed then.

        The order is the log's; the times are those that the writers recorded. Raises NotFound.
        """
        state, ledger = self._known(model), self.ledger(model)
        stop = state.head + 1
        if at is not None:
            stop = bisect_right(range(stop), at, key=lambda n: float(ledger.entry(n)["ts"]))
        entries = [ledger.entry(n) for n in range(stop - 1, max(stop - 1 - limit, -1), -1)]
        return History(entries, _aliases_at(state, at))

    # --- changing

    def publish(
        self,
        model: str,
        *,
        src: str,
        attempt: int,
        version: str,
        manifest_sha256: str,
        artifact_key: str,
        size: int,
        metrics: Mapping[str, Any],
        parts: Sequence[Mapping[str, Any]] = (),
        covers: Mapping[str, int] | None = None,
        op_id: str,
        actor: str | None = None,
        role: str = "system",
        reason: str = "",
    ) -> Version:
        """Return the version, visible from now on. Legal only for the latest attempt of a source without outcome.

        `parts` are the version's further objects ({"key", "sha256", …}); `covers` maps other claimed sources to
        their attempts: they are published by the same run.
        """
        entry = {
            "op": "publish",
            "src": src,
            "attempt": attempt,
            "version": version,
            "manifest_sha256": manifest_sha256,
            "artifact_key": artifact_key,
            "size": size,
            "metrics": dict(metrics),
            "parts": [dict(part) for part in parts],
            **({"covers": dict(covers)} if covers else {}),
            **_who(actor or self.actor, role, reason),
        }
        same = {"op": "publish", "src": src, "version": version}
        return self._changed_version(model, lambda _: entry, op_id, same)

    def move(
        self,
        model: str,
        alias: str,
        version: str | Sequence[tuple[str, int]],
        *,
        expect_rev: int | None = None,
        op_id: str,
        actor: str | None = None,
        role: str = "system",
        reason: str = "",
        gate: Mapping[str, Any] | None = None,
    ) -> Alias:
        """Return the alias as this move left it. `version` may be shares: pairs of version and weight.

        Without `expect_rev` the move is made from whatever revision is newest. `gate` is the verdict to record.
        Raises NotFound for an unknown version; Conflict for a retired one, and for a stale `expect_rev`.
        """
        wanted = [(version, WHOLE)] if isinstance(version, str) else list(version)
        check_name(alias, "alias")

        def make(state: State) -> dict[str, Any]:
            for name, _ in wanted:
                _published(state, name)
            rev = expect_rev if expect_rev is not None else _rev(state, alias)
            extra = {"gate": dict(gate)} if gate is not None else {}
            return {**_alias_entry(alias, rev, wanted), **extra, **_who(actor or self.actor, role, reason)}

        shares = _alias_entry(alias, 0, wanted)["splits"]
        return self._moved(model, make, op_id, {"op": "alias", "name": alias, "splits": shares})

    def rollback(
        self,
        model: str,
        *,
        to: str | None = None,
        op_id: str,
        actor: str | None = None,
        role: str = "system",
        reason: str = "",
    ) -> Alias:
        """Return `production`, moved back to where `previous` points, or to version `to`.

        Raises Conflict if there is nothing to roll back to, NotFound if the model or `to` is unknown.
        """

        def make(state: State) -> dict[str, Any]:
            if state.head < 0:
                raise NotFound("no such model", model=model)
            if to is None and PREVIOUS not in state.aliases:
                raise Conflict("nothing to roll back to: production has not moved yet", rule="no_previous")
            if to is not None:
                _published(state, to)
            target = [(to, WHOLE)] if to is not None else list(state.aliases[PREVIOUS].splits)
            entry = _alias_entry(PRODUCTION, _rev(state, PRODUCTION), target)
            return {**entry, "rollback": True, **_who(actor or self.actor, role, reason)}

        return self._moved(model, make, op_id, {"op": "alias", "name": PRODUCTION, "rollback": True})

    def retire(
        self,
        model: str,
        version: str,
        *,
        op_id: str,
        actor: str | None = None,
        role: str = "system",
        reason: str = "",
    ) -> Version:
        """Return the version, retired: no alias may take it again and its bytes may be collected later.

        Raises NotFound, and Conflict if an alias (`previous` counts) points to it.
        """

        def make(state: State) -> dict[str, Any]:
            _published(state, version)
            return {"op": "retire", "version": version, **_who(actor or self.actor, role, reason)}

        return self._changed_version(model, make, op_id, {"op": "retire", "version": version})

    def append(self, model: str, make_entry: Maker, *, op_id: str) -> dict[str, Any]:
        """Return the entry that carries `op_id`: claims, rejections, parking and notes, made by `core.jobs`."""
        return self.ledger(model).append(make_entry, op_id)

    # --- bytes

    def put_artifact(self, model: str, src: str, attempt: int, data: bytes) -> tuple[str, str]:
        """Return (key, sha256) of `data`, stored and read back. Raises IntegrityError, Transient, Denied."""
        sha256 = digest_of(data)
        key = artifact_key(check_name(model, "model"), src, attempt, sha256)
        with suppress(Exists, Transient):  # either way, reading decides whether the bytes are there
            self._backoff.call(lambda: self.store.put_if_absent(key, data))
        for _ in range(_READS):
            if digest_of(self._artifact(key)) == sha256:
                return key, sha256
        raise IntegrityError("the store does not give back the bytes that it was given", key=key)

    def _artifact(self, key: str) -> bytes:
        try:
            return self._backoff.call(lambda: self.store.get(key)).data
        except Missing:
            raise Transient("the artifact is not in the store, though it may land later") from None

    def collect_garbage(self, model: str, *, reader_grace_s: float = READER_GRACE_S) -> Swept:
        """Return what was deleted: bytes that the log proves nobody can ever publish or still reads."""
        state = self._known(model)
        for name, version in state.versions.items():
            if version.retired is not None:
                self._docs.write(state, name)
        return collect(self.store, state, now=self._clock(), reader_grace_s=reader_grace_s)

    def verify_log(self, model: str, anchor: audit.Anchor | None = None) -> int | None:
        """Return the index of the first bad log entry, None if the log is sound."""
        return audit.verify(self.store, check_name(model, "model"), anchor)

    def repair_aliases(self, model: str, *, aliases_only: bool = False) -> list[str]:
        """Return the names of the alias documents that lagged or were damaged; now they are right.

        With `aliases_only` those of the versions themselves are not looked at.
        """
        return self._docs.repair(self._known(model), lambda: self.state(model), aliases_only=aliases_only)

    def _changed_version(self, model: str, make: Maker, op_id: str, same: Mapping[str, Any]) -> Version:
        entry = _expect(self.ledger(model).append(make, op_id), same)
        state = self.ledger(model).known()  # a store that fails now must not hide that the change is made
        self._docs.write(state, entry["version"])
        return state.versions[entry["version"]]

    def _moved(self, model: str, make: Maker, op_id: str, same: Mapping[str, Any]) -> Alias:
        entry = _expect(self.ledger(model).append(make, op_id), same)
        state = self.ledger(model).known()  # a store that fails now must not hide that the change is made
        for name in (entry["name"], PREVIOUS):
            if name in state.aliases:
                self._docs.write(state, name)
        return Alias(entry["expect_rev"] + 1, splits_of(entry["splits"]), entry["n"], entry["ts"])

    def _has_log(self, model: str) -> bool:
        try:
            self.store.head(log_key(model, 0))
        except Missing:
            return False
        return True

    def _known(self, model: str) -> State:
        state = self.state(model)
        if state.head < 0:
            raise NotFound("no such model", model=model)
        return state


def _expect(entry: dict[str, Any], same: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry that an op id led to, if it is what was asked for now."""
    if any(entry.get(name) != value for name, value in same.items()):
        raise Conflict("the op_id was used before, for something else", rule="op_id", op_id=entry["op_id"])
    return entry


def _who(actor: str, role: str, reason: str) -> dict[str, str]:
    return {"actor": actor, "role": role, "reason": reason}


def _rev(state: State, alias: str) -> int:
    return state.aliases[alias].rev if alias in state.aliases else 0


def _alias_entry(alias: str, rev: int, splits: Sequence[tuple[str, int]]) -> dict[str, Any]:
    shares = [{"version": version, "weight": weight} for version, weight in splits]
    return {"op": "alias", "name": alias, "expect_rev": rev, "splits": shares}


def _published(state: State, version: str) -> Version:
    if version not in state.versions:
        raise NotFound("no such version or alias", model=state.model)
    return state.versions[version]


def _view(state: State, name: str, version: Version) -> VersionView:
    held = [alias for alias, to in state.aliases.items() if any(split.version == name for split in to.splits)]
    shown = (version.created, version.src, version.metrics, version.size)
    return VersionView(name, *shown, tuple(sorted(held)), version.gate, version.retired)


def _aliases_at(state: State, at: float | None) -> dict[str, Alias]:
    found: dict[str, Alias] = {}
    revs: dict[str, int] = {}
    for move in state.moves:
        revs[move.name] = revs.get(move.name, 0) + 1
        if at is None or move.ts <= at:
            found[move.name] = Alias(revs[move.name], move.splits, move.n, move.ts)
    return found
