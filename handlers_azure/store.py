"""The ObjectStore of an Azure Blob container, over azure-storage-blob. Tokens are ETags without their quotes."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, BinaryIO

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import ContainerClient

from core.errors import ConfigError, Denied, Exists, Missing, Stale, StoreError, Transient
from core.keys import check_key, is_key
from core.store import Blob, Entry
from handlers_azure import secrets
from handlers_azure.secrets import AccessToken, IdentityCredential

ACCOUNT, KEY = "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"
ENDPOINT, CONNECTION = "AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING"
_LOGIN_TIMEOUT_S, _MARGIN_S = 60, 300.0  # of the az program; before a token's end another is asked for
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 2, 10
_SLOWEST_BYTES_PER_S = 1 << 20  # at which a body may still be sent
_PAGE = 1000
# One request writes a blob whole. In several, the blocks of two writers at one key could end up in one blob.
_ONE_REQUEST = 5000 << 20
_CHUNK = 4 << 20  # read at a time
_NAME = re.compile(r"[a-z0-9]{3,24}", re.ASCII)
_BASE64 = re.compile(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
_FOLDER_MARK = "hdi_isfolder"  # how accounts with a hierarchical namespace list a folder
_OF_HALF_AN_ANSWER = (ValueError, TypeError, LookupError, AttributeError)  # the SDK's own errors
_CONDITION_NOT_MET = {"ConditionNotMet", "TargetConditionNotMet"}


def open_store(
    url: str, *, endpoint: str | None = None, allow_http: bool = False, env: Mapping[str, str] | None = None
) -> BlobStore:
    """Return the store at az://CONTAINER[/PREFIX]; account and credentials are what `env` says.

    A connection string, or account name and key; with neither key nor string, the function's managed identity or,
    where there is none, whoever has logged in by `az login`. Raises ConfigError.
    """
    scheme, _, rest = url.partition("://")
    container, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme != "az" or not container or (prefix and not is_key(prefix)):
        raise ConfigError("POLYSKY_STORE must be az://CONTAINER[/PREFIX] here", setting="POLYSKY_STORE")
    address, credential = _account(os.environ if env is None else env, endpoint)
    if not address.startswith("https://") and not (allow_http and address.startswith("http://")):
        raise ConfigError("the store's endpoint is not encrypted: set POLYSKY_ALLOW_HTTP", setting=ENDPOINT)
    open_container = partial(
        ContainerClient,
        address,
        container,
        credential=credential,
        connection_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_single_put_size=_ONE_REQUEST,
        max_single_get_size=_CHUNK,
        max_chunk_get_size=_CHUNK,
    )
    reading = open_container(retry_total=1, initial_backoff=1, increment_base=0, random_jitter_range=1)
    return BlobStore(reading, open_container(retry_total=0), prefix=f"{prefix}/" if prefix else "")


def _account(env: Mapping[str, str], endpoint: str | None) -> tuple[str, Any]:
    """Return address and credential of the account. Raises ConfigError that names the settings."""
    parts = dict(part.partition("=")[::2] for part in env.get(CONNECTION, "").split(";") if part)
    name = parts.get("AccountName") or env.get(ACCOUNT, "")
    key = parts.get("AccountKey") or env.get(KEY, "")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"set {ACCOUNT} or {CONNECTION}: which account holds the store", setting=ACCOUNT)
    if not _BASE64.fullmatch(key):
        raise ConfigError(f"{KEY} must be the account's key", setting=KEY)
    suffix = parts.get("EndpointSuffix", "core.windows.net")
    address = endpoint or parts.get("BlobEndpoint") or env.get(ENDPOINT) or f"https://{name}.blob.{suffix}"
    return address, {"account_name": name, "account_key": key} if key else _identity(env)


def _identity(env: Mapping[str, str]) -> IdentityCredential | LoginCredential:
    program = None if env.get(secrets.ENDPOINT) else shutil.which("az", path=env.get("PATH", ""))
    return LoginCredential(program) if program else IdentityCredential(env)


class LoginCredential:
    """The TokenCredential of whoever has logged in by `az login`: the program az tells their tokens."""

    def __init__(self, program: str, *, clock: Callable[[], float] = time.time) -> None:
        self._program = program
        self._clock = clock
        self._tokens: dict[str, AccessToken] = {}

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return a token for one scope, such as https://storage.azure.com/.default. Raises Denied, Transient."""
        token = self._tokens.get(scopes[0])
        if token is None or token.expires_on - self._clock() < _MARGIN_S:
            token = self._tokens[scopes[0]] = self._ask(scopes[0])
        return token

    def _ask(self, scope: str) -> AccessToken:
        import subprocess

        command = [self._program, "account", "get-access-token", "--output", "json", "--scope", scope]
        try:
            done = subprocess.run(  # noqa: S603
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOGIN_TIMEOUT_S, check=False
            )
            if done.returncode:
                raise Denied("az gives no token: run `az login`")
            found = json.loads(done.stdout)
            ends = found.get("expires_on") or datetime.fromisoformat(found["expiresOn"]).timestamp()
            return AccessToken(str(found["accessToken"]), int(ends))
        except (OSError, subprocess.SubprocessError, *_OF_HALF_AN_ANSWER):
            raise Transient("az gave no token") from None


