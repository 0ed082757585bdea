"""Azure's messages as core takes and gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from azure.functions.eventgrid import EventGridEventInConverter
from azure.functions.meta import Datum
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Unavailable
from core.web import Response
from core.worker import Event, Outcome
from handlers_azure.events import CREATED, created, deliver, from_response, to_request

EVENTS = Path(__file__).parents[1] / "events" / "azure"
STORE = "az://store"


def recorded(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def typed(event: Any) -> Any:
    """Return an event as the runtime gives it to a function."""
    return EventGridEventInConverter.decode(Datum(json.dumps(event), "json"), trigger_metadata=None)


def found(event: Any, store: str = STORE) -> tuple[list[Any], list[str]]:
    warnings: list[str] = []
    return created(typed(event), store, warn=warnings.append), warnings


def message(url: str, **options: Any) -> func.HttpRequest:
    return func.HttpRequest("post", url, body=options.pop("body", b""), **options)


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("https://app.azurewebsites.net/predict/spam", "/predict/spam", ""),
        ("https://app/a%2Fb/%25/%C3%BC/a+b?x=%2B+%20&x=1", "/a%2Fb/%25/%C3%BC/a+b", "x=%2B+%20&x=1"),
        ("https://app/ü?q=ü", "/%C3%BC", "q=%C3%BC"),
        ("https://app/a?b?c=/d", "/a", "b?c=/d"),
        ("https://app", "/", ""),
        ("https://app?x=/1", "/", "x=/1"),
        ("http://[::1]:7071//double//", "//double//", ""),
    ],
)
def test_path_and_query_are_those_of_the_wire(url: str, path: str, query: str) -> None:
    request = to_request(message(url))
    assert (request.method, request.path, request.query) == ("POST", path, query)


def test_headers_are_lower_case_and_the_body_is_as_it_came() -> None:
    request = to_request(
        message("https://app/", headers={"Content-Encoding": "gzip", "X-A": "1,2"}, body=b"\x1f\x8b")
    )
    assert dict(request.headers) == {"content-encoding": "gzip", "x-a": "1,2"}
    assert request.body == b"\x1f\x8b"


def test_an_answer_keeps_status_headers_and_bytes() -> None:
    answer = from_response(
        Response(409, (("Content-Type", "application/json"), ("X-A", "1"), ("X-A", "2")), b"\xff")
    )
    assert (answer.status_code, answer.get_body()) == (409, b"\xff")
    assert dict(answer.headers) == {"Content-Type": "application/json", "X-A": "1, 2"}


@pytest.mark.parametrize(
    ("name", "store", "key"),
    [
        ("blob_created", STORE, "uploads/mood/new data.csv"),
        ("cloud_event", STORE, "uploads/mood/new data.csv"),
        ("flush_with_close", STORE, "jobs/mood/1.json"),
        ("copy_unicode", f"{STORE}/team/a", "uploads/mood/überraschung – 100%25+off.csv"),
    ],
)
def test_a_created_blob_is_told_by_key_and_token(name: str, store: str, key: str) -> None:
    assert found(recorded(name), store) == ([(key, "0x8D4BCC2E4835CD0")], [])


def test_where_url_and_subject_disagree_both_keys_are_hints_without_a_token() -> None:
    hints, warnings = found(recorded("unencoded_url"))
    assert hints == [("uploads/mood/a #1A ü.csv", None), ("uploads/mood/a #1%41 ü.csv", None)]
    assert warnings == []


@pytest.mark.parametrize("store", ["az://stor", "az://store/other", "az://other", "az://store/team/a"])
def test_blobs_outside_the_store_are_dropped_with_a_warning(store: str) -> None:
    assert found(recorded("blob_created"), store) == ([], ["not in this store"])


@pytest.mark.parametrize("index", range(len(recorded("malformed"))))
def test_malformed_and_other_events_raise_nothing_and_name_no_key_outside_the_store(index: int) -> None:
    hints, warnings = found(recorded("malformed")[index])
    assert hints or warnings
    for key, _ in hints:
        assert not key.startswith("/")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
URLS = st.sampled_from(
    ["https://a.blob.core.windows.net/store/uploads/mood/x.csv", "store", "https://a/store/%ff"]
)


@given(
    data=st.fixed_dictionaries({}, optional={"api": JSON | st.just("PutBlob"), "url": JSON | URLS, "eTag": JSON})
    | JSON,
    subject=JSON | st.just("/blobServices/default/containers/store/blobs/uploads/mood/x.csv"),
    style=st.sampled_from([{"eventType": CREATED}, {"type": CREATED, "specversion": "1.0"}]),
)
def test_no_event_whatever_raises_or_names_a_key_outside_the_store(data: Any, subject: Any, style: Any) -> None:
    hints, warnings = found({**style, "subject": subject, "data": data})
    assert bool(hints) != bool(warnings)
    assert all(isinstance(key, str) and (token is None or isinstance(token, str)) for key, token in hints)


class Scripted:
    """A worker that has its outcomes written down."""

    def __init__(self, *unavailable: str) -> None:
        self.unavailable, self.seen = unavailable, list[Event]()

    def handle(self, event: Event, *, deadline: float | None = None) -> Outcome:
        assert deadline == 7.0
        self.seen.append(event)
        if event.key in self.unavailable:
            raise Unavailable("the store does not answer")
        return Outcome("promoted", event.key)


def test_all_objects_are_tried_before_a_transient_fault_is_raised() -> None:
    worker: Any = Scripted("a", "b")
    with pytest.raises(Unavailable):
        deliver(worker, [("a", "1"), ("b", None), ("c", None)], deadline=7.0)
    assert worker.seen == [Event("a", "1"), Event("b", None), Event("c", None)]
    deliver(worker, [("c", None)], deadline=7.0)
