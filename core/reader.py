"""Reads objects on the predict path: of a folder with the standard library, of a cloud with obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from core.errors import ConfigError, Denied, Missing, StoreError, Transient
from core.folder import Folder, folder_path, reading
from core.keys import is_key

if TYPE_CHECKING:
    import mmap

CLOUD_SCHEMES = ("s3", "gs", "az")
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")  # Debian, Red Hat
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")  # what the services say, each its own way
_CONNECT_TIMEOUT = "2s"
_READ_TIMEOUT = "10s"
_RETRIES = 2
_RETRY_TIMEOUT_S = 10


class Reader(Protocol):
    """Reads whole objects by key. Raises Missing, Denied, Transient and no others."""

    def get(self, key: str) -> bytes:
        """Return the object's bytes."""
        ...

    def buffer(self, key: str) -> bytes | memoryview | mmap.mmap:
        """Return the object's bytes, memory-mapped where the store is a file system."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Return the keys directly below `prefix`, which ends at a slash, sorted."""
        ...


class _Found(Protocol):
    @property
    def data(self) -> bytes: ...


class _Listed(Protocol):
    @property
    def key(self) -> str: ...


class Source(Protocol):
    """The verbs of an ObjectStore that a reader needs."""

    def get(self, key: str) -> _Found:
        """Return the object; its bytes are `data`."""
        ...

    def list(self, prefix: str) -> Iterator[_Listed]:
        """Yield the entries whose key starts with `prefix`."""
        ...


class LocalReader:
    """Reads below a folder; links are not followed. Needs no write permission."""

    __slots__ = ("_folder",)

    def __init__(self, root: str) -> None:
        self._folder = Folder(root)

    def get(self, key: str) -> bytes:
        """Return the object's bytes. Raises Missing, Denied, Transient."""
        fd = self._folder.open(key)
        try:
            with open(fd, "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            raise reading(error) from None

    def buffer(self, key: str) -> bytes | mmap.mmap:
        """Return the object mapped into memory, read-only. Raises Missing, Denied, Transient."""
        fd = self._folder.open(key)
        try:
            if not os.fstat(fd).st_size:
                return b""
            import mmap

            return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise reading(error) from None
        finally:
            os.close(fd)

    def keys(self, prefix: str) -> list[str]:
        """Return the keys directly below `prefix`, sorted. Raises Denied, Transient."""
        if not is_key(prefix[:-1]):
            return []
        try:
            with self._folder.entered(prefix[:-1].split("/")) as directory, os.scandir(directory) as found:
                names = [item.name for item in found if item.is_file(follow_symlinks=False)]
        except OSError as error:
            return _none(reading(error))
        return sorted(prefix + name for name in names if is_key(prefix + name))


def _none(error: StoreError) -> list[str]:
    if isinstance(error, Missing):
        return []
    raise error from None


class StoreReader:
    """Reads through any ObjectStore."""

    __slots__ = ("_store",)

    def __init__(self, store: Source) -> None:
        self._store = store

    def get(self, key: str) -> bytes:
        """Return the object's bytes. Raises Missing, Denied, Transient."""
        return self._store.get(key).data

    def buffer(self, key: str) -> bytes:
        """Return the object's bytes. Raises Missing, Denied, Transient."""
        return self._store.get(key).data

    def keys(self, prefix: str) -> list[str]:
        """Return the keys directly below `prefix`, sorted. Raises Denied, Transient."""
        listed = (entry.key for entry in self._store.list(prefix))
        return sorted(key for key in listed if "/" not in key[len(prefix) :])


class ObstoreReader:
    """Reads through an obstore store. The library's error texts name URLs and settings: they are not passed on."""

    __slots__ = ("_obstore", "_store")

    def __init__(self, store: Any) -> None:
        import obstore

        self._store = store
        self._obstore = obstore

    def get(self, key: str) -> bytes:
        """Return the object's bytes. Raises Missing, Denied, Transient."""
        return bytes(self._bytes(key))

    def _bytes(self, key: str) -> Any:
        if not is_key(key):
            raise Missing("no object at this key")
        try:
            return self._obstore.get(self._store, key).bytes()
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise _meaning(error, self._obstore.exceptions) from None

    def buffer(self, key: str) -> memoryview:
        """Return the object's bytes, as the library holds them. Raises Missing, Denied, Transient."""
        return memoryview(self._bytes(key))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys directly below `prefix`, sorted. Raises Denied, Transient."""
        try:
            found = self._obstore.list_with_delimiter(self._store, prefix.rstrip("/"))
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            return _none(_meaning(error, self._obstore.exceptions))
        return sorted(str(item["path"]) for item in found["objects"])


def open_reader(url: str, *, allow_http: bool = False) -> Reader:
    """Return a reader of the store at `url`: a path, file://, s3://, gs:// or az://. Raises ConfigError.

    Credentials, region and endpoint come from the cloud's own variables; an endpoint that is not encrypted is
    used only with `allow_http`.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return LocalReader(folder_path(url))
    if scheme in CLOUD_SCHEMES and rest:
        return ObstoreReader(_open_cloud(url, allow_http))
    raise ConfigError("POLYSKY_STORE must be a path or a file, s3, gs or az URL", setting="POLYSKY_STORE")


def _open_cloud(url: str, allow_http: bool) -> Any:
    from datetime import timedelta

    _prefer_one_bundle()

    from obstore.exceptions import BaseError
    from obstore.store import from_url

    try:
        return from_url(
            url,
            client_options={
                "timeout": _READ_TIMEOUT,
                "connect_timeout": _CONNECT_TIMEOUT,
                "allow_http": allow_http,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_TIMEOUT_S)},
        )
    except (BaseError, ValueError, OSError):
        message = "the store in POLYSKY_STORE cannot be opened: check the URL and the credentials"
        raise ConfigError(message, setting="POLYSKY_STORE") from None


def _prefer_one_bundle() -> None:
    """Have TLS read the system's bundle alone: by default a client also reads each certificate of its folder."""
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return
    bundle = next(filter(os.path.exists, CA_BUNDLES), None)
    if bundle is not None:
        os.environ["SSL_CERT_FILE"] = bundle


def _meaning(error: Exception, kinds: Any) -> StoreError:
    """Return what an obstore error means; a path it cannot parse names no object."""
    if any(code in str(error) for code in _NO_BUCKET):
        return Denied("the store's bucket does not exist")
    if isinstance(error, FileNotFoundError | ValueError | kinds.NotFoundError | kinds.InvalidPathError):
        return Missing("no object at this key")
    if isinstance(error, PermissionError | kinds.PermissionDeniedError | kinds.UnauthenticatedError):
        return Denied("the store refused")
    return Transient("the store failed for now")
