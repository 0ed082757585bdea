"""HTTP without a transport: immutable requests and responses, strict bodies, the router, problem+json."""

from __future__ import annotations

import json
import re
import zlib
from binascii import unhexlify
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from core.errors import (
    ConfigError,
    CoreError,
    InvalidName,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMedia,
)
from core.tuples import NamedTuple

Headers = tuple[tuple[str, str], ...]
PUBLIC = "public"
JSON = "application/json"
PROBLEM_TYPE = "application/problem+json"
MAX_QUERY_CHARS = 4096
MAX_PATH_CHARS = 2048
_JSON_HEADERS: Headers = (("Content-Type", JSON),)


class Request(NamedTuple):
    """One request. `path` and `query` are as on the wire: percent-encoded, without `?`.

    Header names are lower-case; a header that came twice has its values joined by a comma. The body is what
    came over the wire, still in its Content-Encoding.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Response(NamedTuple):
    """One response; the transport adds Content-Length."""

    status: int
    headers: Headers = ()
    body: bytes = b""


class Endpoint(NamedTuple):
    """One row of the endpoint table.

    `permission` is what the caller's role must hold, or PUBLIC. `plane` is "http" (the reader is enough) or
    "control" (needs the store). `handler` is "module.function" within core. `takes` and `gives` name the
    message types of body and answer, "" for none or not JSON. `body` is none | json | rows | data.
    """

    method: str
    path: str
    permission: str
    plane: str
    handler: str
    takes: str
    gives: str
    summary: str
    body: str = "none"
    status: int = 200


class Match(NamedTuple):
    """What the router found: the endpoint, the decoded segments of its template, and the one that is illegal."""

    endpoint: Endpoint
    params: Mapping[str, str]
    illegal: str = ""


quote = json.encoder.encode_basestring_ascii  # a string as JSON in ASCII, with its quotes
_DUMPS = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def dumps(value: Any) -> bytes:
    """Return compact JSON in ASCII. Raises ValueError for NaN and infinities."""
    return _DUMPS(value).encode("ascii")


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Response:
    """Return a JSON answer."""
    return Response(status, _JSON_HEADERS + headers, dumps(value))


def problem(status: int, error: CoreError, request_id: str, headers: Headers = ()) -> Response:
    """Return `error` as problem+json (RFC 9457): its code, text and problems, and nothing else of it."""
    body: dict[str, Any] = {
        "type": f"urn:polysky:problem:{error.code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "code": error.code,
        "detail": error.message,
        "request_id": request_id,
    }
    problems = getattr(error, "problems", ())
    if problems:
        body["errors"] = [item.as_dict() for item in problems]
    if "limit" in error.fields:
        body["limit"] = error.fields["limit"]
    return Response(status, (("Content-Type", PROBLEM_TYPE), *headers), dumps(body))


TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_WORD = r"[A-Za-z0-9!#$&^_.+-]{1,64}"
_MEDIA = rf'({_WORD}/{_WORD})(?:[ \t]*;[ \t]*charset[ \t]*=[ \t]*("?)utf-?8\2)?'


def media_type(headers: Mapping[str, str]) -> str:
    """Return the lower-case media type of the body.

    Raises UnsupportedMedia if there is none, if it has any parameter but charset, or a charset but UTF-8.
    """
    text = headers.get("content-type")
    if text == JSON:
        return JSON
    if text is None:
        raise UnsupportedMedia("the request has a body but no Content-Type")
    found = None
    if len(text) <= 256:
        found = re.fullmatch(_MEDIA, text.strip(" \t"), re.ASCII | re.IGNORECASE)
    if found is None:
        raise UnsupportedMedia("Content-Type must be a media type, with no parameter but charset=utf-8")
    return found[1].lower()


def content(request: Request, limit: int) -> bytes:
    """Return the body with its Content-Encoding (gzip or none) undone.

    Raises TooLarge over `limit` bytes before or after, UnsupportedMedia, and MalformedBody for a body that is
    not whole.
    """
    body, headers = request.body, request.headers
    if len(body) > limit:
        raise TooLarge(f"body is over the limit of {limit} bytes", limit=limit)
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and int(length[:18]) == len(body)):
        raise MalformedBody("Content-Length is not the length of the body")
    encoding = headers.get("content-encoding")
    if encoding is None or encoding.lower() == "identity":
        return body
    if encoding.lower() != "gzip":
        raise UnsupportedMedia("Content-Encoding must be gzip or absent")
    return _gunzip(body, limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise MalformedBody("body is not valid gzip") from None
    if len(data) > limit:
        raise TooLarge(f"body is over the limit of {limit} bytes once inflated", limit=limit)
    if not inflater.eof or inflater.unused_data:
        raise MalformedBody("body is not one whole gzip member")
    return data


def percent_decode(text: str) -> str:
    """Return `text` with %XX undone once. Raises InvalidName for bad escapes and for what is not UTF-8."""
    if "%" not in text:
        return text
    head, *rest = text.split("%")
    try:
        parts = [head.encode("ascii")]
        for piece in rest:
            parts += [unhexlify(piece[:2].encode("ascii")), piece[2:].encode("ascii")]
            if len(piece) < 2:
                raise ValueError
        return b"".join(parts).decode("utf-8")
    except ValueError:
        raise InvalidName("percent-encoding is not valid") from None


def query_of(request: Request) -> dict[str, str]:
    """Return the query parameters, decoded once. Raises MalformedBody for one given twice or a long query."""
    if not request.query:
        return {}
    if len(request.query) > MAX_QUERY_CHARS:
        raise MalformedBody("query string is too long", limit=MAX_QUERY_CHARS)
    found: dict[str, str] = {}
    for pair in request.query.split("&"):
        name, _, value = pair.replace("+", " ").partition("=")
        name = percent_decode(name)
        if name in found:
            raise MalformedBody("a query parameter is given twice")
        if name:
            found[name] = percent_decode(value)
    return found


class _Node:
    __slots__ = ("fixed", "methods", "name", "open")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.open: _Node | None = None
        self.name = ""
        self.methods: dict[str, Endpoint] = {}


MAX_FOUND = 256  # paths remembered by a router


class Router:
    """Finds the endpoint of a method and path. Built once from the table."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        permissions: Iterable[str],
        illegal: Callable[[Mapping[str, str]], str] = lambda params: "",
    ) -> None:
        """`illegal` names the decoded segment that no route may have, if there is one.

        Raises ConfigError for a row without a known permission, or two rows for one route.
        """
        known = {PUBLIC, *permissions}
        self._illegal = illegal
        self._root = _Node()
        self._found: dict[tuple[str, str], Match] = {}
        for endpoint in endpoints:
            if endpoint.permission not in known:
                raise ConfigError(f"{endpoint.method} {endpoint.path} declares no known permission")
            self._add(endpoint)

    def _add(self, endpoint: Endpoint) -> None:
        node = self._root
        for segment in endpoint.path[1:].split("/"):
            if segment.startswith("{"):
                node.open = node.open or _Node()
                node = node.open
                if node.name not in ("", segment[1:-1]):
                    raise ConfigError(f"{endpoint.path} names a segment differently than another route")
                node.name = segment[1:-1]
            else:
                node = node.fixed.setdefault(segment, _Node())
        if endpoint.method in node.methods:
            raise ConfigError(f"{endpoint.method} {endpoint.path} is declared twice")
        node.methods[endpoint.method] = endpoint

    def find(self, method: str, path: str) -> Match:
        """Return the match; HEAD finds GET. Raises NotFound, MethodNotAllowed, InvalidName."""
        match = self._found.get((method, path))
        if match is None:
            match = self._match(method, path)
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[method, path] = match
        return match

    def _match(self, method: str, path: str) -> Match:
        node, params = self._walk(path)
        endpoint = node.methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed("this path does not take this method", allow=_allow(node))
        return Match(endpoint, params, self._illegal(params))

    def allow(self, path: str) -> str:
        """Return the value of the Allow header for a path. Raises NotFound, InvalidName."""
        return _allow(self._walk(path)[0])

    def _walk(self, path: str) -> tuple[_Node, dict[str, str]]:
        if not path.startswith("/") or len(path) > MAX_PATH_CHARS:
            raise NotFound("no such path")
        node: _Node | None = self._root
        params: dict[str, str] = {}
        for raw in _segments(path):
            segment = percent_decode(raw)
            assert node is not None
            if segment in node.fixed:
                node = node.fixed[segment]
            elif node.open is not None and segment:
                node = node.open
                params[node.name] = segment
            else:
                raise NotFound("no such path")
        if node is None or not node.methods:
            raise NotFound("no such path")
        return node, params


def _segments(path: str) -> Sequence[str]:
    """Return the segments; one slash at the end means nothing."""
    return (path[1:-1] if len(path) > 1 and path.endswith("/") else path[1:]).split("/")


def _allow(node: _Node) -> str:
    methods = set(node.methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in node.methods else set())
    return ", ".join(sorted(methods))
