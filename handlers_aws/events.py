"""AWS's events and core's messages: API Gateway (REST and HTTP APIs), function URLs, load balancers; S3.

Of the standard library only what the Lambda runtime has loaded by then, for this lies on the predict path.
"""

from __future__ import annotations

import re
import time
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from core.errors import Unavailable
from core.web import TITLES, Request, Response

if TYPE_CHECKING:
    from core.worker import Outcome, Worker

Json = Mapping[str, Any]
Hint = tuple[str, str | None]  # key and ETag
Warn = Callable[[str], object]
CREATED, EVENTBRIDGE_CREATED = "ObjectCreated:", "Object Created"
_STATUS = {**TITLES, 201: "Created", 202: "Accepted", 204: "No Content"}
_URL_DOMAIN = ".lambda-url."
_GZIP = b"\x1f\x8b"
# what cannot stand in a path: as it came, and where the platform decoded it
_UNSAFE = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]", re.ASCII)
_UNSAFE_DECODED = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:@/-]", re.ASCII)
_UNSAFE_PART = re.compile(r"[^A-Za-z0-9._~-]", re.ASCII)
_TEXT = re.compile(r"text/|application/(json|[a-z0-9.-]+\+json|javascript)\b|image/svg\+xml\b", re.ASCII)
_ETAG = re.compile(r"[0-9A-Za-z-]{1,128}", re.ASCII)

# -- HTTP --------------------------------------------------------------------------------------------------


def to_request(event: object) -> Request:
    """Return the request as it came over the wire; of what is no request of HTTP, one that core refuses."""
    found = event if isinstance(event, dict) else {}
    if "rawPath" in found:
        request = _version_2(found)
    elif "elb" in _object(found.get("requestContext")):
        request = _balanced(found)
    else:
        request = _version_1(found)
    return request


def _version_2(event: Json) -> Request:
    """Return the request of a function URL, whose path is as it came, or of an HTTP API, which decodes it."""
    context, headers = _object(event.get("requestContext")), _joined(event.get("headers"))
    unsafe = _UNSAFE if _URL_DOMAIN in _text(context.get("domainName")) else _UNSAFE_DECODED
    path, method = _quoted(_text(event["rawPath"]), unsafe), _text(_object(context.get("http")).get("method"))
    return Request(method, path, _text(event.get("rawQueryString")), headers, _body(event, headers))


def _version_1(event: Json) -> Request:
    """Return the request of a REST API: the path is as it came, the query decoded, a gzip body inflated."""
    headers = _joined(event.get("multiValueHeaders") or event.get("headers"))
    body = _body(event, headers)
    if headers.get("content-encoding", "").lower() == "gzip" and not body.startswith(_GZIP):
        for name in ("content-encoding", "content-length"):
            headers.pop(name, None)
    pairs = _pairs(event.get("multiValueQueryStringParameters") or event.get("queryStringParameters"))
    query = "&".join(f"{_quoted(name, _UNSAFE_PART)}={_quoted(value, _UNSAFE_PART)}" for name, value in pairs)
    path = _quoted(_text(event.get("path")), _UNSAFE)
    return Request(_text(event.get("httpMethod")), path, query, headers, body)


def _balanced(event: Json) -> Request:
    """Return the request of a load balancer, which decodes nothing."""
    headers = _joined(event.get("multiValueHeaders") or event.get("headers"))
    pairs = _pairs(event.get("multiValueQueryStringParameters") or event.get("queryStringParameters"))
    query = "&".join(f"{name}={value}" for name, value in pairs)
    path = _quoted(_text(event.get("path")), _UNSAFE)
    return Request(_text(event.get("httpMethod")), path, query, headers, _body(event, headers))


def from_response(response: Response, event: object) -> dict[str, Any]:
    """Return the answer in the form that the source of `event` takes. Each adds Content-Length itself."""
    found = event if isinstance(event, dict) else {}
    answer: dict[str, Any] = {"statusCode": response.status}
    if "elb" in _object(found.get("requestContext")):
        answer["statusDescription"] = f"{response.status} {_STATUS.get(response.status, 'OK')}"
    if "multiValueHeaders" in found:
        several: dict[str, list[str]] = {}
        for name, value in response.headers:
            several.setdefault(name, []).append(value)
        answer["multiValueHeaders"] = several
    else:
        single: dict[str, str] = {}
        for name, value in response.headers:
            single[name] = f"{single[name]}, {value}" if name in single else value
        answer["headers"] = single
    answer["body"], answer["isBase64Encoded"] = _spelt(response)
    return answer


def _spelt(response: Response) -> tuple[str, bool]:
    kind = next((value for name, value in response.headers if name.lower() == "content-type"), "")
    encoded = any(name.lower() == "content-encoding" for name, _ in response.headers)
    if _TEXT.match(kind) and not encoded:
        try:
            return response.body.decode(), False
        except UnicodeDecodeError:
            pass
    return b2a_base64(response.body, newline=False).decode("ascii"), bool(response.body)


