"""Azure's messages and core's: HTTP requests and answers, and Event Grid's word that a blob was created."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import azure.functions as func

from core.errors import InvalidName, Unavailable
from core.web import Request, Response, percent_decode

if TYPE_CHECKING:
    from core.worker import Worker

CREATED = "Microsoft.Storage.BlobCreated"
# the calls that leave a blob whole; CreateFile and its like announce one that is still empty
_WHOLE = frozenset({"PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"})
_SUBJECT = "/blobServices/default/containers/"
_MAX_URL = 8192
Hint = tuple[str, str | None]  # key, and the token of its generation if the event tells
Warn = Callable[[str], object]


def to_request(message: func.HttpRequest) -> Request:
    """Return the request as core takes it.

    The host gives the URL with its path percent-encoded and its query as it came, header names in lower case,
    values of doubled headers joined by commas, and the body as bytes.
    """
    address, _, query = message.url.partition("?")
    address = address.partition("://")[2]
    start = address.find("/")
    path = address[start:] if start >= 0 else "/"
    return Request(message.method, _ascii(path), _ascii(query), dict(message.headers), message.get_body())


def from_response(response: Response) -> func.HttpResponse:
    """Return the answer in Azure's form; the host adds Content-Length."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return func.HttpResponse(response.body, status_code=response.status, headers=headers)


def created(event: Any, store_url: str, *, warn: Warn) -> list[Hint]:
    """Return key and token (None if not told) of what an Event Grid event says was created in the store.

    Takes both of Event Grid's schemas. Other types of events, other containers and what is malformed give nothing
    but a word to `warn`. Keys are relative to the store's prefix.
    """
    kind = getattr(event, "event_type", None) or getattr(event, "type", None)
    if kind != CREATED:
        warn("not a BlobCreated event")
        return []
    data = event.get_json()
    if not isinstance(data, dict) or not isinstance(data.get("url"), str) or len(data["url"]) > _MAX_URL:
        warn("malformed event")
        return []
    if str(data.get("api")) not in _WHOLE:
        warn("not a call that leaves a blob whole")
        return []
    container, _, prefix = store_url.partition("://")[2].rstrip("/").partition("/")
    root = f"{container}/{prefix}/" if prefix else f"{container}/"
    names = dict.fromkeys(_names(event.subject, data["url"]))
    keys = [name[len(root) :] for name in names if name.startswith(root) and name != root]
    if not keys:
        warn("not in this store")
    etag = data.get("eTag")
    token = etag.strip('"') if isinstance(etag, str) and etag.isascii() and etag and len(names) == 1 else None
    return [(key, token) for key in keys]


def deliver(worker: Worker, hints: Iterable[Hint], *, deadline: float) -> None:
    """Have the worker look at each object. Raises Unavailable at the end if one needs another delivery."""
    from core.worker import handle_all

    waiting = sum(found.status == "unavailable" for found in handle_all(worker, hints, deadline=deadline))
    if waiting:
        raise Unavailable(f"{waiting} of the event's objects must be delivered again")


def _names(subject: object, url: str) -> Iterator[str]:
    """Yield CONTAINER/BLOB as the URL and as the subject spell it.

    The URL is percent-encoded and the subject is not, but Event Grid has been seen to encode neither. Where they
    disagree both are told, without a token: of a blob that is not there nothing comes then.
    """
    path = url.partition("://")[2].partition("/")[2]
    try:
        yield percent_decode(_ascii(path))
    except InvalidName:
        yield path
    if isinstance(subject, str) and subject.startswith(_SUBJECT):
        container, found, blob = subject[len(_SUBJECT) :].partition("/blobs/")
        if found:
            yield f"{container}/{blob}"


def _ascii(text: str) -> str:
    """Return `text` with everything beyond ASCII percent-encoded."""
    if text.isascii():
        return text
    raw = text.encode("utf-8", "replace")
    return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in raw)
