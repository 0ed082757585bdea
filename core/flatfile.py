"""One flat, memory-mappable file: a JSON header, page digests, then aligned little-endian sections.

Layout (all integers little-endian):

    0   8  magic  b"POLYSKY1"
    8   4  header length h            12  4  number of pages p
    16  h  header: canonical JSON     then p × 16 bytes: the digest of each page
    zeros to the next multiple of PAGE, then the data: sections at multiples of ALIGN

The header names the size of the data and the sha256 of the digest table, and the registry's log names the
sha256 of the header; so the log pins every byte. A page's digest is its sha256 cut to 128 bits, which no second
preimage reaches either, and which halves what every load must hash. A page is checked against its digest before
its first use: what a model costs to load depends on what is read, not on how large it is.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from core.errors import IntegrityError
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"POLYSKY1"
DIGEST = 16  # bytes of sha256 kept of a page
PAGE_BITS = 12
PAGE = 1 << PAGE_BITS
ALIGN = 64
MAX_HEADER = 16 << 20
MAX_DATA = 1 << 30
MAX_NESTS = 1 << 20  # lists and objects in one JSON text: each takes dozens of times the bytes that name it
_FIXED = struct.Struct("<8sII")
# dtype name → struct code; nothing else may stand in a file
DTYPES = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "u4": "I", "u2": "H", "u1": "B", "i2": "h", "i1": "b"}


class Section(NamedTuple):
    """Where an array lies: `offset` and `size` in bytes within the data, dtype name, shape."""

    offset: int
    size: int
    dtype: str
    shape: tuple[int, ...]


class FlatFile:
    """A checked view of one flat file over any buffer (bytes or mmap). Cheap to make; thread-safe to read."""

    __slots__ = ("_buffer", "_data", "_digests", "_seen", "header", "header_sha256", "sections")

    def __init__(self, buffer: Any, header_sha256: str | None = None) -> None:
        """Read the header of `buffer`; `header_sha256` is what the log promises.

        Raises IntegrityError if anything is not exactly as promised.
        """
        view = memoryview(buffer)
        header, digests, self._data = _frame(view)
        self.header_sha256 = hashlib.sha256(header).hexdigest()
        if header_sha256 is not None and header_sha256 != self.header_sha256:
            raise IntegrityError("artifact header does not match the log")
        self.header: dict[str, Any] = _parse(header)
        if self.header.get("digests_sha256") != hashlib.sha256(digests).hexdigest():
            raise IntegrityError("artifact page digests do not match the header")
        size = self.header.get("data_size")
        if type(size) is not int or size != len(view) - self._data:
            raise IntegrityError("artifact is truncated or has extra bytes")
        self._buffer = view
        self._digests = bytes(digests)
        self._seen = bytearray(len(digests) // DIGEST)
        self.sections = _sections(self.header)

    def verify(self, start: int, stop: int) -> None:
        """Check the pages that hold data bytes [start, stop) and were not checked yet."""
        seen = self._seen
        for page in range(start >> PAGE_BITS, (stop + PAGE - 1) >> PAGE_BITS):
            if not seen[page]:
                low = self._data + (page << PAGE_BITS)
                digest = hashlib.sha256(self._buffer[low : low + PAGE]).digest()[:DIGEST]
                if digest != self._digests[page * DIGEST : page * DIGEST + DIGEST]:
                    raise IntegrityError(f"artifact page {page} does not match its sha256")
                seen[page] = 1

    def verify_all(self) -> None:
        """Check every page that was not checked yet."""
        self.verify(0, int(self.header["data_size"]))

    def section(self, name: str) -> Section:
        """Return where `name` lies. Raises IntegrityError if the file has no such section."""
        try:
            return self.sections[name]
        except KeyError:
            raise IntegrityError(f"artifact has no section {name}") from None

    def raw(self, name: str) -> memoryview:
        """Return the checked bytes of a section, without a copy."""
        section = self.section(name)
        self.verify(section.offset, section.offset + section.size)
        start = self._data + section.offset
        return self._buffer[start : start + section.size]

    def array(self, name: str) -> NDArray[Any]:
        """Return a checked, read-only numpy view of a section in its shape and dtype."""
        import numpy as np

        section = self.section(name)
        return np.frombuffer(self.raw(name), dtype="<" + section.dtype).reshape(section.shape)

    def rows(self, name: str) -> Callable[[int], tuple[Any, ...]]:
        """Return a function i → row i of a section of one or two axes, as a tuple; checks pages as it goes."""
        section = self.section(name)
        count, width = section.shape[0], (section.shape[1] if len(section.shape) > 1 else 1)
        record = struct.Struct(f"<{width}{DTYPES[section.dtype]}")
        return self.records(name, record, count)

    def records(self, name: str, record: struct.Struct, count: int) -> Callable[[int], tuple[Any, ...]]:
        """Return a function i → record i of a section seen as `count` packed records."""
        section, size, unpack = self.section(name), record.size, record.unpack_from
        if count * size != section.size:
            raise IntegrityError(f"section {name} has {section.size} bytes, not {count} x {size}")
        buffer, seen, data, verify = self._buffer, self._seen, self._data, self.verify
        base, is_wide = section.offset, size > PAGE  # a wide record has pages besides its first and last

        def read(index: int) -> tuple[Any, ...]:
            if not 0 <= index < count:
                raise IntegrityError(f"index {index} is outside section {name}")
            low = base + index * size
            high = low + size
            if is_wide or not (seen[low >> PAGE_BITS] and seen[(high - 1) >> PAGE_BITS]):
                verify(low, high)
            return unpack(buffer, data + low)

        return read

    def slice_reader(self, name: str) -> Callable[[int, int], bytes]:
        """Return a function (start, stop) → checked bytes of a section; out-of-range bounds are refused."""
        section = self.section(name)
        base, limit = section.offset, section.size

        def read(start: int, stop: int) -> bytes:
            if not 0 <= start <= stop <= limit:
                raise IntegrityError(f"bounds outside section {name}")
            self.verify(base + start, base + stop)
            low = self._data + base
            return bytes(self._buffer[low + start : low + stop])

        return read


def write(header: Mapping[str, Any], sections: Mapping[str, NDArray[Any] | bytes]) -> bytes:
    """Return the file: `header` plus the bookkeeping fields, and the sections. Deterministic.

    Arrays are stored little-endian in their own dtype (one of DTYPES); bytes as u1.
    """
    data, table = _pack(sections)
    pages = [data[low : low + PAGE] for low in range(0, len(data), PAGE)]
    digests = b"".join(hashlib.sha256(page).digest()[:DIGEST] for page in pages)
    full = {
        **header,
        "sections": table,
        "data_size": len(data),
        "digests_sha256": hashlib.sha256(digests).hexdigest(),
    }
    return _framed(full, digests, data)


def with_header(buffer: Any, header: Mapping[str, Any]) -> bytes:
    """Return the file in `buffer` under another header, which must name the same data. Raises IntegrityError."""
    view = memoryview(buffer)
    _, digests, start = _frame(view)
    return _framed(header, bytes(digests), bytes(view[start:]))


def encode_header(header: Mapping[str, Any]) -> bytes:
    """Return the one form in which a header is written."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _framed(header: Mapping[str, Any], digests: bytes, data: bytes) -> bytes:
    body = encode_header(header)
    if len(body) > MAX_HEADER or len(data) > MAX_DATA:
        raise IntegrityError("artifact is over the size limit", limit=MAX_DATA)
    head = _FIXED.pack(MAGIC, len(body), len(digests) // DIGEST) + body + digests
    return head + bytes(-len(head) % PAGE) + data


def _pack(sections: Mapping[str, NDArray[Any] | bytes]) -> tuple[bytes, dict[str, Any]]:
    table: dict[str, Any] = {}
    data = bytearray()
    for name in sorted(sections):
        item = sections[name]
        raw, dtype, shape = _raw(item)
        data += bytes(-len(data) % ALIGN)
        table[name] = [len(data), len(raw), dtype, shape]
        data += raw
    return bytes(data), table


def _raw(item: NDArray[Any] | bytes) -> tuple[bytes, str, list[int]]:
    if isinstance(item, bytes):
        return item, "u1", [len(item)]
    dtype = item.dtype.newbyteorder("<")
    name = dtype.str[1:]
    if name not in DTYPES:
        raise IntegrityError(f"dtype {name} may not stand in an artifact")
    return item.astype(dtype, order="C", copy=False).tobytes(), name, list(item.shape)


def _frame(view: memoryview) -> tuple[memoryview, memoryview, int]:
    if len(view) < _FIXED.size:
        raise IntegrityError("artifact is truncated")
    magic, header_size, pages = _FIXED.unpack_from(view)
    stop = _FIXED.size + header_size
    end = stop + pages * DIGEST
    data = end + (-end % PAGE)
    if magic != MAGIC or header_size > MAX_HEADER or len(view) - data > MAX_DATA or data > len(view):
        raise IntegrityError("not a Polysky artifact, or truncated")
    if (len(view) - data + PAGE - 1) >> PAGE_BITS != pages:
        raise IntegrityError("artifact is truncated or has extra bytes")
    if bytes(view[end:data]).strip(b"\0"):
        raise IntegrityError("artifact has bytes that nothing vouches for")
    return view[_FIXED.size : stop], view[stop:end], data


def decode(text: bytes) -> Any:
    """Return the value of a JSON text that stands in a file. Raises IntegrityError."""
    if len(text) > MAX_NESTS and text.count(b"[") + text.count(b"{") > MAX_NESTS:
        raise IntegrityError("artifact holds JSON of absurd size")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise IntegrityError("artifact holds text that is not JSON") from None


def _parse(header: memoryview) -> dict[str, Any]:
    parsed = decode(bytes(header))
    if not isinstance(parsed, dict) or not isinstance(parsed.get("sections"), dict):
        raise IntegrityError("artifact header has no sections")
    return parsed


def _sections(header: Mapping[str, Any]) -> dict[str, Section]:
    try:
        table = {name: Section(o, s, d, tuple(shape)) for name, (o, s, d, shape) in header["sections"].items()}
        for name, section in table.items():
            _check_section(name, section, header["data_size"])
    except (TypeError, ValueError, KeyError, AttributeError):
        raise IntegrityError("artifact section table is not well formed") from None
    return table


def _check_section(name: str, section: Section, data_size: int) -> None:
    items = 1
    for axis in section.shape:
        if type(axis) is not int or axis < 0:
            raise ValueError(name)
        items *= axis
    if type(section.offset) is not int or type(section.size) is not int:
        raise ValueError(name)
    size = items * struct.calcsize("<" + DTYPES[section.dtype])
    inside = section.offset >= 0 and section.offset + section.size <= data_size
    if size != section.size or not inside or section.offset % ALIGN:
        raise ValueError(name)
