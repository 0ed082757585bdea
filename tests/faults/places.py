"""Fresh, empty stores by the hundred: in memory, in a folder, below one bucket of an emulator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from core.local_store import LocalStore
from core.store import Blob, Entry, MemoryStore, ObjectStore
from tests.emulators.emulator import Emulator

EMULATORS = ("moto", "gcs", "azurite")
STORES = ("memory", "local", *EMULATORS)
Fresh = Callable[[], ObjectStore]


class Within:
    """The objects of a store below a prefix, as a store of their own."""

    def __init__(self, base: ObjectStore, prefix: str) -> None:
        self._base = base
        self._prefix = prefix

    def get(self, key: str, token: str | None = None) -> Blob:
        """Read."""
        return self._base.get(self._prefix + key, token)

    def head(self, key: str) -> Entry:
        """Read an entry."""
        return self._own(self._base.head(self._prefix + key))

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream."""
        return self._own(self._base.fetch(self._prefix + key, target, token))

    def put(self, key: str, data: bytes) -> str:
        """Write."""
        return self._base.put(self._prefix + key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create."""
        return self._base.put_if_absent(self._prefix + key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace."""
        return self._base.put_if_match(self._prefix + key, data, token)

    def list(self, prefix: str) -> Iterator[Entry]:
        """List."""
        return map(self._own, self._base.list(self._prefix + prefix))

    def delete(self, key: str) -> None:
        """Remove."""
        self._base.delete(self._prefix + key)

    def _own(self, entry: Entry) -> Entry:
        return entry._replace(key=entry.key.removeprefix(self._prefix))


def fresh_folders(root: Path) -> Fresh:
    """Return a maker of stores, each in a folder of its own."""
    numbers = itertools.count()
    return lambda: LocalStore(str(root / str(next(numbers))), fsync=False)


def fresh_buckets(emulator: Emulator) -> Fresh:
    """Return a maker of stores in one bucket: a client for each would take longer than a history."""
    base, numbers = emulator.open(emulator.new_store_url()), itertools.count()
    return lambda: Within(base, f"{next(numbers)}/")


def fresh_stores(name: str, root: Path, emulator: Callable[[str], Emulator]) -> Fresh:
    """Return a maker of stores of a kind; `emulator` starts one by its name."""
    if name == "memory":
        return MemoryStore
    return fresh_folders(root) if name == "local" else fresh_buckets(emulator(name))
