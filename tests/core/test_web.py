"""Requests, strict bodies and the router."""

from __future__ import annotations

import gzip
import json
import zlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import (
    ConfigError,
    CoreError,
    InvalidInput,
    InvalidName,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    UnsupportedMedia,
)
from core.web import (
    PUBLIC,
    Endpoint,
    Request,
    Router,
    content,
    dumps,
    media_type,
    percent_decode,
    problem,
    query_of,
)


def endpoint(method: str, path: str, permission: str = PUBLIC) -> Endpoint:
    return Endpoint(method, path, permission, "http", "serving.live", "", "", "")


ROUTER = Router(
    [
        endpoint("POST", "/predict"),
        endpoint("POST", "/predict/{model}"),
        endpoint("GET", "/models/{model}"),
        endpoint("PUT", "/models/{model}/aliases/{alias}"),
        endpoint("POST", "/models/{model}/aliases/{alias}"),
        endpoint("GET", "/health"),
        endpoint("GET", "/health/live"),
    ],
    [],
)


@pytest.mark.parametrize(
    ("method", "path", "found", "params"),
    [
        ("POST", "/predict", "/predict", {}),
        ("POST", "/predict/", "/predict", {}),
        ("POST", "/predict/iris", "/predict/{model}", {"model": "iris"}),
        ("POST", "/predict/%69ris", "/predict/{model}", {"model": "iris"}),
        ("POST", "/predict/%2569ris", "/predict/{model}", {"model": "%69ris"}),
        ("POST", "/predict/a%2Fb", "/predict/{model}", {"model": "a/b"}),
        ("HEAD", "/health", "/health", {}),
        ("PUT", "/models/a/aliases/b", "/models/{model}/aliases/{alias}", {"model": "a", "alias": "b"}),
        ("GET", "/health/live", "/health/live", {}),
    ],
)
def test_a_path_finds_its_endpoint_decoded_once(
    method: str, path: str, found: str, params: dict[str, str]
) -> None:
    match = ROUTER.find(method, path)
    assert (match.endpoint.path, dict(match.params)) == (found, params)


@pytest.mark.parametrize(
    "path",
    ["", "/", "predict", "//predict", "/predict//", "/predict/a/b", "/models", "/models//aliases/x", "/Predict",
     "/health/lives", "*", "/" + "a" * 5000, "/predict/\u00e9/x"],
)  # fmt: skip
def test_other_paths_do_not_exist(path: str) -> None:
    with pytest.raises(NotFound):
        ROUTER.find("GET", path)


@pytest.mark.parametrize(
    "path", ["/predict/%", "/predict/%zz", "/predict/%4", "/predict/%ff", "/predict/%\u0661\u0661"]
)
def test_bad_percent_encoding_is_an_invalid_name(path: str) -> None:
    with pytest.raises(InvalidName):
        ROUTER.find("POST", path)


def test_a_known_path_with_another_method_tells_which_ones_it_takes() -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.find("DELETE", "/models/a/aliases/b")
    assert caught.value.fields["allow"] == "OPTIONS, POST, PUT"
    assert ROUTER.allow("/health") == "GET, HEAD, OPTIONS"
    with pytest.raises(MethodNotAllowed):
        ROUTER.find("HEAD", "/predict")


def test_a_route_without_a_known_permission_cannot_be_built() -> None:
    for permission in ("", "nobody"):
        with pytest.raises(ConfigError, match="no known permission"):
            Router([endpoint("GET", "/x", permission)], ["predict"])
    Router([endpoint("GET", "/x", "predict")], ["predict"])


def test_ambiguous_tables_cannot_be_built() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Router([endpoint("GET", "/x"), endpoint("GET", "/x")], [])
    with pytest.raises(ConfigError, match="differently"):
        Router([endpoint("GET", "/x/{a}"), endpoint("GET", "/x/{b}/y")], [])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_percent_decoding_undoes_the_reference_encoder(text: str) -> None:
    assert percent_decode(quote(text, safe="")) == text


@given(st.text("%0aAfFzé/ ", max_size=12))
def test_any_path_segment_is_decoded_or_an_invalid_name(text: str) -> None:
    try:
        percent_decode(text)
    except InvalidName:
        assert "%" in text


