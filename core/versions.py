"""Versions in memory: what an alias document points to, loaded, checked and proved before it may answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import CoreError, Denied, IntegrityError, Transient, Unavailable
from core.keys import alias_key, is_name
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.model import Model
    from core.telemetry import Telemetry

RETRY_S = 30.0  # how long a damaged version is not loaded again
_FIELDS = frozenset({"rev", "splits", "log_n", "write_id"})


class Source(Protocol):
    """What is needed of core.reader.Reader."""

    def get(self, key: str) -> bytes:
        """Return the object. Raises Missing, Denied, Transient."""
        ...

    def buffer(self, key: str) -> Any:
        """Return the object as bytes or a memory map. Raises Missing, Denied, Transient."""
        ...


class Timing(NamedTuple):
    """Where time and chance come from: seconds since the epoch, seconds of any origin, uniform in [0, 1)."""

    clock: Callable[[], float]
    timer: Callable[[], float]
    draw: Callable[[], float]


class Split(NamedTuple):
    """One version that an alias points to, and its share of the traffic."""

    version: str
    weight: float
    artifact_key: str
    manifest_sha256: str


class Document(NamedTuple):
    """Where an alias or a version points: `rev` only rises; a retired version has no splits."""

    rev: int
    splits: tuple[Split, ...]


class Loaded(NamedTuple):
    """A version in memory that passed its golden replay."""

    model: Model
    name: str
    split: Split
    size_bytes: int

    @property
    def version(self) -> str:
        """Return the version id."""
        return self.split.version


class Versions:
    """Reads alias documents and artifacts. Each call reads at most one object."""

    def __init__(
        self, reader: Source, *, load: Callable[[Any, str], Model], telemetry: Telemetry, timing: Timing
    ) -> None:
        """`load(buffer, header_sha256)` is core.artifact.load."""
        self._reader, self._load, self._telemetry, self._timing = reader, load, telemetry, timing
        self._damaged: dict[str, float] = {}  # artifact key → when to try it again

    def document(self, model: str, ref: str) -> Document:
        """Return where an alias or a version id points. Raises Missing, StoreError, IntegrityError."""
        key = alias_key(model, ref)
        return parse_document(self._reader.get(key), key)

    def sound(
        self, model: str, splits: Iterable[Split], held: Iterable[Loaded], *, whole: bool = False
    ) -> list[Loaded]:
        """Return those of the splits that load and prove sound; `held` is in memory already.

        With `whole` every page has been checked. What is left out has been counted and logged. Raises
        Transient and Denied: a store that fails for now says nothing about a version.
        """
        kept = list(held)
        found = []
        for split in splits:
            try:
                found.append(self._one(model, split, kept, whole=whole))
            except IntegrityError as error:
                self.condemn(model, split, error)
            except (Transient, Denied):
                raise
            except (CoreError, ImportError, MemoryError) as error:
                facts = {"model": model, "version": split.version, "kind": type(error).__name__}
                self._telemetry.log("alert", "error", alert="version_not_loaded", **facts)
        return found

    def condemn(self, model: str, split: Split, error: IntegrityError) -> None:
        """Note that a version is damaged: it is not loaded again for RETRY_S."""
        self._damaged[split.artifact_key] = self._timing.clock() + RETRY_S
        self._telemetry.count("integrity_failures_count", (model,))
        facts = {"model": model, "version": split.version, "detail": error.message}
        self._telemetry.log("alert", "error", alert="integrity_failure", **facts)

    def _one(self, model: str, split: Split, held: Iterable[Loaded], *, whole: bool) -> Loaded:
        now = self._timing.clock()
        if now < self._damaged.get(split.artifact_key, now):
            raise Unavailable("this version is damaged", retry_after_s=RETRY_S)
        self._damaged.pop(split.artifact_key, None)
        for loaded in held:
            same = loaded.split.manifest_sha256 == split.manifest_sha256 and loaded.version == split.version
            if same and loaded.name == model:
                break
        else:
            loaded = self._read(model, split)
        if whole:
            loaded.model.file.verify_all()
        return loaded._replace(split=split)

    def _read(self, name: str, split: Split) -> Loaded:
        started = self._timing.timer()
        buffer = self._reader.buffer(split.artifact_key)
        model = self._load(buffer, split.manifest_sha256)
        model.replay()
        self._telemetry.observe("model_load_latency_seconds", self._timing.timer() - started, (name,))
        return Loaded(model, name, split, len(buffer))


def parse_document(data: bytes, key: str) -> Document:
    """Return the checked alias document that stands at `key`. Raises IntegrityError."""
    try:
        raw = json.loads(data)
        splits = tuple(
            Split(s["version"], float(s["weight"]), s["artifact_key"], s["manifest_sha256"]) for s in raw["splits"]
        )
        if type(raw["rev"]) is int and all(map(_is_sound, splits)) and is_whole(data, raw, key):
            return Document(raw["rev"], splits)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        pass
    raise IntegrityError("alias document is not well formed")


def is_whole(data: bytes, raw: Mapping[str, Any], key: str) -> bool:
    """Return whether `data`, which says `raw`, was written so for this key; those of 0.1 do not tell, and pass."""
    fields = raw.keys()
    if fields == _FIELDS:
        return True
    return fields == _FIELDS | {"sha256"} and raw["sha256"] == document_sha256(raw, key) and data == _spelt(raw)


def document_sha256(raw: Mapping[str, Any], key: str) -> str:
    """Return the sha256 of a document's other fields and of its key: the chain of the log does not cover it."""
    return sha256(_spelt([key, {name: value for name, value in raw.items() if name != "sha256"}])).hexdigest()


def _spelt(value: Any) -> bytes:
    """Return the form of core.ledger.canonical."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _is_sound(split: Split) -> bool:
    texts = (split.version, split.artifact_key, split.manifest_sha256)
    return all(isinstance(text, str) for text in texts) and is_name(split.version) and 0.0 <= split.weight <= 1e9
