"""Settings: what the environment says, cast and range-checked once, at start. On the predict path: kept light."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from core.errors import ConfigError
from core.tuples import NamedTuple

PREFIX = "POLYSKY_"


class Settings(NamedTuple):
    """Every setting with its default. The variable of field `refresh_s` is POLYSKY_REFRESH_S, and so on."""

    store: str = "./polysky-store"  # store URL or folder
    refresh_s: float = 2.0  # how often a warm process looks for moved aliases
    max_body_bytes: int = 1_048_576
    max_batch_rows: int = 1024
    base_path: str = ""  # prefix of all routes: "" or "/something"
    lease_s: float = 900.0  # how long a claimed job is left to its worker
    min_upload_age_s: float = 2.0  # how long a dropped file must rest before it is read
    max_data_bytes: int = 1 << 30
    max_data_rows: int = 2_000_000
    public_docs: bool = False  # /docs and /openapi.json without a token
    token_ttl_s: float = 60.0  # how long a token's record is believed
    rate_per_s: float = 0.0  # requests per second and token; 0: no limit
    cors_origins: tuple[str, ...] = ()  # origins that browsers may call from
    max_upload_bytes: int = 64 << 20  # body of a data upload
    allow_http: bool = False  # a store endpoint without encryption: emulators only
    tokens: str = ""  # the token records as one JSON document, instead of those in the store
    tokens_secret: str = ""  # the name of the platform's secret that holds that document
    verify_key: str = ""  # public Ed25519 key in base64: artifacts must be signed with its private key
    signing_key: str = ""  # private Ed25519 key in base64: what is published is signed
    oidc_issuer: str = ""  # issuer of the access tokens taken besides our own; needs the next two
    oidc_audience: str = ""
    oidc_jwks: str = ""  # https URL of the issuer's keys, or a file with them
    oidc_claim: str = "roles"  # the claim that names our roles
    oidc_roles: Mapping[str, str] = MappingProxyType({})  # what that claim says, to our role; none: our own names
    oidc_models: str = ""  # the claim that lists the models in scope; none: all models
    oidc_typ: str = "at+jwt"  # the type that tokens must have
    timeout_s: float = 540.0  # what a job call has, on platforms that do not tell it

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Return the settings that `env` holds, defaults elsewhere.

        Raises ConfigError that names every bad variable and its rule, never its value.
        """
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for field, (cast, rule) in _RULES.items():
            variable = PREFIX + field.upper()
            if variable not in env:
                continue
            try:
                values[field] = cast(env[variable].strip())
            except ValueError:
                wrong[variable] = rule
        issuer = [name for name in _ISSUER if values.get(name)]
        if issuer and len(issuer) < len(_ISSUER):
            wrong |= {PREFIX + name.upper(): _RULES[name][1] for name in _ISSUER if name not in issuer}
        if wrong:
            text = "; ".join(f"{variable} must be {rule}" for variable, rule in wrong.items())
            raise ConfigError(text, settings=sorted(wrong))
        return cls(**values)


_ISSUER = ("oidc_issuer", "oidc_audience", "oidc_jwks")  # all of them, or none
_Rule = tuple[Callable[[str], Any], str]
# compiled by those few settings that are given, not at each cold start
_INTEGER = r"[0-9]{1,18}"
_DECIMAL = r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_PATH = r"(/[A-Za-z0-9._~-]+)*"
_ORIGIN = r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?"
_KEY = r"[A-Za-z0-9+/]{43}="
_URL = r"https://[!-~]{1,2000}"
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _integer(low: int, high: int) -> _Rule:
    def cast(text: str) -> int:
        if not re.fullmatch(_INTEGER, text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return cast, f"a whole number from {low} to {high}"


def _decimal(low: float, high: float) -> _Rule:
    def cast(text: str) -> float:
        if (
            not re.fullmatch(_DECIMAL, text, re.ASCII)
            or math.isinf(number := float(text))
            or not low <= number <= high
        ):
            raise ValueError
        return number

    return cast, f"a number from {low:g} to {high:g}"


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError
    return _SWITCH[text.lower()]


def _text(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError
    return text


def _base_path(text: str) -> str:
    if not re.fullmatch(_PATH, text.rstrip("/"), re.ASCII):
        raise ValueError
    return text.rstrip("/")


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    if not all(re.fullmatch(_ORIGIN, origin, re.ASCII) for origin in origins):
        raise ValueError
    return origins


def _key(text: str) -> str:
    if text and not re.fullmatch(_KEY, text, re.ASCII):
        raise ValueError
    return text


def _source(text: str) -> str:
    if "://" in text and not re.fullmatch(_URL, text, re.ASCII):
        raise ValueError
    return text


def _roles(text: str) -> Mapping[str, str]:
    import json

    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError from None
    if not isinstance(found, dict) or not all(isinstance(role, str) for role in found.values()):
        raise ValueError
    return MappingProxyType(found)


_RULES: dict[str, _Rule] = {
    "store": (_text, "a store URL or a folder"),
    "refresh_s": _decimal(0, 3600),
    "max_body_bytes": _integer(1024, 1 << 30),
    "max_batch_rows": _integer(1, 1_000_000),
    "base_path": (_base_path, 'empty or a path such as "/ml"'),
    "lease_s": _decimal(1, 86_400),
    "min_upload_age_s": _decimal(0, 86_400),
    "max_data_bytes": _integer(1024, 1 << 40),
    "max_data_rows": _integer(1, 1_000_000_000),
    "public_docs": (_switch, "true or false"),
    "token_ttl_s": _decimal(0, 3600),
    "rate_per_s": _decimal(0, 1_000_000),
    "cors_origins": (_origins, "origins such as https://a.example, separated by commas"),
    "max_upload_bytes": _integer(1024, 1 << 40),
    "allow_http": (_switch, "true or false"),
    "tokens": (str, "a JSON document"),
    "tokens_secret": (str, "the name of a secret"),
    "verify_key": (_key, "32 bytes in base64"),
    "signing_key": (_key, "32 bytes in base64"),
    "oidc_issuer": (str, "the issuer of access tokens"),
    "oidc_audience": (str, "the audience of access tokens"),
    "oidc_jwks": (_source, "an https URL or a file"),
    "oidc_claim": (_text, "the name of a claim"),
    "oidc_roles": (_roles, 'a JSON object from words to roles, such as {"ml-admins": "admin"}'),
    "oidc_models": (str, "the name of a claim"),
    "oidc_typ": (_text, "a type of tokens, such as at+jwt or JWT"),
    "timeout_s": _decimal(1, 86_400),
}
