"""CSV: UTF-8, comma, a header line, standard double-quote quoting. Strict, and every fault names its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from core.dataset.limits import Limits, too_large
from core.dataset.source import CHUNK_ROWS, Chunk, Source
from core.errors import DataRejected

UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Lines:
    """The lines of a stream as text, each checked; ends only at "\\n". `number` is the last one's, from 1."""

    def __init__(self, stream: io.BufferedReader, limits: Limits) -> None:
        self._stream = stream
        self._limit = limits.line_bytes
        self.number = 0
        self.open_end = False
        if stream.peek(2)[:2] in UTF16:
            raise DataRejected("encoding", "the file is UTF-16; save it as UTF-8")
        if stream.peek(3)[:3] == b"\xef\xbb\xbf":
            stream.read(3)

    def __iter__(self) -> Iterator[str]:
        """Yield the lines with their ends. Raises DataRejected that names the line."""
        while raw := self._stream.readline(self._limit):
            self.number += 1
            if len(raw) == self._limit:
                raise too_large(f"line {self.number}", self._limit, "bytes")
            if b"\0" in raw:
                raise DataRejected("encoding", f"line {self.number} holds a NUL byte", line=self.number)
            self.open_end = not raw.endswith(b"\n")
            yield self._decoded(raw)

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"line {self.number} is not UTF-8 (byte {error.start + 1} of it); save the file as UTF-8"
            raise DataRejected("encoding", where, line=self.number) from None


def open_csv(stream: io.BufferedReader, limits: Limits) -> Source:
    """Return the source of a CSV stream. Raises DataRejected now for a bad header, later for a bad row."""
    csv.field_size_limit(limits.field_bytes)  # of the whole process; there is no other way to set it
    lines = Lines(stream, limits)
    records = _records(lines, limits)
    _, header = next(records, (0, []))
    if not header:
        raise DataRejected("truncated", "the file is empty")
    names = tuple(name.strip(" ") for name in header)
    _check_header(names, limits)
    return Source(names, _chunks(records, names, lines, limits), text=True, open_end=lambda: lines.open_end)


def _records(lines: Lines, limits: Limits) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, fields) of every record that is not blank."""
    start = 1
    reader = csv.reader(_guarded(lines, limits), strict=True)
    try:
        for record in reader:
            if record:
                yield start, record
            start = lines.number + 1
    except csv.Error as error:
        raise _bad_record(str(error), start, lines, limits) from None


def _guarded(lines: Lines, limits: Limits) -> Iterator[str]:
    """Yield the lines, none with more fields than memory has room for: the csv module has no cap of its own."""
    for line in lines:
        cap = limits.columns if lines.number == 1 else limits.columns + limits.field_bytes
        if len(line) > cap and line.count(",") >= cap:
            raise too_large(f"the number of fields on line {lines.number}", limits.columns)
        yield line


def _bad_record(text: str, start: int, lines: Lines, limits: Limits) -> DataRejected:
    if "field larger" in text:
        return too_large(f"a field that starts on line {start}", limits.field_bytes, "characters")
    if "unexpected end" in text:
        message = f"a quoted field of the row that starts on line {start} never ends"
        return DataRejected("truncated" if lines.open_end else "syntax", message, line=start)
    if "new-line character" in text:
        message = f"line {start} holds a carriage return without a line feed; end lines with \\n or \\r\\n"
        return DataRejected("syntax", message, line=start)
    message = f"the row that starts on line {start} has text after a closing quote"
    return DataRejected("syntax", message, line=start)


def _check_header(names: tuple[str, ...], limits: Limits) -> None:
    if len(names) > limits.columns:
        raise too_large(f"the number of columns ({len(names)})", limits.columns)
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise DataRejected("syntax", "the header has no comma; separate the columns with commas", line=1)
    if "" in names:
        raise DataRejected("schema", f"column {names.index('') + 1} of the header has no name", line=1)


def _chunks(
    records: Iterator[tuple[int, list[str]]], names: tuple[str, ...], lines: Lines, limits: Limits
) -> Iterator[Chunk]:
    width, total = len(names), 0
    rows: list[list[str]] = []
    for start, record in records:
        if len(record) != width:
            raise _ragged(start, len(record), width, cut=lines.open_end and len(record) < width)
        rows.append(record)
        if len(rows) == CHUNK_ROWS:
            yield _chunk(names, rows)
            total, rows = total + len(rows), []
        if total + len(rows) > limits.rows:
            raise too_large("the number of rows", limits.rows)
    if rows:
        yield _chunk(names, rows)


def _chunk(names: tuple[str, ...], rows: list[list[str]]) -> Chunk:
    return Chunk(len(rows), dict(zip(names, zip(*rows, strict=True), strict=True)))


def _ragged(line: int, found: int, expected: int, *, cut: bool) -> DataRejected:
    message = f"the row that starts on line {line} has {found} fields, the header {expected}"
    if cut:
        return DataRejected("truncated", f"{message}; the file ends there, so it may be cut", line=line)
    return DataRejected("syntax", message, line=line)
