"""Google Cloud's messages and core's: Flask's requests and answers, and the CloudEvent of a finished upload.

Of the standard library only what Flask has loaded by then, for this lies on the predict path.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import flask

from core.errors import Unavailable
from core.web import Request, Response, json_response

if TYPE_CHECKING:
    from core.worker import Outcome, Worker

FINALIZED = "google.cloud.storage.object.v1.finalized"
MAX_EVENT_BYTES = 1 << 20  # twice what Eventarc delivers
MAX_BODY_BYTES = 32 << 20  # what Cloud Run delivers
_STRUCTURED = "application/cloudevents+json"
_UNPREFIXED = {"CONTENT_TYPE": "content-type", "CONTENT_LENGTH": "content-length"}
Hint = tuple[str, str | None]  # key and generation
Warn = Callable[[str], object]


def to_request(request: flask.Request, limit: int = MAX_BODY_BYTES) -> Request:
    """Return the request as it came over the wire; of a body over `limit` bytes only the first, and one more."""
    path, query = _target(request.environ)
    return Request(request.method, path, query, _headers(request.environ), _body(request, limit))


def _target(environ: Mapping[str, Any]) -> tuple[str, str]:
    """Return path and query, percent-encoded: those of the request line where the server tells it."""
    line = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not line:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return quote(path, safe="/!$&'()*+,;=:@", encoding="latin-1"), _ascii(environ.get("QUERY_STRING", ""))
    if not line.startswith("/"):  # the absolute form, as a proxy is sent it
        line = "/" + line.partition("://")[2].partition("/")[2] if "://" in line else line
    path, _, query = line.partition("?")
    return _ascii(path), _ascii(query)


def _ascii(text: str) -> str:
    """Return a text of WSGI, whose characters are bytes, with what is beyond ASCII percent-encoded."""
    if text.isascii():
        return text
    return "".join(char if char < "\x80" else f"%{ord(char):02X}" for char in text)


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    headers = {name: environ[key] for key, name in _UNPREFIXED.items() if environ.get(key)}
    for key, value in environ.items():
        if key.startswith("HTTP_") and key[5:] not in _UNPREFIXED:
            headers[key[5:].replace("_", "-").lower()] = value
    return headers


def _body(request: flask.Request, limit: int) -> bytes:
    parts: list[bytes] = []
    missing = limit + 1
    while missing and (part := request.stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def from_response(response: Response) -> flask.Response:
    """Return the answer to the current request in Flask's form, which adds Content-Length and no other header."""
    answer = flask.Response(response.body, response.status, list(response.headers))
    if not any(name.lower() == "content-type" for name, _ in response.headers):
        del answer.headers["Content-Type"]
    if flask.request.method == "HEAD":  # the length of the body that a GET would have is not known any more
        answer.automatically_set_content_length = False
        del answer.headers["Content-Length"]
    return answer


def answer_every_path(answer: Callable[[flask.Request], Any]) -> None:
    """Have `answer` called before Flask's routing, which redirects `//` and answers /robots.txt by itself."""
    if flask.has_app_context():
        flask.current_app.before_request(lambda: answer(flask.request))


def created(event: Request, store_url: str, *, warn: Warn) -> list[Hint]:
    """Return key and token of the object that a CloudEvent, as Eventarc posts it, says was finished in the store.

    Binary and structured mode. Other types, other buckets and what is malformed give nothing but a word to `warn`.
    Keys are relative to the store's prefix.
    """
    try:
        kind, data = _cloud_event(event)
    except (ValueError, RecursionError):
        warn("malformed event")
        return []
    if kind != FINALIZED:
        warn("not a finalized event")
        return []
    bucket, name, generation = (data.get(field) for field in ("bucket", "name", "generation"))
    if not (isinstance(bucket, str) and isinstance(name, str) and _is_generation(generation)):
        warn("malformed event")
        return []
    home, _, prefix = store_url.partition("://")[2].partition("/")
    prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
    if bucket != home or not name.startswith(prefix) or name == prefix:
        warn("not in this store")
        return []
    return [(name[len(prefix) :], str(generation))]


def deliver(worker: Worker, hints: Iterable[Hint], *, deadline: float) -> Response:
    """Return what the worker makes of each object; 503 if one needs another delivery."""
    from core.worker import handle_all

    outcomes = handle_all(worker, hints, deadline=deadline)
    is_done = all(outcome.status != "unavailable" for outcome in outcomes)
    return _summary(outcomes, 200 if is_done else 503)


def reconcile(worker: Worker, *, deadline: float) -> Response:
    """Return what the worker makes of everything that waits; 503 if it cannot even look."""
    try:
        return _summary(worker.tick(deadline=deadline), 200)
    except Unavailable:
        return _summary((), 503)


def _summary(outcomes: Iterable[Outcome], status: int) -> Response:
    told = [{"key": found.key, "status": found.status, "version": found.version} for found in outcomes]
    return json_response({"outcomes": told}, status)


def _cloud_event(event: Request) -> tuple[str, Mapping[str, Any]]:
    """Return type and data. Raises ValueError, RecursionError."""
    if len(event.body) > MAX_EVENT_BYTES:
        raise ValueError("too large")
    found = json.loads(event.body)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    if not event.headers.get("content-type", "").lower().startswith(_STRUCTURED):
        return event.headers.get("ce-type", ""), found
    data = found.get("data")
    if isinstance(found.get("data_base64"), str):
        data = json.loads(b64decode(found["data_base64"], validate=True))
    elif isinstance(data, str):
        data = json.loads(data)
    if not isinstance(data, dict):
        raise ValueError("no data")
    return str(found.get("type", "")), data


def _is_generation(value: object) -> bool:
    """Return whether JSON holds a generation: an int64, which Google writes as a string."""
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    return len(text) <= 19 and text.isascii() and text.isdigit() and not text.startswith("0")
