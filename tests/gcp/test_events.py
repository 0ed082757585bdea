"""Google Cloud's messages as core takes and gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from core.errors import Unavailable
from core.web import Request, Response
from core.worker import Event, Outcome
from handlers_gcp.events import (
    FINALIZED,
    MAX_EVENT_BYTES,
    answer_every_path,
    created,
    deliver,
    from_response,
    reconcile,
    to_request,
)

EVENTS = Path(__file__).parents[1] / "events" / "gcp"
NAME = "uploads/mood/neue Daten (1) 100%25+off – 数据.csv"
GENERATION = "1795247607252856"
MALFORMED = json.loads((EVENTS / "malformed.json").read_text())


def recorded(name: str) -> Request:
    found = json.loads((EVENTS / f"{name}.json").read_text())
    return posted(found["headers"], found["body"])


def posted(headers: dict[str, str], body: str) -> Request:
    return Request("POST", "/", "", {name.lower(): value for name, value in headers.items()}, body.encode())


def binary(**data: Any) -> Request:
    return posted({"Content-Type": "application/json", "ce-type": FINALIZED}, json.dumps(data))


def found(event: Request, store: str = "gs://polysky-store") -> tuple[list[tuple[str, str | None]], list[str]]:
    warnings: list[str] = []
    return created(event, store, warn=warnings.append), warnings


def call(line: str, **options: Any) -> flask.Request:
    """Return a request as gunicorn makes it of a request line's target."""
    builder = EnvironBuilder(path="/", **options)
    environ = builder.get_environ() | {"RAW_URI": line, "REQUEST_URI": "/not-this"}
    builder.close()
    return flask.Request(environ)


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        ("/predict/spam", "/predict/spam", ""),
        ("/a%2Fb/%25/%C3%BC/a+b?x=%2B+%20&x=1", "/a%2Fb/%25/%C3%BC/a+b", "x=%2B+%20&x=1"),
        ("/\xc3\xbc?q=\xc3\xbc", "/%C3%BC", "q=%C3%BC"),
        ("/a?b?c=/d", "/a", "b?c=/d"),
        ("//double//", "//double//", ""),
        ("http://host:8080/a%20b?x=1", "/a%20b", "x=1"),
        ("http://host", "/", ""),
        ("*", "*", ""),
    ],
)
def test_path_and_query_are_those_of_the_request_line(line: str, path: str, query: str) -> None:
    request = to_request(call(line, method="POST"))
    assert (request.method, request.path, request.query) == ("POST", path, query)


def test_without_the_request_line_the_decoded_path_is_encoded_again() -> None:
    request = call("", method="GET")
    request.environ |= {"REQUEST_URI": "", "PATH_INFO": "/a b/50%/\xc3\xbc?", "QUERY_STRING": "x=%2B&y=\xc3\xbc"}
    found = to_request(request)
    assert (found.path, found.query) == ("/a%20b/50%25/%C3%BC%3F", "x=%2B&y=%C3%BC")


def test_headers_are_lower_case_and_the_body_is_as_it_came() -> None:
    headers = {"Content-Encoding": "gzip", "X-Request-Id": "r", "Content-Type": "text/csv"}
    request = to_request(call("/", method="POST", headers=headers, data=b"\x1f\x8b"))
    assert request.body == b"\x1f\x8b"
    given = {name: request.headers[name] for name in ("content-encoding", "x-request-id", "content-type")}
    assert given == {"content-encoding": "gzip", "x-request-id": "r", "content-type": "text/csv"}
    assert request.headers["content-length"] == "2"


def test_of_a_body_over_the_limit_one_byte_more_is_read() -> None:
    assert len(to_request(call("/", method="POST", data=b"x" * 5000), 4096).body) == 4097
    assert len(to_request(call("/", method="POST", data=b"x" * 4096), 4096).body) == 4096


def answered(method: str, response: Response) -> flask.Response:
    with flask.Flask("test").test_request_context(method=method):
        return from_response(response)


def test_an_answer_has_cores_headers_and_its_length_and_no_other() -> None:
    response = answered("GET", Response(404, (("Content-Type", "application/problem+json"), ("X-A", "1")), b"{}"))
    assert (response.status_code, response.get_data()) == (404, b"{}")
    headers = {"Content-Type": "application/problem+json", "X-A": "1", "Content-Length": "2"}
    assert dict(response.headers) == headers
    assert dict(answered("OPTIONS", Response(204, (("Allow", "GET"),))).headers.to_wsgi_list())["Allow"] == "GET"
    assert "Content-Type" not in answered("OPTIONS", Response(204)).headers
    assert dict(answered("HEAD", Response(200, (("X-A", "1"),))).headers) == {"X-A": "1"}


def test_outside_of_the_framework_no_path_is_claimed() -> None:
    answer_every_path(lambda request: flask.Response())


