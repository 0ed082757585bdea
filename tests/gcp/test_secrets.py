"""Secret Manager's REST interface, by a server that answers in its documented shape."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import google_crc32c
import pytest

from core.config import Settings
from core.errors import ConfigError, Denied, Missing, StoreError, Transient
from core.secrets import open_tokens
from core.store import MemoryStore
from core.tokens import create_token, export_records
from handlers_gcp.secrets import crc32c, fetcher
from tests.gcp.google import TOKEN, VERSION, Google, payload

SECRET = b'{"abc": {}}'


@pytest.fixture
def google() -> Iterator[Google]:
    with Google() as server:
        server.put("my-project/secrets/tokens/versions/latest", 200, payload(SECRET))
        yield server


def fetch(google: Google, name: str = "tokens", **more: str) -> bytes:
    return fetcher(name, {**google.env(), **more}, allow_http=True)()


def test_a_secret_of_the_own_project_is_fetched_under_the_service_account(google: Google) -> None:
    assert fetch(google) == SECRET
    assert [path.rpartition("/")[2] for path in google.asked] == ["project-id", "token", "latest:access"]


def test_the_project_may_be_told_by_the_environment(google: Google) -> None:
    google.put("other/secrets/tokens/versions/latest", 200, payload(b"{}"))
    assert fetch(google, GOOGLE_CLOUD_PROJECT="other") == b"{}"
    assert not any("project-id" in path for path in google.asked)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tokens/versions/7", "my-project/secrets/tokens/versions/7"),
        ("projects/p-1/secrets/to_kens", "p-1/secrets/to_kens/versions/latest"),
        ("projects/p-1/secrets/tokens/versions/latest", "p-1/secrets/tokens/versions/latest"),
    ],
)
def test_a_secret_may_be_named_in_full(google: Google, name: str, path: str) -> None:
    google.put(path, 200, payload(b"{}"))
    assert fetch(google, name) == b"{}"


@pytest.mark.parametrize(
    "name", ["", "a/b", "projects/p/secrets/", "a?x=1", "../x", "a\n", "projects//secrets/a", "ü"]
)
def test_what_is_no_name_of_a_secret_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fetcher(name, {})
    assert caught.value.fields["setting"] == "POLYSKY_TOKENS_SECRET"


def test_an_unencrypted_endpoint_is_refused_unless_it_is_allowed(google: Google) -> None:
    with pytest.raises(ConfigError, match="not encrypted"):
        fetcher("tokens", google.env())


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, {"error": {"status": "PERMISSION_DENIED"}}, Denied),
        (401, {"error": {"status": "UNAUTHENTICATED"}}, Denied),
        (404, {"error": {"status": "NOT_FOUND"}}, Missing),
        (503, {"error": {"status": "UNAVAILABLE"}}, Transient),
        (429, {"error": {"status": "RESOURCE_EXHAUSTED"}}, Transient),
        (200, b"<html>", Transient),
        (200, [], Transient),
        (200, {"name": VERSION}, Transient),
        (200, {"payload": {"data": "!!!!"}}, Transient),
        (200, {"payload": {"data": 7}}, Transient),
        (200, payload(SECRET, dataCrc32c="1"), Transient),
        (200, payload(SECRET, dataCrc32c="x"), Transient),
    ],
)
def test_failures_are_told_apart_and_quote_nothing(
    google: Google, status: int, body: Any, error: type[StoreError]
) -> None:
    google.put("my-project/secrets/tokens/versions/latest", status, body)
    with pytest.raises(error) as caught:
        fetch(google)
    assert not any(text in str(caught.value) for text in (TOKEN, "127.0.0.1", "tokens/versions"))


def test_a_metadata_server_without_a_token_is_transient(google: Google) -> None:
    google.answers["/computeMetadata/v1/instance/service-accounts/default/token"] = (200, b"{}")
    with pytest.raises(Transient):
        fetch(google)


def test_a_server_that_is_away_is_transient(google: Google) -> None:
    env = google.env() | {"GCE_METADATA_HOST": "127.0.0.1:1"}
    with pytest.raises(Transient):
        fetcher("tokens", env, allow_http=True)()


def test_an_answer_without_a_checksum_is_taken(google: Google) -> None:
    google.put("my-project/secrets/tokens/versions/latest", 200, {"payload": {"data": "e30="}})
    assert fetch(google) == b"{}"


@pytest.mark.parametrize("data", [b"", b"a", b"123456789", bytes(range(256)) * 9, os.urandom(999)])
def test_the_checksum_is_that_of_googles_library(data: bytes) -> None:
    assert crc32c(data) == google_crc32c.value(data)


def test_the_tokens_in_a_secret_are_those_that_core_asks_for(google: Google) -> None:
    store = MemoryStore()
    _, info = create_token(store, "predictor", clock=time.time, random_bytes=os.urandom)
    records = export_records(store, now=time.time())
    google.put("my-project/secrets/tokens/versions/latest", 200, payload(json.dumps(records).encode()))
    settings = Settings(tokens_secret="tokens")
    tokens = open_tokens(settings, lambda name: fetcher(name, google.env(), allow_http=True), clock=time.time)
    assert tokens is not None
    assert json.loads(tokens.get(f"auth/tokens/{info.kid}.json")) == records[info.kid]
