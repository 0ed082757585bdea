"""Cloud Run functions: our function in functions-framework's own application, behind gunicorn's own code.

Google's front end hands method, path, query, headers and body on to the container as they came (Cloud Run's
container contract). What gunicorn, which the framework's server runs, and the framework make of them is no guess:
both run here, only the socket is not real.
"""

from __future__ import annotations

import email.parser
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import functions_framework
from gunicorn.config import Config
from gunicorn.http import RequestParser, wsgi

from tests.conformance.entry_point import App, EntryPoint
from tests.conformance.exchange import Answer, Wire
from tests.conformance.function.held import held

SOURCE = Path(__file__).parent / "function" / "source.py"


@cache
def served() -> Any:
    """Return the framework's application for our function, made once."""
    create: Any = functions_framework.create_app
    return create("http", str(SOURCE))


class _Socket:
    """Takes what gunicorn writes."""

    def __init__(self) -> None:
        self.written = b""

    def sendall(self, data: bytes) -> None:
        self.written += data


def request_bytes(wire: Wire) -> bytes:
    """Return the request as it comes to the container."""
    target = wire.path + (f"?{wire.query}" if wire.query else "")
    lines = [f"{wire.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in wire.framed()), "", ""]
    body = wire.body
    if wire.chunked:
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return "\r\n".join(lines).encode("latin-1") + body


def invoke(app: App, event: bytes) -> bytes:
    """Return the bytes that the container answers with."""
    config, sock = Config(), _Socket()
    request = next(RequestParser(config, iter([event]), ("127.0.0.1", 1)))
    response, environ = wsgi.create(request, sock, ("127.0.0.1", 1), ("127.0.0.1", 8080), config)
    with held(app):
        parts = served()(environ, response.start_response)
        for part in parts:
            response.write(part)
        response.close()
        parts.close()
    return sock.written


def decode(wire: Wire, written: bytes) -> Answer:
    """Return what a client gets."""
    head, _, body = written.partition(b"\r\n\r\n")
    status, _, lines = head.decode("latin-1").partition("\r\n")
    headers = tuple((name, str(value)) for name, value in email.parser.Parser().parsestr(lines).items())
    if any(name.lower() == "transfer-encoding" for name, _ in headers):
        body = b"".join(_chunks(body))
    return Answer(int(status.split()[1]), headers, body)


def _chunks(data: bytes) -> Iterator[bytes]:
    while data:
        size, _, data = data.partition(b"\r\n")
        yield data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


ENTRY_POINTS = (EntryPoint("functions-framework", request_bytes, invoke, decode),)
