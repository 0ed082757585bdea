"""An issuer of access tokens for tests: its keys, its JWKS, and the tokens of honest and of hostile clients."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER, AUDIENCE = "https://id.example", "polysky"
NOW = 1_700_000_000.0


def spelt(data: bytes) -> str:
    """Return bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    """Return a number as a JWK holds it."""
    return spelt(value.to_bytes(size, "big"))


@cache
def rsa_key(name: str = "r1", bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the RSA key of this name."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


@cache
def ec_key(name: str = "e1", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """Return the elliptic key of this name."""
    return ec.generate_private_key(curve())


def rsa_jwk(kid: str, key: rsa.RSAPrivateKey, **more: Any) -> dict[str, Any]:
    """Return the public part as a JWK."""
    numbers = key.public_key().public_numbers()
    size = key.key_size // 8
    return {"kty": "RSA", "kid": kid, "n": number(numbers.n, size), "e": number(numbers.e, 3), **more}


def ec_jwk(kid: str, key: ec.EllipticCurvePrivateKey, **more: Any) -> dict[str, Any]:
    """Return the public part as a JWK."""
    numbers, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
    found = {"kty": "EC", "kid": kid, "crv": "P-256", "x": number(numbers.x, size), "y": number(numbers.y, size)}
    return found | more


def jwks(*more: Mapping[str, Any]) -> bytes:
    """Return the issuer's document: r1 and e1, and more."""
    keys = [rsa_jwk("r1", rsa_key(), use="sig", alg="RS256"), ec_jwk("e1", ec_key(), use="sig"), *more]
    return json.dumps({"keys": keys}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Return good claims, changed; a value of None takes one away."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-7", "iat": NOW, "exp": NOW + 900, "roles": ["predictor"]}
    return {name: value for name, value in (good | changed).items() if value is not None}


def head(**changed: Any) -> dict[str, Any]:
    """Return a good header, changed; a value of None takes a field away."""
    good = {"alg": "RS256", "kid": "r1", "typ": "at+jwt"}
    return {name: value for name, value in (good | changed).items() if value is not None}


def token(header: Any, payload: Any, key: Any = None) -> str:
    """Return a token; header and payload as objects or as their bytes. `key` signs: a private key, or a secret."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = ".".join(map(spelt, parts))
    return f"{signed}.{spelt(_signature(signed.encode(), rsa_key() if key is None else key))}"


def _signature(data: bytes, key: Any) -> bytes:
    if isinstance(key, bytes):
        return hmac.digest(key, data, sha256) if key else b""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    size = (key.key_size + 7) // 8
    return b"".join(
        part.to_bytes(size, "big") for part in decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    )


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return what an attacker knows of the key, as a file."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)
