"""The ObjectStore port: the few verbs that S3, GCS, Azure Blob and a POSIX folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol


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
