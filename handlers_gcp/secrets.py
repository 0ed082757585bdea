"""A secret of Secret Manager, by its REST interface under the service account that the function runs as."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import ConfigError, Denied, Missing, Transient
from handlers_gcp.telemetry import PROJECT_VARIABLES

SETTING = "POLYSKY_TOKENS_SECRET"
ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"  # the variable that gcloud knows
METADATA = "GCE_METADATA_HOST"
_SECRETS = "https://secretmanager.googleapis.com/"
_NAME = (
    r"(?:projects/([a-z0-9][a-z0-9.:-]{0,62})/secrets/)?([A-Za-z0-9_-]{1,255})(?:/versions/([A-Za-z0-9_-]{1,63}))?"
)
_FLAVOR = {"Metadata-Flavor": "Google"}
_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 20
_CASTAGNOLI = 0x82F63B78


def fetcher(name: str, env: Mapping[str, str], *, allow_http: bool = False) -> Callable[[], bytes]:
    """Return what fetches the secret `name`: NAME of this project or projects/P/secrets/NAME, [/versions/V].

    It raises Missing, Denied, Transient. Raises ConfigError for another form of name, and for an endpoint of
    Secret Manager that is not encrypted without `allow_http`.
    """
    found = re.fullmatch(_NAME, name, re.ASCII)
    if found is None:
        raise ConfigError(f"{SETTING} must be the name of a secret of Secret Manager", setting=SETTING)
    endpoint = env.get(ENDPOINT) or _SECRETS
    if not endpoint.startswith("https://") and not allow_http:
        raise ConfigError("the endpoint of Secret Manager is not encrypted", setting=ENDPOINT)
    metadata = f"http://{env.get(METADATA) or 'metadata.google.internal'}/computeMetadata/v1/"
    project = found[1] or next((env[variable] for variable in PROJECT_VARIABLES if env.get(variable)), "")

    def fetch() -> bytes:
        home = project or _ask(metadata + "project/project-id", _FLAVOR).decode("ascii", "replace")
        secret = f"v1/projects/{home}/secrets/{found[2]}/versions/{found[3] or 'latest'}"
        bearer = f"Bearer {_token(metadata)}"
        return _payload(_ask(f"{endpoint.rstrip('/')}/{secret}:access", {"Authorization": bearer}))

    return fetch


def _token(metadata: str) -> str:
    answer = _ask(metadata + "instance/service-accounts/default/token", _FLAVOR)
    token = _object(answer).get("access_token")
    if not isinstance(token, str) or not token.isprintable():
        raise Transient("the metadata server gives no token")
    return token


def _payload(answer: bytes) -> bytes:
    """Return the secret, checked against the checksum that came with it."""
    payload = _object(answer).get("payload")
    try:
        assert isinstance(payload, dict)
        data = b64decode(payload["data"], validate=True)
        checksum = payload.get("dataCrc32c")
        whole = checksum is None or int(checksum) == crc32c(data)
    except (AssertionError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise Transient("the secret did not come whole")
    return data


def _object(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Transient("the answer is not a JSON object")
    return found


def _ask(url: str, headers: Mapping[str, str]) -> bytes:
    """Return the body of the answer to a GET. Raises Missing, Denied, Transient; no text names URL or token."""
    import http.client

    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/" + path, headers=dict(headers))
        answer = connection.getresponse()
        status, body = answer.status, answer.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException):
        raise Transient("the secret cannot be asked for now") from None
    finally:
        connection.close()
    if status in (401, 403):
        raise Denied("the secret is not for this service account")
    if status == 404:
        raise Missing("there is no such secret")
    if status != 200:
        raise Transient("the secret cannot be had for now")
    return body


def crc32c(data: bytes) -> int:
    """Return the CRC-32 of Castagnoli (RFC 3720)."""
    table = [_divided(byte) for byte in range(256)]
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _divided(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_CASTAGNOLI if byte & 1 else 0)
    return byte
