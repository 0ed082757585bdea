"""Azure Functions: what the host makes of a request, and the worker's own converters around the function.

Source of the host's side: GrpcMessageConversionExtensions.ToRpcHttp in github.com/Azure/azure-functions-host. The
URL is scheme, host, ASP.NET Core's Path (decoded by Kestrel but for %2F, encoded again by
PathString.ToUriComponent) and the query string as it came. Header names are in lower case, values of one that came
twice joined by a comma; query parameters are decoded, those without a value left out. A body comes only if
Content-Length is above zero, and as bytes, which the Python worker asks for (RawHttpBodyBytes). Answers: status,
headers by name, and the body as bytes.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote

import azure.functions as func
from azure.functions.http import HttpRequestConverter, HttpResponseConverter
from azure.functions.meta import Datum

from handlers_azure.events import from_response, to_request
from tests.conformance.entry_point import App, EntryPoint
from tests.conformance.exchange import Answer, Wire

_KEPT = re.compile(r"%(?:[0-9A-Fa-f]{2})|[A-Za-z0-9\-._~!$&'()*+,;=:@/]")


def rpc_http(wire: Wire) -> Datum:
    """Return the message that the host sends to the worker, as the worker's runtime holds it."""
    headers: dict[str, str] = {}
    for name, value in wire.framed():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    query: dict[str, str] = {}
    for name, value in parse_qsl(wire.query):
        query[name] = f"{query[name]},{value}" if name in query else value
    path = host_path(wire.path)
    url = f"https://api.example{path}" + (f"?{wire.query}" if wire.query else "")
    body = b"" if wire.chunked else wire.body
    return Datum(
        type="http",
        value={
            "method": _text(wire.method),
            "url": _text(url),
            "headers": {name: _text(value) for name, value in headers.items()},
            "query": {name: _text(value) for name, value in query.items()},
            "params": {"path": _text(unquote(path)[1:])} if path != "/" else {},
            "body": Datum(type="bytes", value=body),
        },
    )


def _text(value: str) -> Datum:
    return Datum(type="string", value=value)


def host_path(path: str) -> str:
    """Return a path as the host spells it in the URL: decoded once but for %2F, then encoded where it must be."""
    pieces = re.split("(%2[Ff])", path)
    decoded = "".join(piece if index % 2 else _decoded(piece) for index, piece in enumerate(pieces))
    spelt, position = "", 0
    while position < len(decoded):
        kept = _KEPT.match(decoded, position)
        text = kept[0] if kept else decoded[position]
        spelt += text if kept else "".join(f"%{byte:02X}" for byte in text.encode())
        position += len(text)
    return spelt


def _decoded(text: str) -> str:
    """Return `text` with the escapes undone that spell UTF-8; Kestrel leaves others as they are."""
    return re.sub("(?:%[0-9A-Fa-f]{2})+", lambda found: _utf8(found[0]), text)


def _utf8(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def invoke(app: App, event: Datum) -> Datum:
    """Return the message that the worker sends back."""
    request: func.HttpRequest = HttpRequestConverter.decode(event, trigger_metadata=None)
    return HttpResponseConverter.encode(from_response(app(to_request(request))), expected_type=None)


def decode(wire: Wire, result: Datum) -> Answer:
    """Return what a client gets."""
    found: dict[str, Any] = result.value
    headers = tuple((name, str(value.value)) for name, value in found["headers"].items())
    status, body = int(found["status_code"].value), bytes(found["body"].value)
    if wire.method == "HEAD" or status == 204:
        return Answer(status, headers)
    return Answer(status, (*headers, ("Content-Length", str(len(body)))), body)


ENTRY_POINTS = (
    EntryPoint(
        "azure",
        rpc_http,
        invoke,
        decode,
        added=frozenset({"content-type"}),
        reasons="azure.functions gives an answer without a Content-Type one of text/plain",
    ),
)
