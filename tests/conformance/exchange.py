"""What goes over the wire and what must come back: exchanges as data, and their form in golden files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from core.web import Request, Response

Pairs = tuple[tuple[str, str], ...]
MAX_TEXT = 16_384  # longer bodies stand in the golden files as their digest


class Wire(NamedTuple):
    """A request as a client sends it: path and query percent-encoded, header names in the client's case.

    `{admin}` in a header value stands for the token of that name.
    """

    method: str
    path: str
    query: str = ""
    headers: Pairs = ()
    body: bytes = b""
    chunked: bool = False

    def framed(self) -> Pairs:
        """Return the headers with those that every client adds: Host, and the body's length if it is not there."""
        length: Pairs = ()
        if any(name == "Content-Length" for name, _ in self.headers):
            length = ()
        elif self.body and self.chunked:
            length = (("Transfer-Encoding", "chunked"),)
        elif self.body or self.method in ("POST", "PUT", "PATCH"):
            length = (("Content-Length", str(len(self.body))),)
        return (("Host", "api.example"), *self.headers, *length)


class Answer(NamedTuple):
    """A response as a client gets it."""

    status: int
    headers: Pairs = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the values of a header, joined by a comma; None if it is absent."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None


class Unlike(NamedTuple):
    """What a platform makes of an exchange that it truly cannot carry, and why.

    `seen`: core is asked this instead, and its answer to this must come back. `refused`: the platform answers by
    itself with this status, and core is not asked.
    """

    reason: str
    seen: Wire | None = None
    refused: int = 0


class Exchange(NamedTuple):
    """One step of a script.

    `advance_s` moves the clock before it, `act` is something that happens before it (see stage), `faults` maps a
    part of a key to what befalls reads of such keys from now on. `unlike` is by the name of the entry point.
    """

    name: str
    request: Wire
    advance_s: float = 0.0
    act: str = ""
    faults: Mapping[str, str] | None = None
    unlike: Mapping[str, Unlike] = {}


class Script(NamedTuple):
    """Exchanges that run in order on one fresh application; `settings` and `options` make its stage."""

    name: str
    exchanges: tuple[Exchange, ...]
    settings: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}


def asked(wire: Wire) -> Request:
    """Return what core must be given for a request, whatever the platform."""
    headers: dict[str, str] = {}
    for name, value in wire.framed():
        if name != "Transfer-Encoding":
            key = name.lower()
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    return Request(wire.method, wire.path, wire.query, headers, wire.body)


def told(response: Response) -> Answer:
    """Return core's response as an answer."""
    return Answer(response.status, tuple(response.headers), response.body)


def spelt_body(body: bytes) -> dict[str, Any]:
    """Return a body as a golden file holds it: as text, as base64, or by its digest."""
    if len(body) > MAX_TEXT:
        return {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode("ascii")}
    return {"lines": text.split("\n")} if "\n" in text else {"text": text}


def spelt_request(wire: Wire) -> dict[str, Any]:
    """Return a request as a golden file holds it."""
    found: dict[str, Any] = {"method": wire.method, "path": wire.path}
    if wire.query:
        found["query"] = wire.query
    found["headers"] = [f"{name}: {value}" for name, value in wire.framed()]
    if wire.body:
        found["body"] = spelt_body(wire.body)
    return found


def spelt_answer(answer: Answer) -> dict[str, Any]:
    """Return an answer as a golden file holds it."""
    headers = [f"{name}: {value}" for name, value in answer.headers]
    found: dict[str, Any] = {"status": answer.status, "headers": headers}
    if answer.body:
        found["body"] = spelt_body(answer.body)
    return found


def to_text(document: Any) -> str:
    """Return the text of a golden file."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
