"""Files below one root, reached segment by segment: no symbolic link is followed, nothing outside is touched."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from core.errors import ConfigError, Denied, InvalidName, Missing, StoreError, Transient
from core.keys import is_key

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MISTYPED = r"[A-Za-z][A-Za-z0-9+.-]*:|(file|s3|gs|az)//"  # a URL that is none; ./a:b is a folder
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def folder_path(url: str) -> str:
    """Return the path that a plain path or a file:// URL names. Raises ConfigError for any other URL."""
    scheme, separator, rest = url.partition("://")
    if not separator and url and not re.match(_MISTYPED, url):
        return url
    host, slash, path = rest.partition("/")
    if scheme != "file" or host not in ("", "localhost") or not slash:
        raise ConfigError(
            "the store (--store, POLYSKY_STORE) must be a folder, file:///folder, s3://bucket, gs://bucket or "
            "az://container, each with a prefix if you like",
            setting="POLYSKY_STORE",
        )
    return "/" + os.fsdecode(re.sub(rb"%([0-9a-fA-F]{2})", _unquoted, os.fsencode(path)))


def _unquoted(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode())


class Folder:
    """Opens what lies below `root`. The root itself may be a symbolic link, and need not exist yet."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    @contextmanager
    def entered(self, parts: Sequence[str], *, create: bool = False, sync: bool = False) -> Iterator[int]:
        """Yield a descriptor of the directory `parts` below the root; make what is absent if `create`."""
        fd = self._open_root(create)
        try:
            for part in parts:
                deeper = _step(fd, part, create, sync)
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    def open(self, key: str) -> int:
        """Return a descriptor of the regular file at `key`, for reading. Raises Missing, Denied, Transient."""
        if not is_key(key):
            raise Missing("no object at this key")
        *parts, name = key.split("/")
        try:
            with self.entered(parts) as directory:
                fd = os.open(name, _FILE, dir_fd=directory)
        except OSError as error:
            raise reading(error) from None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise Missing("no object at this key")

    def _open_root(self, create: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(self.root, flags)
        except FileNotFoundError:
            if not create:
                raise
        os.makedirs(self.root, exist_ok=True)
        return os.open(self.root, flags)


def _step(fd: int, part: str, create: bool, sync: bool) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=fd)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.mkdir(part, 0o777, dir_fd=fd)
    except FileExistsError:
        sync = False
    if sync:
        os.fsync(fd)
    return os.open(part, _DIRECTORY, dir_fd=fd)


def reading(error: OSError) -> StoreError:
    """Return what a failed read means: Missing, Denied or Transient."""
    if error.errno in _ABSENT:
        return Missing("no object at this key")
    return _other(error)


def writing(error: OSError) -> StoreError | InvalidName:
    """Return what a failed write means: Denied, Transient, or InvalidName if a file stands where a folder must."""
    if error.errno in _ABSENT and error.errno != errno.ENOENT:
        return InvalidName("the key runs through a file or a link, or ends at a folder", field="key")
    return _other(error)


def _other(error: OSError) -> StoreError:
    name = errno.errorcode.get(error.errno or 0, "unknown")
    if error.errno in _DENIED:
        return Denied(f"the store refused: {name}", errno=name)
    return Transient(f"the store failed for now: {name}", errno=name)
