"""Access tokens of an OpenID Connect issuer, taken besides our own where POLYSKY_OIDC_* settings ask for it.

Follows RFC 8725 and RFC 9068: fixed asymmetric algorithms, a key per algorithm, required claims, a type, one
issuer and one audience. Signatures are checked by PyJWT, times here, by the clock that everything else goes by.
Nothing imports this module unless the settings are there.
"""

from __future__ import annotations

import json
import re
from _thread import allocate_lock
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any

from core.auth import CLOCK_SLACK_S, ROLES, Principal, Verifier, credential
from core.errors import ConfigError, StoreError, Transient, Unauthorized, Unavailable

if TYPE_CHECKING:
    from core.config import Settings

ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}  # never one with a shared secret
REQUIRED = ("exp", "iat", "iss", "aud", "sub")
LEEWAY_S = 30.0
MAX_TOKEN_CHARS = 4096
MAX_JWKS_BYTES = 262_144
MAX_KEYS = 100
MIN_RSA_BITS = 2048
COOLDOWN_S = 300.0  # keys are asked for at most once in this time, whatever comes in
STALE_S = 86_400.0  # how long the keys are believed while their source is down
FETCH_S = 3.0
_FORM = re.compile(r"[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]{1,4096}", re.ASCII)
_SUBJECT = re.compile(r"[!-~]{1,255}", re.ASCII)
_LATEST = 1e11  # seconds since the epoch: no date beyond is meant seriously

Fetch = Callable[[], bytes]
Claims = Mapping[str, Any]


class Keys:
    """The issuer's public keys by their ids. Thread-safe; one fetch in COOLDOWN_S at most, good or bad."""

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float]) -> None:
        """`fetch` returns the JWKS document and raises a StoreError where that fails."""
        self._fetch, self._clock = fetch, clock
        self._lock = allocate_lock()
        self._keys: dict[tuple[str, str], Any] | None = None
        self._tried_at = self._read_at = float("-inf")

    def find(self, algorithm: str, kid: str) -> Any:
        """Return the key, None if the issuer has none of that id and kind. Raises Unavailable without any keys."""
        now = self._clock()
        if not self._tried_at - CLOCK_SLACK_S <= now < self._tried_at + COOLDOWN_S:
            self._refresh(now)
        keys = self._keys
        if keys is None or now - self._read_at >= STALE_S:
            wait = max(1.0, self._tried_at + COOLDOWN_S - now)
            raise Unavailable("the issuer's keys cannot be had now", retry_after_s=wait)
        return keys.get((algorithm, kid))

    def _refresh(self, now: float) -> None:
        """Fetch anew. Who has keys does not wait for another caller that does this already."""
        if not self._lock.acquire(blocking=self._keys is None):
            return
        try:
            if self._tried_at - CLOCK_SLACK_S <= now < self._tried_at + COOLDOWN_S:
                return
            self._tried_at = now
            self._keys, self._read_at = parse_keys(self._fetch()), now
        except StoreError:
            return  # what is known stays
        finally:
            self._lock.release()


def parse_keys(document: bytes) -> dict[tuple[str, str], Any]:
    """Return the signing keys of a JWKS by algorithm and id. Raises Transient for a document without any."""
    try:
        found = json.loads(document) if len(document) <= MAX_JWKS_BYTES else None
    except (ValueError, RecursionError):
        found = None
    listed = found.get("keys") if isinstance(found, dict) else None
    keys = {}
    for jwk in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        algorithm, key = _public_key(jwk)
        if key is not None:
            keys[algorithm, jwk["kid"]] = key
    if not keys:
        raise Transient("the source of the issuer's keys gives none")
    return keys


