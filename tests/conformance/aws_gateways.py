"""AWS: what API Gateway (REST and HTTP APIs), function URLs and load balancers make of a request and an answer.

Sources: the developer guides on Lambda proxy integrations of REST APIs and of HTTP APIs (payload 2.0), on binary
media types and payload compression of REST APIs, on function URLs, and on Lambda functions as targets of load
balancers. Where those are silent: events recorded on AWS and published by others. github.com/hotsock/voker pull 8:
which of them decode the path, and how often. ministackorg/ministack pull 766: which media types HTTP APIs take for
text. dougmoscrop/serverless-http issue 194: REST APIs inflate. Kludex/mangum issue 178: load balancers do not
decode. A published bug report: WWW-Authenticate is renamed.

Taken as given, since it is how the infrastructure is set up: the REST API treats */* as binary, routes are ANY /
and ANY /{proxy+}, and neither gateway is told to answer CORS itself. Assumed, since nothing is published: bodies
with a Content-Encoding come as base64 through HTTP APIs, function URLs and load balancers, whatever their type.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from handlers_aws.events import from_response, to_request
from tests.conformance.entry_point import App, EntryPoint, Refused
from tests.conformance.exchange import Answer, Pairs, Wire

Event = dict[str, Any]
PAYLOAD_BYTES = 6_291_556  # what Lambda takes and gives in a synchronous call
GATEWAY_BYTES = 10_000_000
BALANCER_BYTES = 1_048_576
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_TEXT = ("text/", "application/json", "application/javascript", "application/xml")
REMAPPED = {"www-authenticate": "x-amzn-remapped-www-authenticate"}


def invoke(app: App, event: Event) -> Any:
    """Return what the handler gives the platform."""
    return from_response(app(to_request(event)), event)


# -- requests ----------------------------------------------------------------------------------------------


def rest_event(wire: Wire) -> Event:
    """Return the event of a REST API: path as it came, query decoded, body inflated and as base64."""
    body, pairs = wire.body, [pair for pair in wire.framed() if pair[0] != "Content-Length"]
    if _value(pairs, "content-encoding") == "gzip":
        body = _inflated(body)
    query = [(name, value) for name, value in parse_qsl(wire.query, keep_blank_values=True) if name]
    return _within(
        {
            "resource": "/{proxy+}",
            "path": wire.path,
            "httpMethod": wire.method,
            "headers": dict(pairs) or None,
            "multiValueHeaders": _lists(pairs) or None,
            "queryStringParameters": dict(query) or None,
            "multiValueQueryStringParameters": _lists(query) or None,
            "pathParameters": {"proxy": wire.path[1:]} if wire.path != "/" else None,
            "stageVariables": None,
            "requestContext": {
                "resourcePath": "/{proxy+}",
                "httpMethod": wire.method,
                "path": f"/live{wire.path}",
                "protocol": "HTTP/1.1",
                "stage": "live",
                "domainName": "api.example",
                "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
                "identity": {"sourceIp": "192.0.2.1"},
            },
            "body": base64.b64encode(body).decode() if body else None,
            "isBase64Encoded": bool(body),
        },
        limit=GATEWAY_BYTES,
        size=len(body),
    )


def http_event(wire: Wire) -> Event:
    """Return the event of an HTTP API, payload 2.0: path decoded twice, query as it came."""
    domain = "0123456789.execute-api.eu-west-1.amazonaws.com"
    return _version_2(wire, _decoded_path(wire.path), wire.path, domain)


def url_event(wire: Wire) -> Event:
    """Return the event of a function URL: path and query as they came."""
    return _version_2(wire, wire.path, unquote(wire.path), "0123456789abcdef.lambda-url.eu-west-1.on.aws")


def balancer_event(wire: Wire, *, multi: bool) -> Event:
    """Return the event of a load balancer: path and query as they came; of several values all, or the last."""
    pairs = [(name.lower(), value) for name, value in wire.framed()]
    parts = [part.partition("=") for part in wire.query.split("&") if part]
    query = [(name, value) for name, _, value in parts]
    body, encoded = _spelt(wire)
    context = {
        "elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/p/6d0ecf831eec9f09"}
    }
    event: Event = {"requestContext": context, "httpMethod": wire.method, "path": wire.path}
    if multi:
        event |= {"multiValueHeaders": _lists(pairs), "multiValueQueryStringParameters": _lists(query)}
    else:
        event |= {"headers": dict(pairs), "queryStringParameters": dict(query)}
    event |= {"body": body, "isBase64Encoded": encoded}
    return _within(event, limit=BALANCER_BYTES, size=len(wire.body))


def _version_2(wire: Wire, raw_path: str, http_path: str, domain: str) -> Event:
    headers: dict[str, str] = {}
    for name, value in wire.framed():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    event: Event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": wire.query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "domainName": domain,
            "http": {"method": wire.method, "path": http_path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "$default",
            "stage": "$default",
        },
    }
    query = _lists(parse_qsl(wire.query, keep_blank_values=True))
    if query:
        event["queryStringParameters"] = {name: ",".join(values) for name, values in query.items()}
    body, event["isBase64Encoded"] = _spelt(wire)
    if body:
        event["body"] = body
    return _within(event, limit=GATEWAY_BYTES, size=len(wire.body))


def _decoded_path(path: str) -> str:
    """Return a path as HTTP APIs hand it over. Raises Refused for what is no encoding at either pass."""
    once = _unquoted(path).partition("?")[0]
    return _unquoted(once)


def _unquoted(text: str) -> str:
    for piece in text.split("%")[1:]:
        if not (len(piece) >= 2 and all(digit in "0123456789abcdefABCDEF" for digit in piece[:2])):
            raise Refused(400)
    return unquote_to_bytes(text).decode("utf-8", "replace")


def _spelt(wire: Wire) -> tuple[str, bool]:
    """Return a body as text if its type is one of text, else as base64."""
    pairs = wire.framed()
    is_text = (_value(pairs, "content-type") or "").startswith(_TEXT) and not _value(pairs, "content-encoding")
    if not wire.body or is_text:
        return wire.body.decode("utf-8", "replace"), False
    return base64.b64encode(wire.body).decode(), True


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        data = inflater.decompress(body)
    except zlib.error:
        raise Refused(400) from None
    if not inflater.eof:
        raise Refused(400)
    return data


def _value(pairs: Iterable[tuple[str, str]], name: str) -> str | None:
    return next((value.lower() for key, value in pairs if key.lower() == name), None)


def _lists(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _within(event: Event, *, limit: int, size: int) -> Event:
    """Return the event as it arrives: through JSON. Raises Refused for a request over a limit."""
    text = json.dumps(event)
    if size > limit or len(text) > PAYLOAD_BYTES:
        raise Refused(413)
    found: Event = json.loads(text)
    return found


# -- answers -----------------------------------------------------------------------------------------------


def decoder(
    *, multi: bool | None, limit: int = PAYLOAD_BYTES, renamed: Mapping[str, str] = REMAPPED
) -> Callable[[Wire, Any], Answer]:
    """Return what turns a function's result into an answer.

    `multi`: headers are read from multiValueHeaders (True), from headers (False), or from both (None).
    """

    def decode(wire: Wire, result: Any) -> Answer:
        text = json.dumps(result)
        if len(text) > limit:
            raise Refused(502)
        result = json.loads(text)
        if not isinstance(result.get("statusCode"), int):
            raise Refused(502)
        pairs = _given(result, multi)
        body = result.get("body") or ""
        data = base64.b64decode(body, validate=True) if result.get("isBase64Encoded") else body.encode()
        headers = [
            (renamed.get(name.lower(), name), value) for name, value in pairs if name.lower() != "content-length"
        ]
        if wire.method == "HEAD" or result["statusCode"] == 204:
            return Answer(result["statusCode"], tuple(headers))
        return Answer(result["statusCode"], (*headers, ("Content-Length", str(len(data)))), data)

    return decode


def _given(result: Event, multi: bool | None) -> Pairs:
    single, several = result.get("headers") or {}, result.get("multiValueHeaders") or {}
    pairs = [(name, value) for name, values in several.items() for value in values] if multi is not False else []
    if multi is not True:
        pairs += [(name, value) for name, value in single.items() if name not in several or multi is False]
    if not all(isinstance(value, str | int | bool) for _, value in pairs):
        raise Refused(502)
    return tuple((name, str(value)) for name, value in pairs)


RENAMES = "API Gateway and function URLs rename WWW-Authenticate in answers"
ENTRY_POINTS = (
    EntryPoint("api-gateway-v1", rest_event, invoke, decoder(multi=None), REMAPPED, reasons=RENAMES),
    EntryPoint("http-api-v2", http_event, invoke, decoder(multi=False), REMAPPED, reasons=RENAMES),
    EntryPoint("function-url", url_event, invoke, decoder(multi=False), REMAPPED, reasons=RENAMES),
    EntryPoint(
        "alb",
        lambda wire: balancer_event(wire, multi=False),
        invoke,
        decoder(multi=False, limit=BALANCER_BYTES, renamed={}),
    ),
    EntryPoint(
        "alb-multi",
        lambda wire: balancer_event(wire, multi=True),
        invoke,
        decoder(multi=True, limit=BALANCER_BYTES, renamed={}),
    ),
)