def _body(event: Json, headers: dict[str, str]) -> bytes:
    text = _text(event.get("body"))
    if event.get("isBase64Encoded") is not True:
        return text.encode("utf-8", "surrogatepass")
    try:
        return a2b_base64(text, strict_mode=True) if text else b""
    except ValueError:
        headers["content-length"] = "unknown"  # has core refuse what did not come whole
        return b""


def _joined(headers: object) -> dict[str, str]:
    """Return headers by their lower-case names, values of the same name joined by a comma."""
    joined: dict[str, str] = {}
    for name, value in _pairs(headers):
        key = name.lower()
        joined[key] = f"{joined[key]},{value}" if key in joined else value
    return joined


def _pairs(found: object) -> Iterator[tuple[str, str]]:
    """Yield names and values of an object of texts, or of lists of texts."""
    for name, values in _object(found).items():
        for value in values if isinstance(values, list) else (values,):
            if isinstance(value, str):
                yield name, value


def _quoted(text: str, unsafe: re.Pattern[str]) -> str:
    return unsafe.sub(_octets, text)


def _octets(found: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in found[0].encode("utf-8", "surrogatepass"))


def _object(found: object) -> Json:
    return found if isinstance(found, dict) else {}


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""


# -- storage -----------------------------------------------------------------------------------------------


def created(event: object, store_url: str, *, warn: Warn) -> list[Hint]:
    """Return key and token of each object that an event of S3 says was created in the store.

    Notifications as S3 sends them, and as EventBridge does. Other buckets, deletions and what is malformed give
    nothing but a word to `warn`. Keys are relative to the store's prefix.
    """
    bucket, _, prefix = store_url.partition("://")[2].partition("/")
    prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
    hints = []
    for home, name, token in _objects(event, warn):
        if home != bucket or not name.startswith(prefix) or name == prefix:
            warn("not in this store")
        else:
            hints.append((name[len(prefix) :], token))
    return hints


def _objects(event: object, warn: Warn) -> Iterator[tuple[str, str, str | None]]:
    """Yield bucket, name and token of each object created."""
    found = _object(event)
    if found.get("Event") == "s3:TestEvent":  # sent once, when a bucket is told to notify
        return
    if found.get("source") == "aws.s3":
        records = [_bridged(found)]
    elif isinstance(found.get("Records"), list):
        records = [_notified(_object(record)) for record in found["Records"]]
    else:
        records = ["malformed event"]
    for record in records:
        if isinstance(record, str):
            warn(record)
        else:
            yield record


def _notified(record: Json) -> tuple[str, str, str | None] | str:
    """Return what a notification's record tells, its key decoded; or why it counts for nothing."""
    from urllib.parse import unquote_plus

    if not _text(record.get("eventName")).startswith(CREATED):
        return "not an event of a new object" if record.get("eventSource") == "aws:s3" else "malformed event"
    found = _named(_object(record.get("s3")), "eTag")
    if isinstance(found, str):
        return found
    try:
        return found[0], unquote_plus(found[1], errors="strict"), found[2]
    except UnicodeDecodeError:
        return "malformed event"


def _bridged(event: Json) -> tuple[str, str, str | None] | str:
    """Return what an event of EventBridge tells, whose key is not encoded; or why it counts for nothing."""
    if event.get("detail-type") != EVENTBRIDGE_CREATED:
        return "not an event of a new object"
    return _named(_object(event.get("detail")), "etag")


def _named(found: Json, etag: str) -> tuple[str, str, str | None] | str:
    item = _object(found.get("object"))
    bucket, name = _object(found.get("bucket")).get("name"), item.get("key")
    if not (isinstance(bucket, str) and isinstance(name, str)):
        return "malformed event"
    token = _text(item.get(etag)).strip('"')
    return bucket, name, token if _ETAG.fullmatch(token) else None


def deliver(worker: Worker, hints: Iterable[Hint], *, deadline: float) -> dict[str, Any]:
    """Return what the worker makes of each object. Raises Unavailable, when all were tried, if one needs more."""
    from core.worker import handle_all

    outcomes = handle_all(worker, hints, deadline=deadline)
    waiting = sum(outcome.status == "unavailable" for outcome in outcomes)
    if waiting:
        raise Unavailable(f"{waiting} of the event's objects must be delivered again")
    return summary(outcomes)


def deadline(context: Any) -> float:
    """Return when Lambda ends this invocation, in seconds since the epoch."""
    return time.time() + float(context.get_remaining_time_in_millis()) / 1000.0


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return outcomes as the function's result."""
    return {"outcomes": [{"key": o.key, "status": o.status, "version": o.version} for o in outcomes]}
