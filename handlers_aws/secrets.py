"""Fetches the tokens' secret from Secrets Manager.

The function that predicts has no SDK: it asks the AWS Parameters and Secrets Lambda Extension on the loopback.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import ConfigError, Denied, Missing, Transient

PORT_VARIABLE, TOKEN_VARIABLE = "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", "AWS_SESSION_TOKEN"
_PORT = "2773"
_TIMEOUT_S = 5.0
_MAX_BYTES = 1 << 20
_DENIED = {"AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"}


def fetcher(name: str, env: Mapping[str, str]) -> Callable[[], bytes]:
    """Return what fetches the secret `name` through the extension. It raises Missing, Denied, Transient.

    Raises ConfigError for a bad port.
    """
    port = env.get(PORT_VARIABLE) or _PORT
    if not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{PORT_VARIABLE} must be a port", setting=PORT_VARIABLE)

    def fetch() -> bytes:
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection("localhost", int(port), timeout=_TIMEOUT_S)
        headers = {"X-Aws-Parameters-Secrets-Token": env.get(TOKEN_VARIABLE, "")}
        try:
            connection.request("GET", f"/secretsmanager/get?secretId={_quoted(name)}", headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MAX_BYTES)
        except (OSError, HTTPException, ValueError):
            raise Transient("the secrets extension does not answer") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise _meaning(answer.status, body)
        return _document(_parsed(body))

    return fetch


def sdk_fetcher(name: str) -> Callable[[], bytes]:
    """Return what fetches the secret `name` with boto3. It raises Missing, Denied, Transient."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=2, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 2})
    client: Any = boto3.session.Session().client("secretsmanager", config=config)

    def fetch() -> bytes:
        try:
            return _document(client.get_secret_value(SecretId=name))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            raise _refusal(code) from None
        except BotoCoreError:
            raise Transient("the secret cannot be had for now") from None

    return fetch


def _meaning(status: int, body: bytes) -> Exception:
    """Return what an answer of the extension means: it passes on what Secrets Manager said, as text."""
    said = body.decode("utf-8", "replace")
    known = next((code for code in (*_DENIED, "ResourceNotFoundException") if code in said), None)
    return Denied("the secret is refused") if status in (401, 403) and known is None else _refusal(known)


def _refusal(code: str | None) -> Denied | Missing | Transient:
    if code in _DENIED:
        return Denied("the secret is refused")
    if code == "ResourceNotFoundException":
        return Missing("there is no such secret")
    return Transient("the secret cannot be had for now")


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Transient("the secret did not come whole")
    return found


def _document(found: Mapping[str, Any]) -> bytes:
    """Return the secret's value: SecretString, or SecretBinary, which is base64 in JSON and bytes from the SDK."""
    text, binary = found.get("SecretString"), found.get("SecretBinary")
    try:
        if isinstance(text, str):
            return text.encode()
        return binary if isinstance(binary, bytes) else a2b_base64(found["SecretBinary"], strict_mode=True)
    except (KeyError, ValueError, TypeError):
        raise Transient("the secret has no value that can be read") from None


def _quoted(name: str) -> str:
    return "".join(chr(octet) if _plain(octet) else f"%{octet:02X}" for octet in name.encode())


def _plain(octet: int) -> bool:
    return octet < 128 and (chr(octet).isalnum() or chr(octet) in "-._~")
