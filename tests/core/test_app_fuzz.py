"""Hostile requests: no name leaves its prefix, no bytes make a 5xx, and every refusal is a proper problem."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.web import Request, Response
from tests.core.house import JSON, House, Spy, body_of, header, table_model

# -- names


def odd_names(count: int) -> list[str]:
    rng = random.Random(7)
    plain = [
        "..",
        ".",
        "/",
        "\\",
        "\0",
        "a",
        "A",
        "-",
        "con",
        "\u2024",
        "\uff0e",
        "~",
        "reg",
        "auth",
        "tokens",
        ".json",
    ]
    more = ["%2e", "%2F", "%5c", "%00", "%", "%252e", "x" * 64, " ", "\n", "é", "@", ":", "*", "production"]
    parts = plain + more
    return ["".join(rng.choices(parts, k=rng.randint(1, 6))) for _ in range(count)]


def test_no_name_reaches_a_key_outside_its_prefix() -> None:
    store = Spy()
    house = House(store=store)
    house.publish()
    token = house.token("admin")
    store.keys.clear()
    for name in odd_names(2000):
        for method, path, body in (
            ("POST", f"/predict/{name}", {"text": "a"}),
            ("POST", "/predict", {"text": "a", "model": name}),
            ("POST", "/predict/support", {"text": "a", "version": name}),
            ("GET", f"/models/{name}/history", None),
            ("GET", f"/models/support/versions/{name}", None),
            ("PUT", f"/models/support/aliases/{name}", {"version": "production"}),
            ("GET", f"/jobs/{name}", None),
        ):
            assert house.send(method, path, body, token=token).status < 500
    for key in store.keys:
        assert key.startswith(("reg/", "auth/tokens/", "auth/revoked/"))
        assert ".." not in key
        assert key.isascii()
        assert all(part == part.strip(".") and part for part in key.split("/"))


# -- fuzz

FUZZED = House(max_batch_rows=16)
FUZZED.publish()
FUZZED.publish("prices", table_model())
FUZZED_TOKEN = FUZZED.token("admin")
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
KEYS = st.sampled_from(
    [
        "text",
        "texts",
        "rows",
        "data",
        "instances",
        "inputs",
        "features",
        "image",
        "images",
        "dataframe_split",
        "columns",
        "dataframe_records",
        "input_data",
        "model",
        "version",
        "size",
        "town",
        "name",
        "shape",
        "datatype",
        "to",
        "alias",
        "expect_rev",
        "reason",
        "upload",
        "params",
        "x",
    ]
)
BODIES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
ROUTES = st.sampled_from(
    [("POST", "/predict"), ("POST", "/predict/support"), ("POST", "/predict/prices"), ("POST", "/retrain/support"),
     ("POST", "/models/support/promote"), ("POST", "/models/support/rollback"), ("POST", "/train"),
     ("PUT", "/models/support/aliases/x"), ("GET", "/models/support/history")]
)  # fmt: skip


def assert_sound(response: Response, method: str = "POST") -> None:
    assert response.status < 500
    if response.status >= 400:
        assert header(response, "content-type") == "application/problem+json"
        assert method == "HEAD" or body_of(response)["request_id"] == header(response, "x-request-id")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROUTES, BODIES)
def test_any_json_is_answered_or_refused_properly(route: tuple[str, str], body: Any) -> None:
    assert_sound(FUZZED.send(*route, json.dumps(body).encode(), token=FUZZED_TOKEN, headers=JSON))


HEADERS = st.sampled_from(
    [
        "content-type",
        "content-encoding",
        "content-length",
        "x-request-id",
        "x-model-version",
        "idempotency-key",
        "origin",
        "x-api-key",
        "authorization",
    ]
)
VALUES = st.sampled_from(
    [
        "application/json",
        "text/csv",
        "image/png",
        "gzip",
        "12",
        f"Bearer {FUZZED_TOKEN}",
        FUZZED_TOKEN,
        "production",
    ]
)
PATHS = st.sampled_from(
    ["/predict", "/predict/support", "/retrain", "/models", "/jobs/x", "/health/ready", "/docs/x"]
)
CONTENTS = st.sampled_from([b'{"text": "a"}', b"text\na\n", gzip.compress(b'{"text": "a"}', mtime=0)])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", ""]) | st.text(max_size=5),
    PATHS | st.text("/%.abc\x00é2eF", max_size=12),
    st.text("a=1&%version", max_size=10),
    st.dictionaries(HEADERS, VALUES | st.text(max_size=12), max_size=4),
    CONTENTS | st.binary(max_size=60),
)
def test_any_request_is_answered_or_refused_properly(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes
) -> None:
    for sent in (headers, {"x-api-key": FUZZED_TOKEN, **headers}):
        assert_sound(FUZZED.app(Request(method, path, query, sent, body)), method)