def test_query_parameters_are_decoded_once_and_may_not_repeat() -> None:
    assert query_of(Request("GET", "/")) == {}
    assert query_of(Request("GET", "/", "a=1&b=x%2By+z&c&&d=%25")) == {"a": "1", "b": "x+y z", "c": "", "d": "%"}
    for bad in ("a=1&a=2", "a=1&%61=2", "x" * 5000):
        with pytest.raises(MalformedBody):
            query_of(Request("GET", "/", bad))
    with pytest.raises(InvalidName):
        query_of(Request("GET", "/", "a=%zz"))


@pytest.mark.parametrize(
    ("text", "media"),
    [
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ('application/json;charset="UTF-8"', "application/json"),
        ("text/csv;\tcharset=utf8", "text/csv"),
        (" image/png ", "image/png"),
    ],
)
def test_media_types_with_a_utf8_charset_are_taken(text: str, media: str) -> None:
    assert media_type({"content-type": text}) == media


@pytest.mark.parametrize(
    "text",
    [None, "", "json", "application/json;;", "application/json; charset=latin-1", "application/json; boundary=x",
     'application/json; charset="utf-8', "application/json, text/csv", "application/json; charset=utf-8; x=y",
     "application/ json", "text/csv; header=present", "a/" + "b" * 300, "application/json\r\nx: y"],
)  # fmt: skip
def test_other_content_types_are_refused(text: str | None) -> None:
    with pytest.raises(UnsupportedMedia):
        media_type({} if text is None else {"content-type": text})


def test_a_body_is_given_back_as_it_is_or_unpacked() -> None:
    packed = gzip.compress(b"hello", mtime=0)
    assert content(Request("POST", "/", "", {}, b"hello"), 5) == b"hello"
    assert content(Request("POST", "/", "", {"content-length": "5"}, b"hello"), 5) == b"hello"
    assert content(Request("POST", "/", "", {"content-encoding": "identity"}, b"hello"), 5) == b"hello"
    assert content(Request("POST", "/", "", {"content-encoding": "GZIP"}, packed), 100) == b"hello"


def test_a_body_over_the_limit_is_too_large_before_and_after_unpacking() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    for request in (
        Request("POST", "/", "", {}, b"x" * 1001),
        Request("POST", "/", "", {"content-encoding": "gzip"}, gzip.compress(bytes(1001))),
        Request("POST", "/", "", {"content-encoding": "gzip"}, bomb[:1000]),
    ):
        with pytest.raises(TooLarge) as caught:
            content(request, 1000)
        assert caught.value.fields["limit"] == 1000


@pytest.mark.parametrize(
    "body",
    [b"", b"plain", gzip.compress(b"hello", mtime=0)[:-1], gzip.compress(b"a", mtime=0) * 2,
     zlib.compress(b"hello"), gzip.compress(b"hello", mtime=0)[:-8] + bytes(8)],
)  # fmt: skip
def test_a_body_that_is_not_one_whole_gzip_member_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        content(Request("POST", "/", "", {"content-encoding": "gzip"}, body), 1000)


def test_other_encodings_and_a_wrong_length_are_refused() -> None:
    for encoding in ("br", "gzip, gzip", "deflate", ""):
        with pytest.raises(UnsupportedMedia):
            content(Request("POST", "/", "", {"content-encoding": encoding}, b"x"), 10)
    for length in ("2", "0", "-1", "x", "1,1", "\u0661", "1" * 5000):
        with pytest.raises(MalformedBody):
            content(Request("POST", "/", "", {"content-length": length}, b"x"), 10)


def test_an_error_becomes_problem_json_with_its_problems_and_limit() -> None:
    error = InvalidInput("2 bad cells", (Problem("must be a string", "text", 3), Problem("is missing")), total=2)
    response = problem(422, error, "id-1", (("X", "y"),))
    assert response.headers == (("Content-Type", "application/problem+json"), ("X", "y"))
    assert json.loads(response.body) == {
        "type": "urn:polysky:problem:invalid_input",
        "title": "Unprocessable Content",
        "status": 422,
        "code": "invalid_input",
        "detail": "2 bad cells",
        "request_id": "id-1",
        "errors": [{"message": "must be a string", "field": "text", "row": 3}, {"message": "is missing"}],
    }
    assert json.loads(problem(413, TooLarge("x", limit=7, secret="s"), "i").body)["limit"] == 7
    assert json.loads(problem(418, CoreError("x"), "i").body)["title"] == "Error"


def test_numbers_that_json_does_not_know_are_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps({"a": float("nan")})
    assert dumps({"é": [1.5, None]}) == b'{"\\u00e9":[1.5,null]}'
