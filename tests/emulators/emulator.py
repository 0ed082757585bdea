"""What the tests ask of a cloud storage emulator, whichever cloud it is."""

from __future__ import annotations

from typing import Protocol

from core.store import ObjectStore


class Emulator(Protocol):
    """A running emulator."""

    endpoint: str  # http://127.0.0.1:PORT

    def env(self) -> dict[str, str]:
        """Return the variables that lead SDK and reader here, those of POLYSKY_ among them."""
        ...

    def new_store_url(self) -> str:
        """Return the URL of a fresh, empty bucket or container."""
        ...

    def open(self, url: str, endpoint: str | None = None) -> ObjectStore:
        """Return the handler's store; `endpoint` is another address of this emulator, such as a proxy's."""
        ...

    def upload(self, url: str, key: str, data: bytes) -> None:
        """Write an object as a person would, with the plain SDK."""
        ...
