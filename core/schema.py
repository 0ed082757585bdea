"""The columns of a row, and the step from rows (as JSON or a file gives them) to a checked Batch.

Everything here runs on the predict path: standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from core.errors import InvalidInput, Problem
from core.tuples import NamedTuple

MAX_PROBLEMS = 10
MAX_TEXT_CHARS = 1_000_000


class Column(NamedTuple):
    """One input column.

    `kind` is text | number | category | image | vector. `options` are the feature parameters of the spec
    (for example ngrams of a text column). `width` is the length of a vector, 0 for other kinds.
    `values` are the categories seen in training (empty: any).
    """

    name: str
    kind: str
    options: Mapping[str, Any] = {}
    width: int = 0
    values: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Checked rows, by column: `columns[name]` has `n_rows` entries in input order.

    Entries by kind: text str · number float (NaN: missing) · category str or None · image bytes (PNG or JPEG)
    or a uint8 array of shape (h, w) or (h, w, 3) · vector sequence of floats; a vector column may also be one
    float array of shape (n_rows, width).
    """

    n_rows: int
    columns: Mapping[str, Sequence[Any]]

    def row(self, index: int) -> dict[str, Any]:
        """Return one row as a dict of column name to entry."""
        return {name: column[index] for name, column in self.columns.items()}

    def take(self, indices: Sequence[int]) -> Batch:
        """Return the rows at `indices`, in that order."""
        return Batch(len(indices), {name: [c[i] for i in indices] for name, c in self.columns.items()})


class Refused(Exception):
    """A cell breaks its column's rule; the text says which rule, never the value."""


def _text(value: Any, column: Column) -> str:
    if not isinstance(value, str):
        raise Refused("must be a string")
    if len(value) > MAX_TEXT_CHARS:
        raise Refused(f"must have at most {MAX_TEXT_CHARS} characters")
    return value


def _number(value: Any, column: Column) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("must be a number or null")
    try:
        number = float(value)
    except OverflowError:
        raise Refused("must fit a 64-bit float") from None
    if math.isinf(number):
        raise Refused("must be finite")
    return number


def _category(value: Any, column: Column) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        text = "true" if value else "false"
        return text.capitalize() if text.capitalize() in column.values else text  # as the training file spelt it
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused("must be a string, a number, a boolean or null")


def _image(value: Any, column: Column) -> Any:
    if isinstance(value, bytes) or hasattr(value, "dtype"):
        return value
    if not isinstance(value, str):
        raise Refused("must be a base64 string of a PNG or JPEG file")
    import binascii

    try:
        return binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except ValueError:
        raise Refused("must be valid base64 of a PNG or JPEG file") from None


def _vector(value: Any, column: Column) -> Any:
    if hasattr(value, "dtype"):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != column.width:
        raise Refused(f"must be a list of {column.width} numbers")
    numbers = [_number(item, column) for item in value]
    if any(map(math.isnan, numbers)):
        raise Refused("must not hold null")
    return numbers


_CHECKS: dict[str, Callable[[Any, Column], Any]] = {
    "text": _text,
    "number": _number,
    "category": _category,
    "image": _image,
    "vector": _vector,
}
KINDS = tuple(_CHECKS)


class Schema(NamedTuple):
    """The columns of a model's rows, in order."""

    columns: tuple[Column, ...]

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return the checked rows by column.

        Raises InvalidInput with the first MAX_PROBLEMS bad cells, each with row and field.
        """
        problems: list[Problem] = []
        columns = {c.name: _column(rows, c, problems) for c in self.columns}
        if problems or max(map(len, rows), default=0) > len(columns):
            _unknown_fields(rows, columns, problems)
            total = len(problems)
            raise InvalidInput(f"{total} bad cell(s)", tuple(problems[:MAX_PROBLEMS]), total=total)
        return Batch(len(rows), columns)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the manifest form."""
        return [{**c._asdict(), "options": dict(c.options), "values": list(c.values)} for c in self.columns]


def schema_from_dicts(items: Iterable[Mapping[str, Any]]) -> Schema:
    """Return the schema that `as_dicts` wrote."""
    return Schema(tuple(Column(**{**item, "values": tuple(item["values"])}) for item in items))


def _column(rows: Sequence[Mapping[str, Any]], column: Column, problems: list[Problem]) -> list[Any]:
    check, name = _CHECKS[column.kind], column.name
    try:
        return [check(row[name], column) for row in rows]
    except (KeyError, Refused):  # say where, and what else
        entries: list[Any] = []
    for index, row in enumerate(rows):
        try:
            entries.append(check(row[name], column))
        except KeyError:
            problems.append(Problem("is missing", name, index))
        except Refused as refused:
            problems.append(Problem(str(refused), name, index))
    return entries


def _unknown_fields(rows: Sequence[Mapping[str, Any]], known: Mapping[str, Any], problems: list[Problem]) -> None:
    for index, row in enumerate(rows):
        if len(row) > len(known) or not row.keys() <= known.keys():
            problems.extend(
                Problem("is not a column of this model", str(name)[:64], index)
                for name in row
                if name not in known
            )
