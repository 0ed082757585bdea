"""The ObjectStore port: the few verbs that S3, GCS, Azure Blob and a POSIX folder share; a store in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from core.errors import Exists, Missing, Stale
from core.keys import check_key
from core.tuples import NamedTuple


class Blob(NamedTuple):
    """An object's bytes and the token (generation, ETag, …) of exactly these bytes."""

    data: bytes
    token: str


class Entry(NamedTuple):
    """An object without its bytes; `modified` is seconds since the epoch by the store's clock."""

    key: str
    size: int
    token: str
    modified: float


class ObjectStore(Protocol):
    """Keys are `/`-separated relative paths. Raises the StoreError kinds of core.errors and no others.

    A write that raises Transient may have happened or may still happen.
    """

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object; with `token`, only that generation. Raises Missing, Stale, Denied, Transient."""
        ...

    def head(self, key: str) -> Entry:
        """Return the object's entry. Raises Missing, Denied, Transient."""
        ...

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream one generation of the object into `target`, never mixing two. Raises as get."""
        ...

    def put(self, key: str, data: bytes) -> str:
        """Write the object, replacing any; return its token. Raises Denied, Transient."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create the object; return its token. Raises Exists, Denied, Transient."""
        ...

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace exactly the generation `token`; return the new one. Raises Stale, Missing, Denied, Transient."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose key starts with `prefix`, in key order. Raises Denied, Transient."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error. Raises Denied, Transient."""
        ...


class MemoryStore:
    """An ObjectStore in this process's memory. Thread-safe; every write gets a token that never returns."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, Entry]] = {}
        self._generation = 0

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object; with `token`, only that generation. Raises Missing, Stale."""
        data, entry = self._find(key, token)
        return Blob(data, entry.token)

    def head(self, key: str) -> Entry:
        """Return the object's entry. Raises Missing."""
        return self._find(key, None)[1]

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Write one generation of the object into `target`. Raises as get."""
        data, entry = self._find(key, token)
        target.write(data)
        return entry

    def put(self, key: str, data: bytes) -> str:
        """Write the object, replacing any; return its token. Raises InvalidName."""
        with self._lock:
            return self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create the object; return its token. Raises Exists, InvalidName."""
        with self._lock:
            if key in self._objects:
                raise Exists("an object stands at this key")
            return self._write(key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace exactly the generation `token`; return the new one. Raises Stale, Missing, InvalidName."""
        with self._lock:
            check_key(key)
            if key not in self._objects:
                raise Missing("no object at this key")
            if self._objects[key][1].token != token:
                raise Stale("another generation stands at this key")
            return self._write(key, data)

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose key starts with `prefix`, in key order, as of the call."""
        with self._lock:
            found = [entry for key, (_, entry) in self._objects.items() if key.startswith(prefix)]
        return iter(sorted(found))

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error. Raises InvalidName."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def _find(self, key: str, token: str | None) -> tuple[bytes, Entry]:
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise Missing("no object at this key")
        if token is not None and found[1].token != token:
            raise Stale("another generation stands at this key")
        return found

    def _write(self, key: str, data: bytes) -> str:
        self._generation += 1
        token = str(self._generation)
        self._objects[check_key(key)] = (bytes(data), Entry(key, len(data), token, self._clock()))
        return token
