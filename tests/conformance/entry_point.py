"""What an entry point is: a platform's way from the wire to the handler and back, around the handler itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from core.web import Request, Response
from tests.conformance.exchange import Answer, Wire

App = Callable[[Request], Response]
Invoke = Callable[[App, Any], Any]


class Refused(Exception):
    """The platform answers by itself, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the platform answers {status}")
        self.status = status


class EntryPoint(NamedTuple):
    """`encode` makes what the platform calls the handler with, `decode` what a client gets: both are the platform.

    `invoke(app, event)` is the handler's own code around a given application. `renamed` maps headers to what the
    platform makes of their names, `added` are headers that it adds to answers that lack them; `reasons` tells why.
    """

    name: str
    encode: Callable[[Wire], Any]
    invoke: Invoke
    decode: Callable[[Wire, Any], Answer]
    renamed: Mapping[str, str] = {}
    added: frozenset[str] = frozenset()
    reasons: str = ""

    def send(self, app: App, wire: Wire) -> Answer:
        """Return what a client gets for a request. Raises Refused."""
        return self.decode(wire, self.invoke(app, self.encode(wire)))
