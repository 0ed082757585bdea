"""The managed identity and the Key Vault, played by a server on this machine in their documented shapes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from core.errors import ConfigError, Denied, Missing, StoreError, Transient
from handlers_azure.secrets import IdentityCredential, fetcher

HEADER = "853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a"


class Cloud(ThreadingHTTPServer):
    """GET /msi/token and GET /secrets/NAME."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.env = {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": HEADER}
        self.expires_on: Any = "1000"
        self.status = 200
        self.body: Any = None
        self.asked: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: Cloud

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.server.asked.append(address.path)
        if address.path == "/msi/token":
            self._token(query)
        else:
            self._secret(address.path, query)

    def _token(self, query: dict[str, str]) -> None:
        if self.headers["X-IDENTITY-HEADER"] != HEADER or query["api-version"] != "2019-08-01":
            return self._give(400, {"statusCode": 400, "message": "bad"})
        token = f"token for {query['resource']} as {query.get('client_id', 'system')}"
        told = {"access_token": token, "expires_on": self.server.expires_on, "token_type": "Bearer"}
        return self._give(200, told | {"resource": query["resource"]})

    def _secret(self, path: str, query: dict[str, str]) -> None:
        if self.server.status != 200 or self.server.body is not None:
            return self._give(
                self.server.status, self.server.body or {"error": {"code": "x", "message": "secret"}}
            )
        if self.headers["Authorization"] != "Bearer token for https://vault.azure.net as system":
            return self._give(401, {"error": {"code": "Unauthorized"}})
        if path != "/secrets/polysky-tokens" or query["api-version"] != "7.4":
            return self._give(404, {"error": {"code": "SecretNotFound"}})
        attributes = {"enabled": True, "created": 1493938410, "recoveryLevel": "Recoverable+Purgeable"}
        return self._give(200, {"value": '{"kid": {}}', "id": self.server.url + path, "attributes": attributes})

    def _give(self, status: int, value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    server = Cloud()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_secret_is_fetched_with_the_identity_s_token(cloud: Cloud) -> None:
    cloud.expires_on = "99999999999"
    fetch = fetcher(f"{cloud.url}/secrets/polysky-tokens", cloud.env, allow_http=True)
    assert (fetch(), fetch()) == (b'{"kid": {}}', b'{"kid": {}}')
    assert cloud.asked.count("/msi/token") == 1


def test_a_token_is_renewed_before_it_ends_and_is_kept_for_each_audience(cloud: Cloud) -> None:
    now = [0.0]
    credential = IdentityCredential({**cloud.env, "AZURE_CLIENT_ID": "mine"}, clock=lambda: now[0])
    first = credential.get_token("https://storage.azure.com/.default", tenant_id="x")
    assert first == ("token for https://storage.azure.com as mine", 1000)
    credential.get_token("https://storage.azure.com/.default")
    credential.get_token("https://vault.azure.net/.default")
    assert len(cloud.asked) == 2
    now[0] = 701.0
    credential.get_token("https://storage.azure.com/.default")
    assert len(cloud.asked) == 3


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, None, Missing),
        (401, None, Denied),
        (403, None, Denied),
        (429, None, Transient),
        (500, None, Transient),
        (302, None, Transient),
        (200, b"not json", Transient),
        (200, b"[]", Transient),
        (200, b'{"value": 5}', Transient),
    ],
)
def test_each_refusal_has_one_meaning_and_tells_nothing_of_the_vault(
    cloud: Cloud, status: int, body: bytes | None, expected: type[StoreError]
) -> None:
    cloud.status, cloud.body = status, body
    with pytest.raises(expected) as caught:
        fetcher(f"{cloud.url}/secrets/polysky-tokens", cloud.env, allow_http=True)()
    assert "127.0.0.1" not in caught.value.message
    assert "secret" not in caught.value.message.replace("such secret", "").replace("no secret", "")


def test_an_identity_without_a_token_is_transient_and_none_at_all_is_denied(cloud: Cloud) -> None:
    for cloud.expires_on in ("soon", None, []):
        with pytest.raises(Transient):
            IdentityCredential(cloud.env).get_token("https://vault.azure.net")
    with pytest.raises(Denied):
        IdentityCredential({**cloud.env, "IDENTITY_HEADER": "wrong"}).get_token("https://vault.azure.net")
    with pytest.raises(Denied, match="no managed identity"):
        IdentityCredential({}).get_token("https://vault.azure.net")


def test_a_vault_that_is_down_is_transient() -> None:
    env = {"IDENTITY_ENDPOINT": "http://127.0.0.1:9/msi/token", "IDENTITY_HEADER": HEADER}
    with pytest.raises(Transient):
        fetcher("https://127.0.0.1:9/secrets/x", env)()


@pytest.mark.parametrize(
    "name", ["tokens", "http://vault/secrets/x", "https://vault/keys/x", "https://v/secrets/x?y"]
)
def test_a_name_that_is_no_secret_s_identifier_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError, match="POLYSKY_TOKENS_SECRET"):
        fetcher(name, {})
