"""The tokens' secret out of Secrets Manager: by the SDK, and by the extension that runs beside a function."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import ClientError

from core.errors import ConfigError, Denied, Missing, Transient
from core.secrets import SecretTokens
from handlers_aws.secrets import fetcher, sdk_fetcher
from tests.emulators.moto import Moto

DOCUMENT = json.dumps({"KID1": {"role": "admin", "label": "ü"}})
NAME = "polysky/tokens+eu@1"


class _Extension(BaseHTTPRequestHandler):
    """The AWS Parameters and Secrets Lambda Extension, over an emulated Secrets Manager."""

    def do_GET(self) -> None:
        script: tuple[int, bytes] | None = self.server.script  # type: ignore[attr-defined]
        status, body = script or self._look_up()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _look_up(self) -> tuple[int, bytes]:
        if self.headers["X-Aws-Parameters-Secrets-Token"] != "session":
            return 403, b"forbidden"
        url = urlsplit(self.path)
        if url.path != "/secretsmanager/get":
            return 404, b"not found"
        client: Any = self.server.client  # type: ignore[attr-defined]
        try:
            found = client.get_secret_value(SecretId=parse_qs(url.query)["secretId"][0])
        except ClientError as error:
            return 400, f"an unexpected error occurred: {error}".encode()
        found.pop("ResponseMetadata")
        return 200, json.dumps(found, default=str).encode()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def extension(moto: Moto) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Extension)
    server.client = moto.client("secretsmanager")  # type: ignore[attr-defined]
    server.script = None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def env(extension: ThreadingHTTPServer) -> dict[str, str]:
    port = str(extension.server_port)
    return {"PARAMETERS_SECRETS_EXTENSION_HTTP_PORT": port, "AWS_SESSION_TOKEN": "session"}


Fetcher = Callable[[str], Callable[[], bytes]]


@pytest.fixture(params=["extension", "sdk"])
def way(request: pytest.FixtureRequest, moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Fetcher:
    """Both ways to a secret."""
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    if request.param == "sdk":
        return sdk_fetcher
    env = request.getfixturevalue("env")
    return lambda name: fetcher(name, env)


@pytest.fixture
def secret(moto: Moto) -> Iterator[str]:
    client = moto.client("secretsmanager")
    client.create_secret(Name=NAME, SecretString=DOCUMENT)
    yield NAME
    client.delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)


def test_the_document_comes_as_it_was_put(way: Fetcher, secret: str) -> None:
    fetch = way(secret)
    assert fetch() == fetch() == DOCUMENT.encode()


def test_a_new_value_is_seen(way: Fetcher, secret: str, moto: Moto) -> None:
    fetch = way(secret)
    fetch()
    moto.client("secretsmanager").put_secret_value(SecretId=secret, SecretString="{}")
    assert fetch() == b"{}"


def test_a_binary_secret_is_read_too(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    client = moto.client("secretsmanager")
    client.create_secret(Name="binary", SecretBinary=DOCUMENT.encode())
    assert sdk_fetcher("binary")() == DOCUMENT.encode()


def test_a_secret_that_is_not_there_is_missing(way: Fetcher) -> None:
    with pytest.raises(Missing) as caught:
        way("nobodys")()
    assert "nobodys" not in str(caught.value)


def test_tokens_are_found_in_it(way: Fetcher, secret: str) -> None:
    tokens = SecretTokens(way(secret), clock=lambda: 0.0)
    assert json.loads(tokens.get("auth/tokens/KID1.json"))["label"] == "ü"


def test_a_wrong_session_token_is_denied(env: dict[str, str], secret: str) -> None:
    with pytest.raises(Denied):
        fetcher(secret, {**env, "AWS_SESSION_TOKEN": "other"})()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"AccessDeniedException: no", Denied),
        (401, b"", Denied),
        (403, b"", Denied),
        (400, b"ThrottlingException", Transient),
        (500, b"", Transient),
        (200, b"", Transient),
        (200, b"[]", Transient),
        (200, b"{}", Transient),
        (200, b'{"SecretString": 7}', Transient),
        (200, b'{"SecretBinary": "!"}', Transient),
        (200, b'{"SecretBinary": 7}', Transient),
        (200, b"[" * 100_000, Transient),
    ],
)
def test_each_answer_of_the_extension_has_one_meaning(
    extension: ThreadingHTTPServer, env: dict[str, str], status: int, body: bytes, kind: type[Exception]
) -> None:
    extension.script = (status, body)  # type: ignore[attr-defined]
    with pytest.raises(kind):
        fetcher("x", env)()


def test_a_binary_secret_comes_as_base64(extension: ThreadingHTTPServer, env: dict[str, str]) -> None:
    extension.script = (200, b'{"SecretBinary": "e30="}')  # type: ignore[attr-defined]
    assert fetcher("x", env)() == b"{}"


def test_no_extension_is_transient_and_a_bad_port_is_named(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Transient):
        fetcher("x", {"PARAMETERS_SECRETS_EXTENSION_HTTP_PORT": "9"})()
    with pytest.raises(ConfigError, match="PARAMETERS_SECRETS_EXTENSION_HTTP_PORT"):
        fetcher("x", {"PARAMETERS_SECRETS_EXTENSION_HTTP_PORT": "9x"})
    for name, value in {**moto.env(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Transient):
        sdk_fetcher("x")()


def test_the_extensions_way_loads_no_sdk_and_http_only_when_it_fetches() -> None:
    code = "import sys; from handlers_aws.secrets import fetcher; fetcher('x', {}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not any(name in done.stdout for name in ("'boto3'", "'botocore'", "'http.client'"))
