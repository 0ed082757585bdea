"""Which format a file is, told by its content, and the source that reads it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO, cast

from core.dataset import arrays
from core.dataset.archive import IMAGE_ENDS, TABLE_ENDS, Archive, Folder, Place
from core.dataset.delimited import open_csv
from core.dataset.jsonl import open_jsonl
from core.dataset.limits import Limits, buffered, too_large
from core.dataset.source import CHUNK_ROWS, Chunk, Images, Source
from core.errors import DataRejected, NotFound
from core.extras import require

GZIP = b"\x1f\x8b"
ZIPS = (b"PK\x03\x04", b"PK\x05\x06")
PARQUET = b"PAR1"
BINARY = (*ZIPS, GZIP, PARQUET, arrays.MAGIC)
ARRAY_END = ".npy"
IMAGE = "image"  # the column of the images of a zip or a set of arrays
FILE = "file"  # the column of a labels.csv that names them


@contextlib.contextmanager
def open_source(path: str, *, label: str, limits: Limits, wanted: Collection[str] = ()) -> Iterator[Source]:
    """Yield the source of a file or folder. `wanted` are the columns of the spec, if there is one.

    Raises NotFound if it cannot be read, DataRejected if it is cut, too large or of no known format.
    """
    with contextlib.ExitStack() as stack:
        yield _Opener(label, limits, frozenset(wanted), stack).of_path(path)


class _Opener:
    """Opens one data set; what stays open while it is read goes on `stack`."""

    def __init__(self, label: str, limits: Limits, wanted: frozenset[str], stack: contextlib.ExitStack) -> None:
        self._label = label
        self._limits = limits
        self._wanted = wanted
        self._stack = stack

    def of_path(self, path: str) -> Source:
        if os.path.isdir(path):
            return self._of_folder(path)
        try:
            if os.path.getsize(path) > self._limits.bytes:
                raise too_large("the file", self._limits.bytes, "bytes")
            stream = self._stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack is one
        except OSError as error:
            raise NotFound(f"cannot read the data file: {error.strerror}") from error
        _check_sidecar(path, stream)
        return self._of_stream(stream, _Beside(path, self._limits, self._stack))

    def _of_stream(self, stream: io.BufferedReader, images: Images | None) -> Source:
        head = stream.peek(8)[:8]
        if not head:
            raise DataRejected("truncated", "the file is empty")
        if head.startswith(ZIPS):
            return self._of_zip(Archive(stream, self._limits))
        if head.startswith(PARQUET):
            source = _of_parquet(stream, self._limits)
        elif head.startswith(arrays.MAGIC):
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            return self._of_arrays([arrays.Member("x", stream, size)])
        elif head.startswith(GZIP):
            source = self._of_gzip(stream)
        else:
            source = self._of_text(buffered(stream, self._limits.bytes))
        source.images = images
        return source

    def _of_gzip(self, stream: BinaryIO) -> Source:
        inner = buffered(cast(BinaryIO, gzip.GzipFile(fileobj=stream)), self._limits.bytes)
        if inner.peek(8)[:8].startswith(BINARY):
            raise DataRejected("format", "gzip may hold CSV or JSON Lines only; send this file as it is")
        return self._of_text(inner)

    def _of_text(self, stream: io.BufferedReader) -> Source:
        start = stream.peek(256)[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"{"):
            return open_jsonl(stream, self._limits)
        if start.startswith((b"[{", b"[\n", b"[ ")):
            raise DataRejected("format", "the file is a JSON array; write one object a line (JSON Lines)")
        return open_csv(stream, self._limits)

    def _of_folder(self, path: str) -> Source:
        folder = Folder(path, self._limits)
        table = _main_table(folder.names, (*TABLE_ENDS, ".npz"))
        if table is None:
            return self._of_place(folder)
        return self._images_named(self.of_path(os.path.join(path, table)))

    def _of_zip(self, place: Archive) -> Source:
        table = _main_table(place.names, TABLE_ENDS)
        if table is None:
            return self._of_place(place)
        stream = self._stack.enter_context(place.open(table))
        if table.lower().endswith(".parquet"):  # needs to seek, which an unpacking stream cannot
            stream = io.BufferedReader(cast(io.RawIOBase, io.BytesIO(stream.read())))
        return self._images_named(self._of_stream(cast(io.BufferedReader, stream), place))

    def _of_place(self, place: Place) -> Source:
        """Return the source of files without a table: arrays, or images alone."""
        members = [name for name in place.names if name.lower().endswith(ARRAY_END)]
        if members:
            return self._of_arrays([self._member(place, name) for name in members])
        images = [name for name in place.names if name.lower().endswith(IMAGE_ENDS)]
        if not images:
            raise DataRejected("format", "there is no table (labels.csv, data.csv, …), array or image in it")
        return Source((IMAGE,), _named_images(images), text=True, images=place)

    def _member(self, place: Place, name: str) -> arrays.Member:
        stream = self._stack.enter_context(place.open(name))
        return arrays.Member(os.path.basename(name)[: -len(ARRAY_END)], stream, place.size(name))

    def _of_arrays(self, members: Sequence[arrays.Member]) -> Source:
        return arrays.open_arrays(members, self._label, self._limits, self._wanted)

    def _images_named(self, source: Source) -> Source:
        """Return the source with `file`, if it names images, under the name that arrays of images have too."""
        if FILE not in source.names or IMAGE in source.names or FILE in self._wanted:
            return source
        source.names = tuple(IMAGE if name == FILE else name for name in source.names)
        source.chunks = map(_renamed, source.chunks)
        return source


def _renamed(chunk: Chunk) -> Chunk:
    return chunk._replace(columns={IMAGE if name == FILE else name: c for name, c in chunk.columns.items()})


def _named_images(names: Sequence[str]) -> Iterator[Chunk]:
    names = sorted(names)
    for low in range(0, len(names), CHUNK_ROWS):
        part = names[low : low + CHUNK_ROWS]
        yield Chunk(len(part), {IMAGE: part})


def _main_table(names: Sequence[str], ends: tuple[str, ...]) -> str | None:
    """Return the one table of a place: the only one, else the only one called data or labels."""
    tables = [name for name in names if name.lower().endswith(ends)]
    for stem in ("", "data.", "labels."):
        found = [name for name in tables if os.path.basename(name).lower().startswith(stem)]
        if len(found) == 1:
            return found[0]
    if tables:
        raise DataRejected("format", f"{len(tables)} tables stand side by side; call the one to read data.csv")
    return None


def _check_sidecar(path: str, stream: io.BufferedReader) -> None:
    """Compare the file with `path`.sha256, if there is one."""
    try:
        with open(path + ".sha256", "rb") as file:
            promised = re.match(rb"[0-9a-fA-F]{64}(?![^\s])", file.read(4096))
    except OSError:
        return
    if promised is None:
        raise DataRejected("truncated", "the .sha256 file beside it holds no sha256")
    if hashlib.file_digest(stream, "sha256").hexdigest() != promised[0].decode().lower():
        raise DataRejected("truncated", "the file does not match the sha256 beside it; it is cut or damaged")
    stream.seek(0)


class _Beside:
    """Images that stand beside a table: in its folder, in `images`, or in `images.zip`; looked for when asked."""

    def __init__(self, path: str, limits: Limits, stack: contextlib.ExitStack) -> None:
        self._root = os.path.dirname(os.path.abspath(path))
        self._limits = limits
        self._stack = stack
        self._places: list[Place] | None = None

    def find(self, name: str) -> bytes | None:
        if self._places is None:
            self._places = self._open()
        return next((data for place in self._places if (data := place.find(name)) is not None), None)

    def _open(self) -> list[Place]:
        places: list[Place] = [Folder(self._root, self._limits)]
        path = os.path.join(self._root, "images.zip")
        if os.path.isfile(path):
            stream = self._stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack is one
            places.append(Archive(stream, self._limits))
        return places


def _of_parquet(stream: BinaryIO, limits: Limits) -> Source:
    require("pyarrow", "parquet", "Parquet")
    from core.dataset.parquet import open_parquet

    return open_parquet(stream, limits)
