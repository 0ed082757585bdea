"""Tokens of the managed identity, and the secret that it may read in a Key Vault. No SDK: two GET requests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import ConfigError, Denied, Missing, StoreError, Transient
from core.tuples import NamedTuple

ENDPOINT, HEADER = "IDENTITY_ENDPOINT", "IDENTITY_HEADER"
CLIENT = "AZURE_CLIENT_ID"  # of a user-assigned identity; without it the system-assigned one is meant
SETTING = "POLYSKY_TOKENS_SECRET"
_VAULT = "https://vault.azure.net"
_MARGIN_S = 300.0  # a token is not used in the last minutes of its life
_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 20


class AccessToken(NamedTuple):
    """A bearer token and when it ends, in seconds since the epoch: the form that Azure's SDKs take."""

    token: str
    expires_on: int


class IdentityCredential:
    """The TokenCredential of a function app's managed identity (REST protocol 2019-08-01)."""

    def __init__(self, env: Mapping[str, str], *, clock: Callable[[], float] = time.time) -> None:
        self._env = env
        self._clock = clock
        self._tokens: dict[str, AccessToken] = {}

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return a token for one scope, such as https://storage.azure.com/.default. Raises Denied, Transient."""
        resource = scopes[0].removesuffix("/.default")
        token = self._tokens.get(resource)
        if token is None or token.expires_on - self._clock() < _MARGIN_S:
            token = self._tokens[resource] = self._ask(resource)
        return token

    def _ask(self, resource: str) -> AccessToken:
        endpoint, header = self._env.get(ENDPOINT), self._env.get(HEADER)
        if not endpoint or not header:
            raise Denied("this process has no managed identity and no account key")
        client = self._env.get(CLIENT)
        query = f"api-version=2019-08-01&resource={resource}" + (f"&client_id={client}" if client else "")
        found = _get(f"{endpoint}?{query}", {"X-IDENTITY-HEADER": header, "Metadata": "true"})
        try:
            return AccessToken(str(found["access_token"]), int(found["expires_on"]))
        except (KeyError, TypeError, ValueError):
            raise Transient("the managed identity gave no token") from None


def fetcher(name: str, env: Mapping[str, str], *, allow_http: bool = False) -> Callable[[], bytes]:
    """Return what fetches the value of a Key Vault secret; `name` is its identifier, https://VAULT/secrets/NAME.

    Raises ConfigError at once, Missing, Denied or Transient at a call.
    """
    scheme, _, rest = name.partition("://")
    if scheme not in ("https", "http")[: 1 + allow_http] or "/secrets/" not in rest or "?" in rest:
        raise ConfigError(f"{SETTING} must be https://VAULT/secrets/NAME here", setting=SETTING)
    credential = IdentityCredential(env)

    def fetch() -> bytes:
        token = credential.get_token(_VAULT).token
        value = _get(f"{name}?api-version=7.4", {"Authorization": f"Bearer {token}"}).get("value")
        if not isinstance(value, str):
            raise Transient("the vault gave no secret")
        return value.encode()

    return fetch


def _get(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object at `url`. Raises Missing, Denied, Transient, none of which names the URL."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    connection = (HTTPSConnection if scheme == "https" else HTTPConnection)(host, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/{path}", headers={"Accept": "application/json", **headers})
        with connection.getresponse() as answer:
            if answer.status != 200:
                raise _refusal(answer.status)
            found = json.loads(answer.read(_MAX_BYTES))
    except (OSError, HTTPException, ValueError):
        raise Transient("the vault or the identity does not answer") from None
    finally:
        connection.close()
    if not isinstance(found, dict):
        raise Transient("the vault or the identity does not answer")
    return found


def _refusal(status: int) -> StoreError:
    if status == 404:
        return Missing("no such secret")
    if status in (400, 401, 403):  # 400 is what the identity endpoint says to an identity that does not exist
        return Denied("the vault or the identity refused")
    return Transient("the vault or the identity does not answer")
