"""The ObjectStore of an S3 bucket, over boto3. Tokens are ETags without their quotes.

An ETag is a hash of the content: bytes that return bring their token back with them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from core.errors import ConfigError, Denied, Exists, InvalidName, Missing, Stale, StoreError, Transient
from core.keys import MAX_KEY_BYTES, check_key, is_key
from core.store import Blob, Entry

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 2, 10
_READ_ATTEMPTS = 3
_CONNECTIONS = 32
_CHUNK = 1 << 20
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_ETAG = re.compile(r"[!#-~]{1,256}", re.ASCII)
_REFUSALS = {"AccessDenied", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "NoSuchBucket"}


def open_store(url: str, *, endpoint: str | None = None, allow_http: bool = False, session: Any = None) -> S3Store:
    """Return the store at s3://BUCKET[/PREFIX]; region and credentials are those of `session`.

    Without a session, those that boto3 finds by itself. Raises ConfigError.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket) or (prefix and not is_key(prefix)):
        raise ConfigError("POLYSKY_STORE must be s3://BUCKET[/PREFIX] here", setting="POLYSKY_STORE")
    endpoint = endpoint or next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)
    try:
        session = session or boto3.session.Session()
        reading = _client(session, endpoint, {"mode": "standard", "total_max_attempts": _READ_ATTEMPTS})
        writing = _client(session, endpoint, {"total_max_attempts": 1})
    except (BotoCoreError, ValueError):
        raise ConfigError("boto3 cannot make a client: check region and endpoint", setting="AWS_REGION") from None
    if not reading.meta.endpoint_url.startswith("https://") and not allow_http:
        raise ConfigError("the store's endpoint is not encrypted: set POLYSKY_ALLOW_HTTP", setting=ENDPOINTS[1])
    return S3Store(reading, writing, bucket=bucket, prefix=f"{prefix}/" if prefix else "")


def _client(session: Any, endpoint: str | None, retries: dict[str, Any]) -> Any:
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=_CONNECTIONS,
        retries=retries,
        request_checksum_calculation="when_supported",
        response_checksum_validation="when_supported",
        s3={"addressing_style": "path"} if endpoint else None,
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


class S3Store:
    """Objects whose names begin with `prefix`. `reading` retries, `writing` makes one attempt. Thread-safe.

    A retried conditional write would meet its own first attempt and report a conflict that is none.
    """

    def __init__(self, reading: Any, writing: Any, *, bucket: str, prefix: str = "") -> None:
        self._reading: Any = reading
        self._writing: Any = writing
        self._bucket = bucket
        self._prefix = prefix

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object; with `token`, only that generation. Raises Missing, Stale, Denied, Transient."""
        with _meanings(Stale):
            found = self._open(key, token)
            with closing(found["Body"]) as body:
                data = body.read()
            _check_length(len(data), found["ContentLength"])
            return Blob(data, _token(found))

    def head(self, key: str) -> Entry:
        """Return the object's entry. Raises Missing, Denied, Transient."""
        with _meanings():
            return _entry(key, self._reading.head_object(**self._readable(key)), "ContentLength")

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream the object into `target` by one request, which S3 answers from one generation. Raises as get."""
        with _meanings(Stale):
            found = self._open(key, token)
            with closing(found["Body"]) as body:
                while chunk := body.read(_CHUNK):
                    _write(target, chunk)
            return _entry(key, found, "ContentLength")

    def put(self, key: str, data: bytes) -> str:
        """Write the object, replacing any; return its token. Raises InvalidName, Denied, Transient."""
        return self._put(key, data, Transient)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create the object; return its token. Raises Exists, InvalidName, Denied, Transient."""
        return self._put(key, data, Exists, IfNoneMatch="*")

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace exactly the generation `token`; return the new one. Raises Stale, Missing and as put."""
        check_key(key)
        return self._put(key, data, Stale, IfMatch=_etag(token))

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose key starts with `prefix`, in key order. Raises Denied, Transient."""
        if prefix and not is_key(prefix) and not is_key(prefix + "x"):
            return
        with _meanings():
            pages = self._reading.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                page["IsTruncated"]  # not even that is in an answer that was cut
                for item in page.get("Contents", ()):
                    key = item["Key"][len(self._prefix) :]
                    if is_key(key):
                        yield _entry(key, item, "Size")

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error. Raises InvalidName, Denied, Transient."""
        with _meanings():
            self._writing.delete_object(Bucket=self._bucket, Key=self._prefix + check_key(key))

    def _readable(self, key: str) -> dict[str, str]:
        if not is_key(key):
            raise Missing("no object at this key")
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _open(self, key: str, token: str | None) -> Any:
        where = self._readable(key)
        if token is not None:
            where["IfMatch"] = _etag(token)
        # its "Body" as a context manager would hand out the bare stream, without checksum and length
        return self._reading.get_object(**where)

    def _put(self, key: str, data: bytes, unmet: type[StoreError], **condition: str) -> str:
        name = self._prefix + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise InvalidName("the key is too long for a store with a prefix", field="key")
        with _meanings(unmet):
            return _token(self._writing.put_object(Bucket=self._bucket, Key=name, Body=data, **condition))


def _etag(token: str) -> str:
    """Return the ETag of a token. Raises Stale for what no object here ever had."""
    if not _ETAG.fullmatch(token):
        raise Stale("another generation stands at this key")
    return f'"{token}"'


def _token(found: Any) -> str:
    """Return the token in an answer. A connection may end amid its head: to boto3 half an ETag is an ETag."""
    etag: str = found.get("ETag", "")
    if len(etag) < 3 or not etag.startswith('"') or not etag.endswith('"'):
        raise Transient("the store does not tell which generation it answers with")
    return etag[1:-1]


def _entry(key: str, found: Any, size: str) -> Entry:
    return Entry(key, found[size], _token(found), found["LastModified"].timestamp())


def _check_length(length: int, told: int) -> None:
    if length != told:
        raise Transient("the object did not come whole")


def _write(target: BinaryIO, chunk: bytes) -> None:
    try:
        target.write(chunk)
    except OSError as error:
        raise Transient("the object could not be kept here") from error


@contextmanager
def _meanings(unmet: type[StoreError] = Transient) -> Iterator[None]:
    """Raise what the SDK's errors mean; `unmet` is for a precondition that does not hold.

    Their texts hold names and request ids: they are not passed on.
    """
    try:
        yield
    except ClientError as error:
        raise _meaning(error, unmet) from None
    except (NoCredentialsError, PartialCredentialsError):
        raise Denied("there are no credentials for the store") from None
    except (BotoCoreError, urllib3.exceptions.HTTPError, OSError, ValueError, LookupError):
        raise Transient("the store failed for now") from None


def _meaning(error: ClientError, unmet: type[StoreError]) -> StoreError:
    """Return what an answer of the service means. Its 409 is a race still on, not an object that exists."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = error.response.get("Error", {}).get("Code")
    if status in (401, 403) or code in _REFUSALS:
        return Denied("the store's bucket does not exist" if code == "NoSuchBucket" else "the store refused")
    if status == 404:
        return Missing("no object at this key")
    if status == 412:
        return unmet(
            "an object stands at this key" if unmet is Exists else "another generation stands at this key"
        )
    return Transient("the store failed for now")
