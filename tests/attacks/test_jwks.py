"""Where an issuer's keys come from: over https, from whom the certificate names, and from nowhere else."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from core import oidc
from core.errors import Transient
from tests.attacks.jwts import ec_key, jwks, rsa_key
from tests.deploy import issuer

DOCUMENT = jwks()
ANSWERS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "/keys": (200, DOCUMENT, {}),
    "/moved": (302, b"", {"Location": "/keys"}),
    "/moved-for-good": (308, DOCUMENT, {"Location": "/keys"}),
    "/broken": (500, DOCUMENT, {}),
    "/created": (201, DOCUMENT, {}),
    "/cut": (200, DOCUMENT[:-10], {"Content-Length": str(len(DOCUMENT))}),
    "/endless": (200, b" " * oidc.MAX_JWKS_BYTES + DOCUMENT, {}),
    "/nothing": (200, b"", {}),
}


class Answers(BaseHTTPRequestHandler):
    """Answers each path as ANSWERS says."""

    def do_GET(self) -> None:
        status, body, headers = ANSWERS[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a certificate for this machine's loopback and its key."""
    folder = tmp_path_factory.mktemp("issuer")
    with issuer.start(folder):
        return folder


@pytest.fixture(scope="module")
def url(certified: Path) -> Iterator[str]:
    """Serve ANSWERS over https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified / "issuer.pem", certified / "issuer.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def test_keys_come_over_https_from_whom_the_certificate_names(
    url: str, certified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certified / "issuer.pem"))
    assert oidc.source(f"{url}/keys")() == DOCUMENT
    with pytest.raises(Transient):
        oidc.source(f"{url.replace('127.0.0.1', 'localhost')}/keys")()
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Transient):
        oidc.source(f"{url}/keys")()


@pytest.mark.parametrize("path", sorted(ANSWERS.keys() - {"/keys"}))
def test_any_other_answer_gives_no_keys(
    path: str, url: str, certified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certified / "issuer.pem"))
    with pytest.raises(Transient):
        oidc.parse_keys(oidc.source(f"{url}{path}")())


def test_a_private_key_in_the_document_is_none_of_the_issuers() -> None:
    """Who publishes it has lost it: anybody could sign."""
    whole = [
        {**RSAAlgorithm.to_jwk(rsa_key(), as_dict=True), "kid": "r"},
        {**ECAlgorithm.to_jwk(ec_key(), as_dict=True), "kid": "e"},
    ]
    assert all("d" in key for key in whole)
    found = oidc.parse_keys(jwks(*whole))
    assert set(found) == {("RS256", "r1"), ("ES256", "e1")}
    with pytest.raises(Transient):
        oidc.parse_keys(json.dumps({"keys": whole}).encode())
