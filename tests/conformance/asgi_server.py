"""On premises: the ASGI application, given what its server gives it (the ASGI specification's HTTP scope)."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from core.config import Settings
from handlers_onprem.server import Server
from tests.conformance.entry_point import App, EntryPoint
from tests.conformance.exchange import Answer, Wire
from tests.conformance.stage import SETTINGS

Message = MutableMapping[str, Any]
_LIMITS = Settings(**SETTINGS)


class Call(NamedTuple):
    """A scope and the messages that come with it."""

    scope: Message
    messages: list[Message]


def call(wire: Wire) -> Call:
    """Return what the server calls the application with; the body comes in two parts."""
    half = len(wire.body) // 2
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": wire.method,
        "scheme": "http",
        "path": unquote(wire.path),
        "raw_path": wire.path.encode(),
        "query_string": wire.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in wire.framed()],
    }
    first = {"type": "http.request", "body": wire.body[:half], "more_body": True}
    return Call(scope, [first, {"type": "http.request", "body": wire.body[half:], "more_body": False}])


def invoke(app: App, event: Call) -> list[Message]:
    """Return the messages that the application sends."""
    server = Server(app, max_body_bytes=_LIMITS.max_body_bytes, max_upload_bytes=_LIMITS.max_upload_bytes)
    waiting, sent = iter(event.messages), list[Message]()

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        sent.append(message)

    async def serve() -> None:
        await server(event.scope, receive, send)
        stages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def stage() -> Message:
            return next(stages)

        async def ignore(message: Message) -> None:
            return

        await server({"type": "lifespan"}, stage, ignore)  # ends its threads

    asyncio.run(serve())
    return sent


def decode(wire: Wire, sent: list[Message]) -> Answer:
    """Return what a client gets."""
    start, *bodies = sent
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
    return Answer(int(start["status"]), headers, b"".join(message.get("body", b"") for message in bodies))


ENTRY_POINTS = (EntryPoint("onprem", call, invoke, decode),)
