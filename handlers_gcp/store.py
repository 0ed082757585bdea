"""The ObjectStore of a Google Cloud Storage bucket, over google-cloud-storage. A token is an object's generation.

Each request is sent once, whatever comes back: a library that repeats a conditional write meets its own first try
and calls it a conflict; and core, which repeats, would wait for the library's repetitions each time. Reads are
conditional on the generation instead of asking for it: a bucket that keeps old generations would send them.
"""

from __future__ import annotations

import errno
import http.client
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import google.auth.exceptions
import requests
import urllib3
from google.api_core.exceptions import GoogleAPIError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from core.errors import ConfigError, Denied, Exists, InvalidName, Missing, Stale, StoreError, Transient
from core.keys import MAX_KEY_BYTES, check_key, is_key
from core.store import Blob, Entry

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
_CONNECT_S, _READ_S = 2.0, 10.0
_SLOWEST_BYTES_PER_S = 1 << 20  # the library's connect timeout bounds the sending of the body too
_FIELDS = "items(name,size,generation,updated),nextPageToken"
_FAILURES = (
    GoogleAPIError,
    google.auth.exceptions.GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,  # requests.RequestException is one, and so is a full disk below the target of a fetch
    *(ValueError, TypeError, LookupError, AttributeError),  # the library's own, of half an answer
)


