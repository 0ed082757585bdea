"""How much of a file is read, and the words for a file that is over it."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO

from core.errors import DataRejected
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from core.config import Settings


class Limits(NamedTuple):
    """Caps on one data file; `bytes` counts what a file unpacks to."""

    bytes: int = 1 << 30
    rows: int = 2_000_000
    columns: int = 10_000
    field_bytes: int = 1 << 20
    line_bytes: int = 16 << 20
    image_bytes: int = 16 << 20
    members: int = 2_000_100  # files in one archive

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that the settings ask for."""
        rows = settings.max_data_rows
        return cls(bytes=settings.max_data_bytes, rows=rows, members=rows + 100)


def too_large(what: str, limit: int, unit: str = "") -> DataRejected:
    """Return the error for something over its limit."""
    return DataRejected("too_large", f"{what} is over the limit of {limit} {unit}".rstrip(), limit=limit)


def buffered(stream: BinaryIO, limit: int) -> io.BufferedReader:
    """Return a buffered reader of `stream` that yields at most `limit` bytes."""
    return io.BufferedReader(Counted(stream, limit), 1 << 18)


class Counted(io.RawIOBase):
    """A stream that refuses to yield more than `limit` bytes: stops a bomb while it unpacks."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self.count = 0

    def close(self) -> None:
        """Close the stream that this one reads from, too."""
        self._stream.close()
        super().close()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer`; return the number of bytes. Raises DataRejected over the limit or if the data is cut."""
        view = memoryview(buffer).cast("B")
        try:
            data = self._stream.read(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            raise DataRejected("truncated", "the compressed data is cut or damaged") from error
        view[: len(data)] = data
        self.count += len(data)
        if self.count > self._limit:
            raise too_large("the data, unpacked,", self._limit, "bytes")
        return len(data)
