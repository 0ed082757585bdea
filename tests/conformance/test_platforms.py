"""The platforms' side of the entry points does what the providers document and what was recorded on them."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from tests.conformance.aws_gateways import balancer_event, decoder, http_event, rest_event, url_event
from tests.conformance.azure_host import host_path, rpc_http
from tests.conformance.cloud_run import request_bytes
from tests.conformance.entry_point import Refused
from tests.conformance.exchange import Answer, Wire

DECODED = {
    "/capture/plain": "/capture/plain",
    "/capture/space%20value": "/capture/space value",
    "/capture/question%3Fvalue": "/capture/question",
    "/capture/hash%23value": "/capture/hash#value",
    "/capture/slash%2Fvalue": "/capture/slash/value",
    "/capture/unicode-%CE%BB-%E4%B8%96%E7%95%8C": "/capture/unicode-λ-世界",
    "/capture/literal%252Fvalue": "/capture/literal/value",
    "/capture/literal%253Fvalue": "/capture/literal?value",
    "/capture/literal%2525value": "/capture/literal%value",
}


@pytest.mark.parametrize(("sent", "delivered"), DECODED.items())
def test_http_apis_decode_the_path_twice_and_the_others_keep_it(sent: str, delivered: str) -> None:
    wire = Wire("GET", sent)
    assert http_event(wire)["rawPath"] == delivered
    assert {rest_event(wire)["path"], url_event(wire)["rawPath"]} == {sent}
    assert {balancer_event(wire, multi=multi)["path"] for multi in (True, False)} == {sent}


def test_http_apis_refuse_a_percent_sign_that_encodes_nothing() -> None:
    with pytest.raises(Refused) as caught:
        http_event(Wire("GET", "/capture/percent%25done"))
    assert caught.value.status == 400


def test_queries_are_decoded_by_rest_apis_alone() -> None:
    wire = Wire("GET", "/", "repeat=one&repeat=two&encodedPlus=a%2Bb&literalPlus=a+b&empty=")
    rest, balancer = rest_event(wire), balancer_event(wire, multi=True)
    assert rest["multiValueQueryStringParameters"] == {
        "repeat": ["one", "two"],
        "encodedPlus": ["a+b"],
        "literalPlus": ["a b"],
        "empty": [""],
    }
    assert rest["queryStringParameters"]["repeat"] == "two"
    assert balancer["multiValueQueryStringParameters"]["encodedPlus"] == ["a%2Bb"]
    assert balancer_event(wire, multi=False)["queryStringParameters"]["repeat"] == "two"
    assert http_event(wire)["rawQueryString"] == url_event(wire)["rawQueryString"] == wire.query


def test_doubled_headers_are_lists_or_joined_or_the_last() -> None:
    wire = Wire("GET", "/", headers=(("x-probe", "first"), ("x-probe", "second")))
    assert rest_event(wire)["multiValueHeaders"]["x-probe"] == ["first", "second"]
    assert rest_event(wire)["headers"]["x-probe"] == "second"
    assert http_event(wire)["headers"]["x-probe"] == "first,second"
    assert balancer_event(wire, multi=True)["multiValueHeaders"]["x-probe"] == ["first", "second"]
    assert balancer_event(wire, multi=False)["headers"]["x-probe"] == "second"


@pytest.mark.parametrize(
    ("media", "is_text"),
    [
        ("text/csv", True),
        ("application/json", True),
        ("application/xml", True),
        ("application/javascript", True),
        ("image/png", False),
        ("application/octet-stream", False),
        ("application/x-www-form-urlencoded", False),
    ],
)
def test_bodies_that_are_no_text_come_as_base64(media: str, is_text: bool) -> None:
    wire = Wire("POST", "/", headers=(("Content-Type", media),), body=b"body")
    events = [http_event(wire), url_event(wire), balancer_event(wire, multi=False)]
    assert [event["isBase64Encoded"] for event in events] == [not is_text] * 3
    assert {event["body"] for event in events} == {"body" if is_text else base64.b64encode(b"body").decode()}


def test_rest_apis_inflate_and_encode_all_bodies() -> None:
    wire = Wire("POST", "/", headers=(("Content-Encoding", "gzip"),), body=gzip.compress(b"body", mtime=0))
    event = rest_event(wire)
    assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (b"body", True)
    assert event["headers"]["Content-Encoding"] == "gzip"
    assert "Content-Length" not in event["headers"]


@pytest.mark.parametrize(
    ("body", "event"), [(None, rest_event(Wire("GET", "/"))), ("", balancer_event(Wire("GET", "/"), multi=False))]
)
def test_no_body_is_null_or_empty(body: str | None, event: dict[str, Any]) -> None:
    assert (event["body"], event["isBase64Encoded"]) == (body, False)


def test_an_answer_is_read_from_where_the_balancer_looks() -> None:
    result = {"statusCode": 200, "headers": {"A": "1"}, "multiValueHeaders": {"B": ["2"]}, "body": "x"}
    wire = Wire("GET", "/")
    single, several = decoder(multi=False, renamed={}), decoder(multi=True, renamed={})
    assert single(wire, result).headers == (("A", "1"), ("Content-Length", "1"))
    assert several(wire, result).headers == (("B", "2"), ("Content-Length", "1"))


@pytest.mark.parametrize("result", [{"body": "x"}, {"statusCode": 200, "body": "x" * 2_000_000}])
def test_a_malformed_or_large_answer_is_a_bad_gateway(result: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        decoder(multi=False, limit=1_048_576)(Wire("GET", "/"), result)
    assert caught.value.status == 502


def test_a_head_request_gets_no_body() -> None:
    found = decoder(multi=False)(Wire("HEAD", "/"), {"statusCode": 200, "headers": {}, "body": "x"})
    assert found == Answer(200)


@pytest.mark.parametrize(
    ("sent", "delivered"),
    [
        ("/a%20b", "/a%20b"),
        ("/%73upport", "/support"),
        ("/a%2Fb", "/a%2Fb"),
        ("/%E4%B8%96", "/%E4%B8%96"),
        ("/%FF", "/%FF"),
        ("/50%25", "/50%25"),
        ("/a%zz", "/a%25zz"),
        ("/%2573", "/%73"),
        ("/a+b:c@d", "/a+b:c@d"),
    ],
)
def test_the_functions_host_decodes_the_path_and_encodes_it_again(sent: str, delivered: str) -> None:
    assert host_path(sent) == delivered


def test_the_functions_host_hands_over_no_body_without_a_length() -> None:
    wire = Wire("POST", "/", body=b"body")
    assert rpc_http(wire)["body"] == b"body"
    assert rpc_http(wire._replace(chunked=True))["body"] == b""


def test_chunks_are_framed() -> None:
    sent = request_bytes(Wire("POST", "/x", "a=1", body=b"body", chunked=True))
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x?a=1 HTTP/1.1\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"


def test_events_are_json() -> None:
    wire = Wire("POST", "/", "a=1", (("Content-Type", "image/png"),), b"\x89PNG")
    for event in (rest_event(wire), http_event(wire), url_event(wire), balancer_event(wire, multi=True)):
        assert json.loads(json.dumps(event)) == event