def _public_key(jwk: Any) -> tuple[str, Any]:
    """Return the algorithm that a JWK is for and its key; None for one that is not of use here."""
    jwt = import_module("jwt")
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or jwk.get("use", "sig") != "sig":
        return "", None
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(jwk.get("kty")), "")
    if not algorithm or jwk.get("alg", algorithm) != algorithm or "d" in jwk:
        return "", None
    try:
        key = jwt.PyJWK(jwk, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return "", None
    fits = key.key_size >= MIN_RSA_BITS if algorithm == "RS256" else key.curve.name == "secp256r1"
    return algorithm, key if fits else None


class Issuer:
    """Checks access tokens of one issuer. Thread-safe."""

    def __init__(self, settings: Settings, keys: Keys, *, clock: Callable[[], float]) -> None:
        """Raises ConfigError without issuer and audience, for a role that does not exist, and without PyJWT."""
        unknown = set(settings.oidc_roles.values()) - set(ROLES)
        if unknown or not (settings.oidc_issuer and settings.oidc_audience):
            name = "POLYSKY_OIDC_ROLES" if unknown else "POLYSKY_OIDC_ISSUER and POLYSKY_OIDC_AUDIENCE"
            raise ConfigError(f"{name} must be set, to roles that exist", setting=name)
        try:
            self._jwt: Any = import_module("jwt")
        except ImportError:
            raise ConfigError("POLYSKY_OIDC_ISSUER needs PyJWT: package it with `--with oidc`") from None
        self._settings, self._keys, self._clock = settings, keys, clock
        self._roles = settings.oidc_roles or {role: role for role in ROLES}

    def principal(self, token: str) -> Principal:
        """Return the caller. Raises Unauthorized, Unavailable."""
        claims = self._claims(token)
        subject, now = claims["sub"], self._clock()
        issued, until, begins = (claims.get(name, now) for name in ("iat", "exp", "nbf"))
        if not isinstance(subject, str) or _SUBJECT.fullmatch(subject) is None:
            raise Unauthorized("the token is not valid", reason="invalid")
        if not all(map(_is_time, (issued, until, begins))) or max(issued, begins) > now + LEEWAY_S:
            raise Unauthorized("the token is not valid", reason="invalid")
        if until + LEEWAY_S <= now:
            raise Unauthorized("the token is not valid", reason="expired")
        return self._known(claims, subject)

    def _claims(self, token: str) -> Claims:
        """Return the claims of a token with a good signature, for us, by our issuer."""
        if len(token) > MAX_TOKEN_CHARS or _FORM.fullmatch(token) is None:
            raise Unauthorized("the token is not well formed", reason="malformed")
        jwt, settings = self._jwt, self._settings
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(header)
            checks = {"require": list(REQUIRED), "verify_exp": False, "verify_iat": False, "verify_nbf": False}
            claims: Claims = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=settings.oidc_audience,
                issuer=settings.oidc_issuer,
                options=checks,
            )
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
            raise Unauthorized("the token is not valid", reason="invalid") from None
        return claims

    def _key(self, header: Claims) -> Any:
        """Return the key that a header asks for. Raises Unauthorized for an unusual header."""
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
        wanted = self._settings.oidc_typ.lower()
        ordinary = (
            isinstance(algorithm, str)
            and algorithm in ALGORITHMS
            and isinstance(kid, str)
            and isinstance(kind, str)
            and kind.lower().removeprefix("application/") == wanted
            and not {"crit", "b64", "zip"} & set(header)
            and all(isinstance(value, str) for name, value in header.items() if name != "x5c")
        )
        key = self._keys.find(algorithm, kid) if ordinary and algorithm and kid else None
        if key is None:
            raise Unauthorized("the token is not valid", reason="invalid")
        return key

    def _known(self, claims: Claims, subject: str) -> Principal:
        settings = self._settings
        said = _words(claims.get(settings.oidc_claim))
        roles = sorted({self._roles[word] for word in said if word in self._roles}, key=lambda r: len(ROLES[r]))
        allowed = frozenset[str]().union(*(ROLES[role] for role in roles))
        scope = None
        if settings.oidc_models:
            names = _words(claims.get(settings.oidc_models))
            scope = None if "*" in names else frozenset(names)
        digest = sha256(json.dumps([settings.oidc_issuer, subject]).encode()).hexdigest()
        return Principal(f"oidc-{digest[:16]}", roles[-1] if roles else "", f"oidc:{subject}", allowed, scope)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST


def _words(value: Any) -> frozenset[str]:
    """Return what a claim lists: texts in an array, or words in a text, as `scope` has them."""
    if isinstance(value, str):
        return frozenset(value.split())
    return frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else frozenset()


class Both:
    """Checks credentials of either kind: what looks like a JWT is the issuer's to judge, all else ours."""

    def __init__(self, verifier: Verifier, issuer: Issuer, *, clock: Callable[[], float]) -> None:
        self._verifier, self._issuer, self._clock = verifier, issuer, clock

    def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the caller. Raises Unauthorized, RateLimited, Unavailable."""
        token = credential(headers)
        if token is None or token.startswith("polysky_") or token.count(".") != 2:
            return self._verifier.authenticate(headers)
        try:
            principal = self._issuer.principal(token)
        except Unauthorized as error:
            raise self._verifier.refusal(error.fields["reason"], self._clock()) from None
        self._verifier.limit(principal.kid, self._clock())
        return principal


def with_issuer(settings: Settings, verifier: Verifier, *, clock: Callable[[], float]) -> Both:
    """Return a verifier that takes our own tokens and those of the issuer in the settings. Raises ConfigError."""
    keys = Keys(source(settings.oidc_jwks), clock=clock)
    return Both(verifier, Issuer(settings, keys, clock=clock), clock=clock)


def source(place: str) -> Fetch:
    """Return what reads the keys from an https URL or a file. Raises ConfigError for neither."""
    if place.startswith("https://"):
        return lambda: _download(place)
    if not place or "://" in place:
        raise ConfigError("POLYSKY_OIDC_JWKS must be an https URL or a file", setting="POLYSKY_OIDC_JWKS")
    return lambda: _read(place)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_JWKS_BYTES + 1)
    except OSError:
        raise Transient("the file of the issuer's keys cannot be read") from None


def _download(url: str) -> bytes:
    """Return what is at an https URL. Redirects are not followed: they could lead to anything."""
    import urllib.request
    from http.client import HTTPException

    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    try:
        with opener.open(url, timeout=FETCH_S) as response:
            if response.status != 200:
                raise Transient("the source of the issuer's keys does not give them")
            data: bytes = response.read(MAX_JWKS_BYTES + 1)
            return data
    except (OSError, HTTPException, ValueError):
        raise Transient("the source of the issuer's keys does not answer") from None
