"""Files together: a zip or a folder that holds a table and the images (or arrays) that belong to it."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Sequence
from typing import IO, BinaryIO, Protocol, cast

from core.dataset.limits import Limits, buffered, too_large
from core.errors import DataRejected

IMAGE_ENDS = (".png", ".jpg", ".jpeg")
TABLE_ENDS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")


class Place(Protocol):
    """Somewhere that files of one data set lie, by relative name with "/"."""

    names: Sequence[str]

    def open(self, name: str) -> BinaryIO:
        """Return a checked stream of one file."""
        ...

    def size(self, name: str) -> int:
        """Return the size of one file, unpacked, in bytes."""
        ...

    def find(self, name: str) -> bytes | None:
        """Return the bytes of an image by its name or, if it is the only one so called, by its last part."""
        ...


class Archive:
    """A zip whose member names and sizes were checked. Nothing is ever written to disk."""

    def __init__(self, stream: IO[bytes], limits: Limits) -> None:
        """Read the directory of the zip. Raises DataRejected for unsafe names, bombs, links and encryption."""
        self._limits = limits
        try:
            self._zip = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise DataRejected("truncated", "the zip is cut or damaged") from error
        self._infos = _checked(self._zip.infolist(), limits)
        self.names: Sequence[str] = list(self._infos)
        self._short = _by_last_part(self.names)

    def open(self, name: str) -> BinaryIO:
        """Return a checked stream of one member."""
        try:
            stream = self._zip.open(self._infos[name])
        except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
            message = f"{name[:64]} in the zip is damaged or packed in an unknown way"
            raise DataRejected("truncated", message) from error
        return buffered(cast(BinaryIO, stream), self._limits.bytes)

    def size(self, name: str) -> int:
        """Return the size of one member, unpacked, in bytes."""
        return self._infos[name].file_size

    def find(self, name: str) -> bytes | None:
        """Return the bytes of an image, or None."""
        key = name if name in self._infos else self._short.get(name)
        if key is None:
            return None
        if self.size(key) > self._limits.image_bytes:
            raise too_large(f"the image {name[:64]}", self._limits.image_bytes, "bytes")
        with self.open(key) as stream:
            return stream.read()


def _checked(infos: Sequence[zipfile.ZipInfo], limits: Limits) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > limits.members:
        raise too_large("the number of files in the zip", limits.members)
    if sum(info.file_size for info in infos) > limits.bytes:
        raise too_large("the zip, unpacked,", limits.bytes, "bytes")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if not is_safe(name) or stat.S_ISLNK(info.external_attr >> 16):
            raise DataRejected("format", "the zip holds a link or a name that leads out of it")
        if info.flag_bits & 1:
            raise DataRejected("format", "the zip is encrypted")
        if name in members:
            raise DataRejected("format", f"the zip holds {name[:64]} twice")
        if not info.is_dir() and not _is_litter(name):
            members[name] = info
    return members


def is_safe(name: str) -> bool:
    """Whether a relative name stays within its place on every system."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and name.isprintable() and "\\" not in name and ":" not in parts[0] and not (
        name.startswith("/") or ".." in parts
    )  # fmt: skip


def _is_litter(name: str) -> bool:
    """Whether an operating system left the file there."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1] in {".DS_Store", "Thumbs.db"} or parts[-1].startswith("._")


def _by_last_part(names: Sequence[str]) -> dict[str, str]:
    """Return last part → name for the images whose last part no other image has."""
    found: dict[str, list[str]] = {}
    for name in names:
        if name.lower().endswith(IMAGE_ENDS):
            found.setdefault(name.rpartition("/")[2], []).append(name)
    return {short: full[0] for short, full in found.items() if len(full) == 1}


class Folder:
    """A folder of the local disk. Links that lead out of it are not followed."""

    def __init__(self, root: str, limits: Limits) -> None:
        """List the files of the folder (not of folders in it)."""
        self._root = os.path.realpath(root)
        self._limits = limits
        self.names: Sequence[str] = sorted(
            entry.name for entry in os.scandir(self._root) if entry.is_file() and not _is_litter(entry.name)
        )

    def open(self, name: str) -> BinaryIO:
        """Return a stream of one file."""
        return buffered(cast(BinaryIO, open(os.path.join(self._root, name), "rb")), self._limits.bytes)

    def size(self, name: str) -> int:
        """Return the size of one file in bytes."""
        return os.path.getsize(os.path.join(self._root, name))

    def find(self, name: str) -> bytes | None:
        """Return the bytes of an image in the folder or in its folder `images`, or None."""
        if not is_safe(name) or not name.lower().endswith(IMAGE_ENDS):
            return None
        for path in (os.path.join(self._root, name), os.path.join(self._root, "images", name)):
            real = os.path.realpath(path)
            if not real.startswith(self._root + os.sep) or not os.path.isfile(real):
                continue
            if os.path.getsize(real) > self._limits.image_bytes:
                raise too_large(f"the image {name[:64]}", self._limits.image_bytes, "bytes")
            with open(real, "rb") as file:
                return file.read()
        return None
