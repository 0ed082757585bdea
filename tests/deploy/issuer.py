"""An issuer of access tokens: its documents over https on the loopback, a certificate to trust, tokens."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "polysky"


class Issuer(NamedTuple):
    """A running issuer; `certificate` and `keys` are files."""

    url: str
    certificate: Path
    keys: Path
    key: rsa.RSAPrivateKey

    def token(self, **claims: Any) -> str:
        """Return an administrator's token; `claims` replace what it says."""
        now = int(time.time())
        told = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "iat": now - 1,
            "exp": now + 300,
            "roles": ["admin"],
        }
        headers = {"kid": "one", "typ": "at+jwt"}
        return jwt.encode({**told, **claims}, self.key, algorithm="RS256", headers=headers)


@contextmanager
def start(folder: Path) -> Iterator[Issuer]:
    """Yield an issuer; its files are in `folder`."""
    key = rsa.generate_private_key(65537, 2048)
    public = {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "one", "alg": "RS256"}
    keys, certificate = folder / "keys.json", folder / "issuer.pem"
    keys.write_text(json.dumps({"keys": [{**public, "use": "sig"}]}))
    certificate.write_bytes(_certificate(key))
    private = folder / "issuer.key"
    private.write_bytes(_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Documents)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    issuer = Issuer(f"https://127.0.0.1:{server.server_port}", certificate, keys, key)
    found = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}
    _Documents.found = {
        "/keys": keys.read_bytes(),
        "/.well-known/openid-configuration": json.dumps(found).encode(),
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()


class _Documents(BaseHTTPRequestHandler):
    found: dict[str, bytes]

    def do_GET(self) -> None:
        body = self.found.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain)


def _certificate(key: rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
