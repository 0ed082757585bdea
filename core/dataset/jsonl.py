"""JSON Lines: one object a line, strict (no repeated keys, no NaN, no other values than RFC 8259 has)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from core.dataset.delimited import Lines
from core.dataset.limits import Limits, too_large
from core.dataset.source import ABSENT, CHUNK_ROWS, Chunk, Source
from core.errors import DataRejected


class _Refused(ValueError):
    pass


def open_jsonl(stream: io.BufferedReader, limits: Limits) -> Source:
    """Return the source of a JSON Lines stream; the names are the keys of the first row."""
    lines = Lines(stream, limits)
    rows = _rows(lines)
    first = next(rows, None)
    if first is None:
        raise DataRejected("truncated", "the file is empty")
    if len(first) > limits.columns:
        raise too_large(f"the number of columns ({len(first)})", limits.columns)
    return Source(tuple(first), _chunks(first, rows, limits), open_end=lambda: lines.open_end)


def _rows(lines: Lines) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = _DECODER.decode(line)
        except _Refused as error:
            raise _bad(lines.number, str(error)) from None
        except (ValueError, RecursionError):
            if lines.open_end:
                message = f"line {lines.number} is not a whole JSON object; the file ends there, so it may be cut"
                raise DataRejected("truncated", message, line=lines.number) from None
            raise _bad(lines.number, "is not valid JSON") from None
        if not isinstance(row, dict):
            raise _bad(lines.number, "is not a JSON object; write one object a line")
        yield row


def _bad(line: int, message: str) -> DataRejected:
    return DataRejected("syntax", f"line {line} {message}", line=line)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _Refused("has the same key twice")
    return row


def _no_constant(name: str) -> Any:
    raise _Refused(f"holds {name}, which is not JSON; write null for a missing number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _chunks(first: dict[str, Any], rest: Iterator[dict[str, Any]], limits: Limits) -> Iterator[Chunk]:
    known, rows, total = frozenset(first), [first], 0
    for row in rest:
        if len(rows) == CHUNK_ROWS:
            yield _chunk(known, rows, total)
            total, rows = total + len(rows), []
        rows.append(row)
        if total + len(rows) > limits.rows:
            raise too_large("the number of rows", limits.rows)
    yield _chunk(known, rows, total)


def _chunk(names: frozenset[str], rows: list[dict[str, Any]], first_row: int) -> Chunk:
    extra: dict[str, int] = {}
    for index, row in enumerate(rows):
        for name in row.keys() - names:
            extra.setdefault(name, first_row + index)
    columns = {name: [row.get(name, ABSENT) for row in rows] for name in names}
    return Chunk(len(rows), columns, extra)