def open_store(url: str, *, endpoint: str | None = None, allow_http: bool = False) -> GcsStore:
    """Return the store at gs://BUCKET[/PREFIX], with the credentials that the environment offers.

    Raises ConfigError for another URL, for a lack of credentials, and for an unencrypted endpoint without
    `allow_http`; such an endpoint is sent no credentials.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme != "gs" or not bucket or (prefix and not is_key(prefix)):
        raise ConfigError("POLYSKY_STORE must be a URL such as gs://bucket/prefix", setting="POLYSKY_STORE")
    endpoint = endpoint or os.environ.get(EMULATOR_VARIABLE) or None
    is_open = endpoint is not None and not endpoint.startswith("https://")
    if is_open and not allow_http:
        raise ConfigError("the store's endpoint is not encrypted", setting=EMULATOR_VARIABLE)
    options = {"api_endpoint": endpoint} if endpoint else None
    try:
        client = storage.Client(client_options=options, use_auth_w_custom_endpoint=not is_open)
    except (google.auth.exceptions.GoogleAuthError, OSError, ValueError):
        setting = "GOOGLE_APPLICATION_CREDENTIALS"
        raise ConfigError("there are no credentials for the store", setting=setting) from None
    # for its own traces the library would ask for the bucket's metadata, in a thread, which no role of ours may
    client._bucket_metadata_cache = None
    return GcsStore(client.bucket(bucket), prefix)


class GcsStore:
    """The objects of a bucket whose names begin with a prefix. Thread-safe; not to be carried through a fork."""

    def __init__(self, bucket: Any, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object; with `token`, only that generation. Raises Missing, Stale, Denied, Transient."""
        blob, generation = self._readable(key), _generation(token)
        with _meaning(Stale):
            data = blob.download_as_bytes(
                raw_download=True,
                if_generation_match=generation,
                single_shot_download=True,
                timeout=(_CONNECT_S, _READ_S),
                retry=None,
            )
        if blob.crc32c is None:  # a connection may end amid a head, and to the library half a head is a head
            raise Transient("the object did not come whole")
        return Blob(data, _token(blob))

    def head(self, key: str) -> Entry:
        """Return the object's entry. Raises Missing, Denied, Transient."""
        return self._head(key, self._readable(key))

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream one generation of the object into `target`. Raises as get; Transient if it changed meanwhile."""
        blob = self._readable(key)
        entry = self._head(key, blob)
        if token is not None and token != entry.token:
            raise Stale("another generation stands at this key")
        with _meaning(Transient if token is None else Stale):
            # not through `blob`: one that knows its generation would ask for it, also among those replaced
            self._bucket.blob(blob.name).download_to_file(
                target,
                raw_download=True,
                if_generation_match=int(entry.token),
                timeout=(_CONNECT_S, _READ_S),
                retry=None,
            )
        return entry

    def put(self, key: str, data: bytes) -> str:
        """Write the object, replacing any; return its token. Raises InvalidName, Denied, Transient."""
        return self._write(key, data, None, Transient)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create the object; return its token. Raises Exists, InvalidName, Denied, Transient."""
        return self._write(key, data, 0, Exists)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace exactly the generation `token`; return the new one. Raises Stale and as put."""
        check_key(key)
        return self._write(key, data, _generation(token), Stale)

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose key starts with `prefix`, in key order. Raises Denied, Transient."""
        if prefix and not (is_key(prefix) or is_key(prefix + "x")):
            return
        with _meaning(Transient, is_read=False):
            found = self._bucket.list_blobs(
                prefix=self._prefix + prefix, fields=_FIELDS, timeout=(_CONNECT_S, _READ_S), retry=None
            )
            for blob in found:
                key = blob.name[len(self._prefix) :]
                if is_key(key):
                    yield _entry(key, blob)

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error. Raises InvalidName, Denied, Transient."""
        blob = self._bucket.blob(self._prefix + check_key(key))
        try:
            with _meaning(Transient):
                blob.delete(timeout=(_CONNECT_S, _READ_S), retry=None)
        except Missing:
            return

    def _readable(self, key: str) -> Any:
        if not is_key(key):
            raise Missing("no object at this key")
        return self._bucket.blob(self._prefix + key)

    def _head(self, key: str, blob: Any) -> Entry:
        with _meaning(Transient):
            blob.reload(timeout=(_CONNECT_S, _READ_S), retry=None)
            return _entry(key, blob)

    def _write(self, key: str, data: bytes, generation: int | None, unmet: type[StoreError]) -> str:
        name = self._prefix + check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise InvalidName("the key is too long for a store with a prefix", field="key")
        blob = self._bucket.blob(name)
        with _meaning(unmet, is_read=False):
            blob.upload_from_string(
                data,
                content_type="application/octet-stream",
                if_generation_match=generation,
                timeout=(_CONNECT_S + len(data) / _SLOWEST_BYTES_PER_S, _READ_S),
                retry=None,
            )
        return _token(blob)


def _generation(token: str | None) -> int | None:
    """Return a token as the generation that it is. Raises Stale for one that no object here ever had."""
    if token is None:
        return None
    if not (token.isascii() and token.isdigit() and 0 < int(token[:20]) < 1 << 63):
        raise Stale("another generation stands at this key")
    return int(token)


def _token(blob: Any) -> str:
    """Return the generation that an answer told of. Without it the next condition would be none at all."""
    if blob.generation is None:
        raise Transient("the store does not tell which generation it answers with")
    return str(blob.generation)


def _entry(key: str, blob: Any) -> Entry:
    if blob.size is None or blob.updated is None:
        raise Transient("the store does not tell an object's size and time")
    return Entry(key, blob.size, _token(blob), blob.updated.timestamp())


@contextmanager
def _meaning(unmet: type[StoreError], *, is_read: bool = True) -> Iterator[None]:
    """Raise what a failure of the library means; `unmet` is for a precondition that does not hold.

    The library's texts name URLs and objects: they are not passed on.
    """
    try:
        yield
    except _FAILURES as error:
        raise _store_error(error, unmet, is_read) from None


def _store_error(error: Exception, unmet: type[StoreError], is_read: bool) -> StoreError:
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status == 412:
        return unmet(
            "an object stands at this key" if unmet is Exists else "another generation stands at this key"
        )
    if status == 404:
        if is_read and "bucket does not exist" not in str(error):
            return Missing("no object at this key")
        return Denied("the store's bucket does not exist")
    if status in (401, 403) or _is_refused_identity(error):
        return Denied("the store refused")
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException) and error.errno:
        name = errno.errorcode.get(error.errno, "unknown")
        return Transient(f"the store failed for now: {name}", errno=name)
    return Transient("the store failed for now")


def _is_refused_identity(error: Exception) -> bool:
    """Return whether there are no credentials that could do, as opposed to a server of them that is away."""
    if isinstance(error, google.auth.exceptions.TransportError):
        return False
    return isinstance(error, google.auth.exceptions.GoogleAuthError) and not error.retryable
