"""Adapters with a planted fault, to see that the comparison reports it."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from core.web import Request, Response
from tests.conformance.entry_point import Invoke

Wrap = Callable[[Invoke], Invoke]


class Fault(NamedTuple):
    """A way to break an adapter, and the scripts that should notice."""

    name: str
    wrap: Wrap
    scripts: tuple[str, ...]


def asking(change: Callable[[Request], Request]) -> Wrap:
    """Return a wrap that gives core another request than the adapter made."""
    return lambda invoke: lambda app, event: invoke(lambda request: app(change(request)), event)


def telling(change: Callable[[Response], Response]) -> Wrap:
    """Return a wrap that gives the adapter another response than core made."""
    return lambda invoke: lambda app, event: invoke(lambda request: change(app(request)), event)


def called_with(change: Callable[[Any], Any]) -> Wrap:
    """Return a wrap that misreads what the platform calls with."""
    return lambda invoke: lambda app, event: invoke(app, change(event))


def giving(change: Callable[[Any], Any]) -> Wrap:
    """Return a wrap that gives the platform something else."""
    return lambda invoke: lambda app, event: change(invoke(app, event))


def _without(headers: Iterable[tuple[str, str]], name: str) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in headers if pair[0].lower() != name)


def _last_of_several(request: Request) -> Request:
    last = dict(part.partition("=")[::2] for part in request.query.split("&"))
    return request._replace(query="&".join(f"{name}={value}" for name, value in last.items()))


def _inflated(request: Request) -> Request:
    is_packed = request.body[:2] == b"\x1f\x8b"
    return request._replace(body=gzip.decompress(request.body)) if is_packed else request


def _as_text(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode()


ANYWHERE = (
    Fault("loses the query", asking(lambda request: request._replace(query="")), ("pins",)),
    Fault(
        "decodes the query", asking(lambda request: request._replace(query=unquote(request.query))), ("models",)
    ),
    Fault("decodes the path", asking(lambda request: request._replace(path=unquote(request.path))), ("paths",)),
    Fault(
        "encodes the path",
        asking(lambda request: request._replace(path=request.path.replace("%", "%25"))),
        ("paths",),
    ),
    Fault(
        "loses a header",
        asking(
            lambda request: request._replace(headers=dict(_without(request.headers.items(), "x-model-version")))
        ),
        ("pins",),
    ),
    Fault(
        "keeps header names as they came",
        asking(
            lambda request: request._replace(
                headers={key.title(): value for key, value in request.headers.items()}
            )
        ),
        ("forms",),
    ),
    Fault(
        "takes bytes for text", asking(lambda request: request._replace(body=_as_text(request.body))), ("forms",)
    ),
    Fault("loses the body", asking(lambda request: request._replace(body=b"")), ("forms",)),
    Fault(
        "takes HEAD for GET",
        asking(lambda request: request._replace(method=request.method.replace("HEAD", "POST"))),
        ("methods",),
    ),
    Fault("loses the status", telling(lambda response: response._replace(status=200)), ("methods",)),
    Fault(
        "loses a header of the answer",
        telling(lambda response: response._replace(headers=_without(response.headers, "x-model-version"))),
        ("forms",),
    ),
    Fault(
        "answers bytes as text",
        telling(lambda response: response._replace(body=_as_text(response.body))),
        ("docs",),
    ),
)
INFLATES = Fault("inflates bodies and keeps the header", asking(_inflated), ("compressed",))
LAST_ONLY = Fault("keeps the last of doubled parameters", asking(_last_of_several), ("pins",))


def _changed(**fields: Any) -> Callable[[Mapping[str, Any]], Any]:
    return lambda found: {**found, **fields}


SKIPS_BASE64 = Fault("skips base64", called_with(_changed(isBase64Encoded=False)), ("forms",))
ANSWERS_BASE64 = Fault("does not tell of base64", giving(_changed(isBase64Encoded=False)), ("docs",))


def _single(result: Mapping[str, Any]) -> Any:
    several = result.get("multiValueHeaders") or {}
    return {**result, "multiValueHeaders": None, "headers": {name: values[-1] for name, values in several.items()}}


def _several(result: Mapping[str, Any]) -> Any:
    single = result.get("headers") or {}
    return {**result, "headers": None, "multiValueHeaders": {name: [value] for name, value in single.items()}}


_LAMBDA = (SKIPS_BASE64, ANSWERS_BASE64)
# a path that an HTTP API has decoded twice holds an escape only for what no name may hold
UNSEEN = {("http-api-v2", "encodes the path")}
OF: Mapping[str, tuple[Fault, ...]] = {
    "api-gateway-v1": (
        *_LAMBDA,
        LAST_ONLY,
        Fault("reads single headers only", called_with(_changed(multiValueHeaders=None)), ("pins",)),
        Fault(
            "reads single parameters only", called_with(_changed(multiValueQueryStringParameters=None)), ("pins",)
        ),
    ),
    "http-api-v2": (*_LAMBDA, LAST_ONLY, INFLATES, Fault("answers in lists", giving(_several), ("forms",))),
    "function-url": (*_LAMBDA, LAST_ONLY, INFLATES, Fault("answers in lists", giving(_several), ("forms",))),
    "alb": (*_LAMBDA, INFLATES, Fault("answers in lists", giving(_several), ("forms",))),
    "alb-multi": (*_LAMBDA, LAST_ONLY, INFLATES, Fault("answers one value a header", giving(_single), ("forms",))),
    "functions-framework": (LAST_ONLY, INFLATES),
    "azure": (LAST_ONLY, INFLATES),
    "onprem": (
        LAST_ONLY,
        INFLATES,
        Fault("reads the first part only", called_with(lambda call: _cut(call)), ("forms",)),
    ),
}


def _cut(call: Any) -> Any:
    return call._replace(messages=[{**call.messages[0], "more_body": False}])
