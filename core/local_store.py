"""The ObjectStore of a POSIX folder: `key` is the file `<root>/<key>`, so people may copy files in and out."""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

from core.errors import Exists, Missing, Stale, StoreError, Transient
from core.folder import Folder, folder_path, reading, writing
from core.keys import check_key, is_key
from core.store import Blob, Entry

_CHUNK = 1 << 20
_SPOOL = ".tmp"
_LOCK = "lock"
_STALE_NS = 24 * 3600 * 10**9
_TEMPORARY = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def open_store(url: str) -> LocalStore:
    """Return the store in the folder that a path or file:// URL names. Raises ConfigError for other schemes."""
    return LocalStore(folder_path(url))


class LocalStore:
    """Whole files only: written aside under `<root>/.tmp`, then linked (create) or renamed (replace) into place.

    A token is made of the file's time of change, size and inode. `fsync=False` trades durability for speed.
    """

    def __init__(self, root: str, fsync: bool = True, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._folder = Folder(root)
        self._fsync = fsync
        self._clock_ns = clock_ns
        self._names = itertools.count()
        self._swept = False

    @property
    def root(self) -> str:
        """The absolute path of the folder."""
        return self._folder.root

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object; with `token`, only that generation. Raises Missing, Stale, Denied, Transient."""
        with self._pinned(key, token) as (fd, entry):
            data = b"".join(_chunks(fd, entry.size))
        return Blob(data, entry.token)

    def head(self, key: str) -> Entry:
        """Return the object's entry. Raises Missing, Denied, Transient."""
        fd = self._folder.open(key)
        try:
            return _entry(key, os.fstat(fd))
        finally:
            os.close(fd)

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream one generation of the object into `target`. Raises as get; Transient if it changed meanwhile."""
        with self._pinned(key, token) as (fd, entry):
            for chunk in _chunks(fd, entry.size):
                target.write(chunk)
        return entry

    def put(self, key: str, data: bytes) -> str:
        """Write the object, replacing any; return its token. Raises InvalidName, Denied, Transient."""
        with self._placing(key, data) as (spool, temporary, directory, name), _locked(spool):
            token = _stamp(spool, temporary, _stat(name, directory))
            os.replace(temporary, name, src_dir_fd=spool, dst_dir_fd=directory)
            self._sync(directory)
        return token

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create the object; return its token. Raises Exists, InvalidName, Denied, Transient."""
        with self._placing(key, data) as (spool, temporary, directory, name):
            token = _stamp(spool, temporary, None)
            try:
                os.link(temporary, name, src_dir_fd=spool, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                raise Exists("an object stands at this key") from None
            self._sync(directory)
        return token

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace exactly the generation `token`; return the new one. Raises Stale, Missing and as put."""
        with self._placing(key, data) as (spool, temporary, directory, name), _locked(spool):
            present = _stat(name, directory)
            if present is None:
                raise Missing("no object at this key")
            if _token(present) != token:
                raise Stale("another generation stands at this key")
            fresh = _stamp(spool, temporary, present)
            os.replace(temporary, name, src_dir_fd=spool, dst_dir_fd=directory)
            self._sync(directory)
        return fresh

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose key starts with `prefix`, in key order. Raises Denied, Transient."""
        *parts, start = prefix.split("/")
        if parts and not is_key("/".join(parts)):
            return
        yield from self._walk(parts, start)

    def delete(self, key: str) -> None:
        """Remove the object; removing an absent one is no error. Raises InvalidName, Denied, Transient."""
        *parts, name = check_key(key).split("/")
        try:
            with self._spool() as spool, _locked(spool), self._folder.entered(parts) as directory:
                os.unlink(name, dir_fd=directory)
                self._sync(directory)
        except OSError as error:
            cause = reading(error)
            if not isinstance(cause, Missing):
                raise cause from None

    @contextmanager
    def _pinned(self, key: str, token: str | None) -> Iterator[tuple[int, Entry]]:
        """Yield an open file and its entry; raise if it is not `token`, or was written to while it was read."""
        fd = self._folder.open(key)
        try:
            entry = _entry(key, os.fstat(fd))
            if token is not None and entry.token != token:
                raise Stale("another generation stands at this key")
            yield fd, entry
            if _token(os.fstat(fd)) != entry.token:
                raise _changed(token)
        except OSError as error:
            raise reading(error) from None
        finally:
            os.close(fd)

    @contextmanager
    def _spool(self) -> Iterator[int]:
        """Yield the folder of temporary files; on first use remove what killed writers left there a day ago."""
        with self._folder.entered([_SPOOL], create=True) as spool:
            if not self._swept:
                self._swept = True
                _sweep(spool, self._clock_ns() - _STALE_NS)
            yield spool

    @contextmanager
    def _placing(self, key: str, data: bytes) -> Iterator[tuple[int, str, int, str]]:
        """Yield (spool, temporary name, target folder, target name) with `data` in the temporary file."""
        *parts, name = check_key(key).split("/")
        temporary = f"{os.getpid()}-{threading.get_ident()}-{id(self)}-{next(self._names)}-{os.urandom(4).hex()}"
        try:
            with self._spool() as spool:
                try:
                    self._fill(spool, temporary, data)
                    with self._folder.entered(parts, create=True, sync=self._fsync) as directory:
                        yield spool, temporary, directory, name
                finally:
                    _discard(temporary, spool)
        except OSError as error:
            raise writing(error) from None

    def _fill(self, spool: int, temporary: str, data: bytes) -> None:
        fd = os.open(temporary, _TEMPORARY, 0o666, dir_fd=spool)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            _touch(fd, self._clock_ns())
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _sync(self, directory: int) -> None:
        if self._fsync:
            os.fsync(directory)

    def _walk(self, parts: Sequence[str], start: str) -> Iterator[Entry]:
        """Yield what lies under folder `parts` in names that begin with `start`; a folder sorts as `name/`."""
        try:
            with self._folder.entered(parts) as directory:
                for name in sorted(_names(directory, start)):
                    key = "/".join([*parts, name])
                    if not is_key(key.removesuffix("/")):
                        continue
                    if name.endswith("/"):
                        yield from self._walk([*parts, name[:-1]], "")
                    elif (found := _stat(name, directory)) is not None:
                        yield _entry(key, found)
        except OSError as error:
            cause = reading(error)
            if not isinstance(cause, Missing):
                raise cause from None


def _names(directory: int, start: str) -> Iterator[str]:
    """Yield the names of files and, with a slash, of folders; links and special files are passed over."""
    with os.scandir(directory) as found:
        for item in found:
            if not item.name.startswith(start):
                continue
            if item.is_dir(follow_symlinks=False):
                yield item.name + "/"
            elif item.is_file(follow_symlinks=False):
                yield item.name


def _entry(key: str, found: os.stat_result) -> Entry:
    return Entry(key, found.st_size, _token(found), found.st_mtime)


def _token(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"


def _stat(name: str, directory: int) -> os.stat_result | None:
    """Return the status of a regular file, None if there is none by that name."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _stamp(spool: int, temporary: str, present: os.stat_result | None) -> str:
    """Return the temporary file's token, its time first moved past that of the file it will replace.

    Inode numbers are reused, so without a rising time an old token could become valid again.
    """
    path = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC, dir_fd=spool)
    try:
        found = os.fstat(path)
        if present is not None and found.st_mtime_ns <= present.st_mtime_ns:
            _touch(path, present.st_mtime_ns + 1000)
            found = os.fstat(path)
        return _token(found)
    finally:
        os.close(path)


def _touch(fd: int, time_ns: int) -> None:
    os.utime(fd, ns=(time_ns, time_ns))


def _changed(token: str | None) -> StoreError:
    message = "the object changed while it was read"
    return Transient(message) if token is None else Stale(message)


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes: a file that keeps growing must not keep its reader."""
    while size > 0 and (chunk := os.read(fd, min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk


def _discard(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _sweep(spool: int, before_ns: int) -> None:
    with os.scandir(spool) as found:
        stale = [item.name for item in found if item.name != _LOCK and item.stat().st_mtime_ns < before_ns]
    for name in stale:
        _discard(name, spool)


@contextmanager
def _locked(spool: int) -> Iterator[None]:
    """Hold the one lock of replacing writers; it is released when the process ends, however it ends."""
    fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666, dir_fd=spool)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