class BlobStore:
    """Objects are block blobs below `prefix`. `reading` retries, `writing` makes one attempt. Thread-safe.

    A retried conditional write would meet its own first attempt and report a conflict that is none.
    """

    def __init__(self, reading: Any, writing: Any, *, prefix: str = "") -> None:
        self._reading: Any = reading
        self._writing: Any = writing
        self._prefix = prefix

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object; with `token`, only that generation. Raises Missing, Stale, Denied, Transient."""
        with _meanings(pinned=token is not None):
            found = self._download(key, token)
            data = found.readall()
            _check_length(len(data), found.size)
            return Blob(data, _token(found.properties.etag))

    def head(self, key: str) -> Entry:
        """Return the object's entry. Raises Missing, Denied, Transient."""
        with _meanings():
            return _entry(key, self._blob(key).get_blob_properties())

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream one generation of the object into `target`. Raises as get; Transient if it changed meanwhile."""
        with _meanings(pinned=token is not None):
            found = self._download(key, token)
            length = 0
            for chunk in found.chunks():
                _write(target, chunk)
                length += len(chunk)
            _check_length(length, found.size)
            return _entry(key, found.properties)

    def put(self, key: str, data: bytes) -> str:
        """Write the object, replacing any; return its token. Raises InvalidName, Denied, Transient."""
        return self._upload(key, data, overwrite=True)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create the object; return its token. Raises Exists, InvalidName, Denied, Transient."""
        return self._upload(key, data, overwrite=False)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace exactly the generation `token`; return the new one. Raises Stale, Missing and as put."""
        return self._upload(key, data, overwrite=True, **_only(token))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose key starts with `prefix`, in key order. Raises Denied, Transient."""
        if prefix and not is_key(prefix) and not is_key(prefix + "x"):
            return
        with _meanings():
            found = self._reading.list_blobs(
                name_starts_with=self._prefix + prefix, include=["metadata"], results_per_page=_PAGE
            )
            for item in found:
                key = item.name[len(self._prefix) :]
                if is_key(key) and (item.metadata or {}).get(_FOLDER_MARK) != "true":
                    yield Entry(key, item.size, item.etag.strip('"'), item.last_modified.timestamp())

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error. Raises InvalidName, Denied, Transient."""
        name = self._prefix + check_key(key)
        try:
            with _meanings():
                self._writing.get_blob_client(name).delete_blob(delete_snapshots="include")
        except Missing:
            return

    def _blob(self, key: str) -> Any:
        if not is_key(key):
            raise Missing("no object at this key")
        return self._reading.get_blob_client(self._prefix + key)

    def _download(self, key: str, token: str | None) -> Any:
        """Return a reader of one generation: after the first chunk the SDK asks for that chunk's ETag only."""
        # As the bytes lie there: the SDK would undo a Content-Encoding that somebody gave the blob. With its
        # validate_content it would then return nothing at all, so what is read is checked by core's own hashes.
        return self._blob(key).download_blob(decompress=False, **({} if token is None else _only(token)))

    def _upload(self, key: str, data: bytes, *, overwrite: bool, **condition: Any) -> str:
        blob = self._writing.get_blob_client(self._prefix + check_key(key))
        # the limit to connect is also the limit to send all of it
        options = {"connection_timeout": _CONNECT_TIMEOUT_S + len(data) / _SLOWEST_BYTES_PER_S, **condition}
        with _meanings(pinned=bool(condition), creating=not overwrite):
            return _token(blob.upload_blob(data, overwrite=overwrite, validate_content=True, **options)["etag"])


def _only(token: str) -> dict[str, Any]:
    """Return the condition that the blob is still generation `token`. The SDK takes ETags as they come."""
    return {"etag": f'"{token}"', "match_condition": MatchConditions.IfNotModified}


def _token(etag: str | None) -> str:
    """Return the token in a head. A connection may end amid one: to the SDK half an ETag is an ETag."""
    if not etag or len(etag) < 3 or not etag.startswith('"') or not etag.endswith('"'):
        raise Transient("the store does not tell which generation it answers with")
    return etag[1:-1]


def _entry(key: str, found: Any) -> Entry:
    return Entry(key, found.size, _token(found.etag), found.last_modified.timestamp())


def _check_length(length: int, size: int) -> None:
    if length != size:
        raise Transient("the object did not come whole")


def _write(target: BinaryIO, chunk: bytes) -> None:
    try:
        target.write(chunk)
    except OSError as error:
        raise Transient("the object could not be kept here") from error


@contextmanager
def _meanings(*, pinned: bool = False, creating: bool = False) -> Iterator[None]:
    """Raise what the SDK's errors mean. Their texts hold URLs and request ids: they are not passed on."""
    try:
        yield
    except HttpResponseError as error:
        raise _meaning(error, pinned=pinned, creating=creating) from None
    except (AzureError, OSError, *_OF_HALF_AN_ANSWER):
        raise Transient("the store failed for now") from None


def _meaning(error: HttpResponseError, *, pinned: bool, creating: bool) -> StoreError:
    code = getattr(error, "error_code", None)
    status, code = error.status_code, str(getattr(code, "value", code))
    if status in (401, 403) or code == "ContainerNotFound":
        return Denied("the store refused" if status != 404 else "the store's container does not exist")
    if status == 404:
        return Missing("no object at this key")
    if creating and (code == "BlobAlreadyExists" or (status == 412 and code in _CONDITION_NOT_MET)):
        return Exists("an object stands at this key")
    if status == 412 and code in _CONDITION_NOT_MET:
        return Stale("another generation stands at this key") if pinned else Transient("the object changed")
    return Transient("the store failed for now")