@pytest.mark.parametrize("name", ["finalized_binary", "finalized_structured", "finalized_structured_base64"])
def test_a_finished_upload_is_told_by_key_and_generation(name: str) -> None:
    assert found(recorded(name)) == ([(NAME, GENERATION)], [])


def test_keys_are_relative_to_the_stores_prefix() -> None:
    event = binary(bucket="polysky-store", name="team/a/uploads/mood/x.csv", generation=7)
    assert found(event, "gs://polysky-store/team/a/") == ([("uploads/mood/x.csv", "7")], [])
    assert found(event, "gs://polysky-store/team/ab") == ([], ["not in this store"])
    assert found(event, "gs://other/team/a") == ([], ["not in this store"])
    assert found(binary(bucket="s", name="team/", generation="7"), "gs://s/team") == ([], ["not in this store"])


@pytest.mark.parametrize("event", MALFORMED, ids=[event["why"] for event in MALFORMED])
def test_what_is_malformed_is_a_warning(event: dict[str, Any]) -> None:
    hints, warnings = found(posted(event["headers"], event["body"]), "gs://b")
    assert (hints, len(warnings)) == ([], 1)


def test_an_event_that_is_too_large_is_not_even_parsed() -> None:
    event = binary(bucket="b", name="x", generation="1", more="x" * MAX_EVENT_BYTES)
    assert found(event, "gs://b") == ([], ["malformed event"])


def test_nested_beyond_reason_is_malformed() -> None:
    event = posted({"ce-type": FINALIZED}, '{"a":' * 200_000 + "1" + "}" * 200_000)
    assert found(event) == ([], ["malformed event"])


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = dict.fromkeys(("bucket", "name", "generation", "type", "data", "data_base64", "specversion"), ANY_JSON)


@given(
    data=st.fixed_dictionaries({}, optional=FIELDS) | ANY_JSON,
    kind=st.sampled_from(["application/json", "application/cloudevents+json", "", "\xff"]),
    type_=st.sampled_from([FINALIZED, "", "x"]),
)
def test_no_json_whatsoever_raises_or_gives_what_is_not_in_the_store(data: Any, kind: str, type_: str) -> None:
    hints, warnings = found(posted({"Content-Type": kind, "ce-type": type_}, json.dumps(data)), "gs://bucket")
    assert bool(hints) != bool(warnings)
    assert all(isinstance(key, str) and str(token).isdigit() for key, token in hints)


@given(body=st.binary(max_size=64), kind=st.sampled_from(["application/json", "application/cloudevents+json"]))
def test_no_bytes_whatsoever_raise(body: bytes, kind: str) -> None:
    warnings: list[str] = []
    hints = created(Request("POST", "/", "", {"content-type": kind}, body), "gs://b", warn=warnings.append)
    assert (hints, len(warnings)) == ([], 1)


class Busy:
    """A worker that is told what to do with each key."""

    def __init__(self, **results: Outcome | Unavailable) -> None:
        self.results, self.asked = results, list[Event]()

    def handle(self, event: Event, *, deadline: float | None = None) -> Outcome:
        self.asked.append(event)
        result = self.results[event.key]
        if isinstance(result, Unavailable):
            raise result
        return result

    def tick(self, *, deadline: float | None = None) -> list[Outcome]:
        return [self.handle(Event(key)) for key in self.results]


def test_all_objects_are_tried_even_if_one_needs_another_delivery() -> None:
    worker: Any = Busy(a=Unavailable("the store does not answer"), b=Outcome("promoted", "b", version="v-1"))
    answer = deliver(worker, [("a", "1"), ("b", None)], deadline=1.0)
    assert worker.asked == [Event("a", "1"), Event("b", None)]
    told = [
        {"key": "a", "status": "unavailable", "version": ""},
        {"key": "b", "status": "promoted", "version": "v-1"},
    ]
    assert (answer.status, json.loads(answer.body)) == (503, {"outcomes": told})


def test_permanent_faults_are_answered_with_success() -> None:
    worker: Any = Busy(a=Outcome("rejected", "a"), b=Outcome("parked", "b"), c=Outcome("failed", "c"))
    assert deliver(worker, [(key, "1") for key in "abc"], deadline=1.0).status == 200
    assert deliver(worker, [], deadline=1.0) == Response(200, answer_json(), b'{"outcomes":[]}')


def answer_json() -> tuple[tuple[str, str], ...]:
    return (("Content-Type", "application/json"),)


def test_a_tick_that_cannot_look_is_a_failure() -> None:
    down: Any = Busy(a=Unavailable("the store does not answer"))
    assert reconcile(down, deadline=1.0).status == 503
    well: Any = Busy(a=Outcome("promoted", "a"))
    assert reconcile(well, deadline=1.0).status == 200
