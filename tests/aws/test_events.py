"""AWS's events become core's requests and hints, and core's answers what each source takes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Unavailable
from core.web import Request, Response
from core.worker import Event, Outcome
from handlers_aws.events import created, deadline, deliver, from_response, to_request
from tests.aws.recorded import Context, event

BODY = '{"text": "grüße & küsse"}'.encode()
GATEWAYS = ["rest", "http_api", "function_url", "balancer", "balancer_multi"]


def quiet(_: str) -> None:
    pass


def test_a_rest_api_keeps_the_path_and_decodes_query_and_body() -> None:
    request = to_request(event("rest"))
    assert (request.method, request.path, request.body) == ("POST", "/predict/mood%2Dx", BODY)
    assert request.query == "version=staging&version=v%201&q=a%26b%3D%C3%BC"
    assert (request.headers["content-type"], request.headers["x-twice"]) == ("application/json", "a,b")


def test_a_rest_api_may_tell_of_single_values_only() -> None:
    found = event("rest")
    found["multiValueHeaders"] = found["multiValueQueryStringParameters"] = None
    request = to_request(found)
    assert request.query == "version=v%201&q=a%26b%3D%C3%BC"
    assert request.headers["x-twice"] == "b"


def test_a_body_that_a_rest_api_inflated_loses_its_encoding() -> None:
    found = event("rest")
    found["multiValueHeaders"] |= {"Content-Encoding": ["gzip"], "Content-Length": ["31"]}
    request = to_request(found)
    assert not {"content-encoding", "content-length"} & set(request.headers)
    found["body"] = base64.b64encode(b"\x1f\x8b rest").decode()
    assert to_request(found).headers["content-encoding"] == "gzip"


def test_an_http_api_decodes_the_path_which_is_encoded_again() -> None:
    request = to_request(event("http_api"))
    assert (request.method, request.path, request.body) == ("POST", "/predict/m%C3%B6d%2050%25", BODY)
    assert request.query == "version=v%201&version=staging"
    assert request.headers["x-twice"] == "a,b"


def test_a_function_url_keeps_the_path() -> None:
    found = event("function_url")
    assert to_request(found).path == "/predict/m%C3%B6d"
    found["rawPath"] = "/predict/%zz%2"
    assert to_request(found).path == "/predict/%zz%2"


def test_a_load_balancer_decodes_nothing() -> None:
    request = to_request(event("balancer"))
    assert request == Request("POST", "/predict/m%C3%B6d", "version=v%201", event("balancer")["headers"], BODY)
    several = to_request(event("balancer_multi"))
    assert (several.query, several.body) == ("version=v%201&version=staging", b"\x89PNG\r\n")
    assert several.headers["x-twice"] == "a,b"


@pytest.mark.parametrize("body", ["!!!!QUJD", "QUJ", "QUJD=", "QUI=QUJD", "QUJD\n", "ü"])
@pytest.mark.parametrize("name", GATEWAYS)
def test_a_body_that_is_no_base64_did_not_come_whole(name: str, body: str) -> None:
    request = to_request({**event(name), "body": body, "isBase64Encoded": True})
    assert (request.body, request.headers["content-length"]) == (b"", "unknown")


@pytest.mark.parametrize("malformed", event("malformed"))
def test_malformed_events_become_requests_that_core_refuses(malformed: Any) -> None:
    request = to_request(malformed)
    assert all(isinstance(part, str) for part in (request.method, request.path, request.query))
    assert request.path.isascii()
    json.dumps(from_response(Response(401), malformed))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*("rawPath", "requestContext", "headers", "multiValueHeaders", "body", "isBase64Encoded", "path"),
     *("httpMethod", "queryStringParameters", "multiValueQueryStringParameters", "Records", "source", "detail")]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(FIELDS, JSON), st.sampled_from([{}, *map(event, GATEWAYS), event("s3"), event("eventbridge")])
)
def test_no_event_whatever_breaks_a_handler(parts: dict[str, Any], base: dict[str, Any]) -> None:
    found = {**base, **parts}
    assert isinstance(to_request(found), Request)
    json.dumps(from_response(Response(200, (), b"x"), found))
    assert isinstance(created(found, "s3://shop", warn=quiet), list)


ANSWER = Response(200, (("Content-Type", "application/json"), ("Vary", "Origin"), ("Vary", "Accept")), b'{"a":1}')


def test_gateways_take_single_headers_and_load_balancers_a_description() -> None:
    headers = {"Content-Type": "application/json", "Vary": "Origin, Accept"}
    expected = {"statusCode": 200, "headers": headers, "body": '{"a":1}', "isBase64Encoded": False}
    assert from_response(ANSWER, event("http_api")) == expected
    assert from_response(ANSWER, event("function_url")) == expected
    assert from_response(ANSWER, event("balancer")) == {**expected, "statusDescription": "200 OK"}


def test_who_sends_lists_of_values_is_answered_in_lists() -> None:
    several = {"Content-Type": ["application/json"], "Vary": ["Origin", "Accept"]}
    for name in ("rest", "balancer_multi"):
        answer = from_response(ANSWER, event(name))
        assert answer["multiValueHeaders"] == several
        assert "headers" not in answer


@pytest.mark.parametrize(
    ("status", "text"), [(202, "202 Accepted"), (204, "204 No Content"), (404, "404 Not Found"), (299, "299 OK")]
)
def test_the_description_is_that_of_the_status(status: int, text: str) -> None:
    assert from_response(Response(status), event("balancer"))["statusDescription"] == text


@pytest.mark.parametrize(
    ("headers", "body", "is_text"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "ü".encode(), True),
        ({"Content-Type": "application/problem+json"}, b"{}", True),
        ({"Content-Type": "application/javascript"}, b"x", True),
        ({"Content-Type": "image/svg+xml"}, b"<svg/>", True),
        ({"Content-Type": "application/jsonx"}, b"x", False),
        ({"Content-Type": "image/png"}, b"\x89PNG", False),
        ({"Content-Type": "application/octet-stream"}, b"text", False),
        ({"Content-Type": "text/plain", "Content-Encoding": "gzip"}, b"x", False),
        ({"Content-Type": "text/plain"}, b"\xff", False),
        ({}, b"x", False),
    ],
)
def test_bodies_travel_as_text_or_as_base64(headers: dict[str, str], body: bytes, is_text: bool) -> None:
    answer = from_response(Response(200, tuple(headers.items()), body), event("http_api"))
    assert answer["isBase64Encoded"] is not is_text
    spelt = answer["body"].encode() if is_text else base64.b64decode(answer["body"])
    assert spelt == body


def test_no_body_is_empty_text() -> None:
    answer = from_response(Response(204), event("rest"))
    assert (answer["body"], answer["isBase64Encoded"]) == ("", False)


def told(found: Any, url: str) -> tuple[list[tuple[str, str | None]], list[str]]:
    warnings: list[str] = []
    return created(found, url, warn=warnings.append), warnings


def test_notifications_name_new_objects_by_keys_encoded_once() -> None:
    hints, warnings = told(event("s3"), "s3://shop/team/")
    assert hints == [
        ("uploads/mood/neue Daten (1) 100%+off ü.csv", "b21b84d653bb07b05b1e6b33684dc11b"),
        ("jobs/mood/0123456789abcdef.json", "d41d8cd98f00b204e9800998ecf8427e-38"),
    ]
    assert warnings == ["not in this store", "not in this store", "not an event of a new object"]


def test_eventbridge_names_keys_as_they_are() -> None:
    hints, warnings = told(event("eventbridge"), "s3://shop")
    assert hints == [("uploads/mood/neue Daten+%28 ü.csv", "b57f9512698f4b09e608f4f2a65852e5")]
    assert warnings == []


def test_a_test_event_is_nothing_and_a_deletion_is_told() -> None:
    assert told(event("s3_test"), "s3://shop") == ([], [])
    assert told(event("eventbridge_deleted"), "s3://shop") == ([], ["not an event of a new object"])
    assert told(event("schedule"), "s3://shop") == ([], ["malformed event"])


@pytest.mark.parametrize("malformed", event("malformed"))
def test_malformed_events_name_nothing_and_are_told(malformed: Any) -> None:
    hints, warnings = told(malformed, "s3://shop")
    assert hints == []
    assert warnings


@pytest.mark.parametrize("etag", [None, "", 7, '"', "a b", "x" * 200])
def test_an_etag_that_is_none_leaves_the_hint_without(etag: object) -> None:
    found = event("eventbridge")
    found["detail"]["object"]["etag"] = etag
    assert told(found, "s3://shop")[0][0][1] is None


class Worker:
    """Takes every second event."""

    def __init__(self) -> None:
        self.seen: list[tuple[Event, float | None]] = []

    def handle(self, found: Event, *, deadline: float | None = None) -> Outcome:
        self.seen.append((found, deadline))
        if len(self.seen) % 2 == 0:
            raise Unavailable("later")
        return Outcome("promoted", found.key, version="v-1")


def test_every_object_is_tried_before_the_event_is_asked_for_again() -> None:
    worker: Any = Worker()
    with pytest.raises(Unavailable, match="1 of"):
        deliver(worker, [("a", "1"), ("b", None), ("c", "3")], deadline=5.0)
    assert worker.seen == [(Event("a", "1"), 5.0), (Event("b", None), 5.0), (Event("c", "3"), 5.0)]


def test_outcomes_are_the_functions_result() -> None:
    worker: Any = Worker()
    assert deliver(worker, [("a", "1")], deadline=5.0) == {
        "outcomes": [{"key": "a", "status": "promoted", "version": "v-1"}]
    }
    assert deliver(worker, [], deadline=5.0) == {"outcomes": []}


def test_the_deadline_is_when_lambda_ends_the_invocation() -> None:
    assert 0 <= deadline(Context()) - (time.time() + 59) <= 1.5
