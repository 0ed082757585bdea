"""The native dialect: what `/predict` takes (it sniffs the form of the body) and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from math import isfinite
from typing import TYPE_CHECKING, Any

from core import strict_json
from core.errors import InvalidInput, MalformedBody, Problem, TooLarge, UnsupportedMedia
from core.schema import MAX_PROBLEMS, Column, Schema
from core.tuples import NamedTuple
from core.web import JSON, quote

if TYPE_CHECKING:
    from core.model import Predictions

Row = Mapping[str, Any]
Form = Callable[[Any, Schema, int], Sequence[Row]]
IMAGES = ("image/png", "image/jpeg")
CSV = "text/csv"
MAX_AXES = 8
MAX_CELL_CHARS = 131_072
_EXTRAS = frozenset({"model", "version", "id", "params", "parameters"})
_TENSOR = {"name", "datatype", "shape", "data"}
_NUMERIC = frozenset("0123456789+-.eE")  # of these alone float() takes what JSON and CSV call a number


class Asked(NamedTuple):
    """What a request asks, before its model is known; `rows(schema, limit)` gives the rows to check."""

    model: str | None
    version: str | None
    rows: Callable[[Schema, int], Sequence[Row]]


def decode(media: str, body: bytes) -> Asked:
    """Return what a prediction request asks.

    Raises MalformedBody, UnsupportedMedia. `rows` raises InvalidInput for no rows and for rows that do not fit
    the schema's shape, TooLarge for more than its limit, MalformedBody.
    """
    if media == JSON:
        return _json(strict_json.loads(body))
    if media == CSV:
        return Asked(None, None, lambda schema, limit: _csv(body, schema, limit))
    if media in IMAGES:
        return Asked(None, None, lambda schema, limit: [{_sole(schema, "image"): body}])
    raise UnsupportedMedia(f"Content-Type must be {JSON}, {CSV} or {' or '.join(IMAGES)}")


def encode(name: str, version: str, request_id: str, classes: tuple[str, ...], found: Predictions) -> bytes:
    """Return the answer: model, version, request_id and one entry a row. A number that is not finite is null.

    Spelt out by hand: the standard encoder takes as long as the model itself. Probabilities have 12 digits: more
    than any model here is exact to, and few enough that machines do not differ in the last ones.
    """
    if found.values is not None:
        entries = [f'{{"value":{_digits(value)}}}' for value in found.values]
    elif found.probabilities is None:
        entries = [f'{{"label":{quote(label)}}}' for label in found.labels or ()]
    else:
        form, rows = _form(classes), found.probabilities
        entries = [
            form % (quote(label), max(row), *row) if isfinite(sum(row)) else _odd_entry(classes, label, row)
            for label, row in zip(found.labels or (), rows, strict=True)
        ]
    head = _head(name, version)
    return f'{head}{quote(request_id)},"predictions":[{",".join(entries)}]}}'.encode("ascii")


def _odd_entry(classes: Sequence[str], label: str, row: Sequence[float]) -> str:
    numbers = [f"{value:.12g}" if isfinite(value) else "null" for value in row]
    shares = ",".join(f"{quote(name)}:{number}" for name, number in zip(classes, numbers, strict=True))
    top = numbers[row.index(max(row))]
    return f'{{"label":{quote(label)},"probability":{top},"probabilities":{{{shares}}}}}'


def _digits(value: float) -> str:
    return repr(value) if isfinite(value) else "null"


@lru_cache(256)
def _head(name: str, version: str) -> str:
    return f'{{"model":{quote(name)},"version":{quote(version)},"request_id":'


@lru_cache(64)
def _form(classes: tuple[str, ...]) -> str:
    """Return an entry with places for label, probability and probabilities."""
    shares = ",".join(quote(label).replace("%", "%%") + ":%.12g" for label in classes)
    return '{"label":%s,"probability":%.12g,"probabilities":{' + shares + "}}"


# -- JSON: which form it is --------------------------------------------------------------------------------


def _json(body: Any) -> Asked:
    if not isinstance(body, dict):
        raise MalformedBody("body must be a JSON object")
    if len(body) == 1:
        ((only, value),) = body.items()
        if only in FORMS:  # by far the most used
            return Asked(None, None, partial(_whole, FORMS[only], value))
    forms = [key for key in body if key in FORMS]
    if len(body) > len(forms):
        _refuse_unknown(body)
    if not forms:
        raise MalformedBody(f"body must hold the rows under one of: {', '.join(FORMS)}")
    model, version = _text_of(body, "model"), _text_of(body, "version")
    if len(forms) == 1:
        return Asked(model, version, partial(_whole, FORMS[forms[0]], body[forms[0]]))
    parts = {key: body[key] for key in forms}
    if parts.keys() <= {"text", "image", "features"} and isinstance(parts.get("features", {}), dict):
        return Asked(model, version, lambda schema, limit: [_joined(parts, schema)])
    if parts.keys() == {"texts", "images"}:
        return Asked(model, version, lambda schema, limit: _bounded(_lists(parts, schema), limit))
    raise MalformedBody(f"body holds rows twice: under {forms[0]} and under {forms[1]}")


def _whole(form: Form, value: Any, schema: Schema, limit: int) -> Sequence[Row]:
    return _bounded(form(value, schema, limit), limit)


def _refuse_unknown(body: Mapping[str, Any]) -> None:
    for key in body:
        if key not in FORMS and key not in _EXTRAS:
            text = f"body holds the unknown key {key[:64]!a}: a row by column names goes under features"
            raise MalformedBody(text, key=key[:64])


def _text_of(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise MalformedBody(f"{key} must be a string")
    return value


def _bounded(rows: Sequence[Row], limit: int) -> Sequence[Row]:
    _check_count(len(rows), limit)
    return rows


def _check_count(count: int, limit: int) -> None:
    if count == 0:
        raise InvalidInput("there are no rows", (Problem("must hold at least one row"),))
    if count > limit:
        raise TooLarge(f"more than {limit} rows in one request", limit=limit)


def _sole(schema: Schema, kind: str) -> str:
    """Return the column that a short form means: the one named like its kind, else the only one of the kind."""
    names = [column.name for column in schema.columns if column.kind == kind]
    if len(names) == 1 or kind in names:
        return kind if kind in names else names[0]
    text = f"this model has {len(names)} columns of kind {kind}: name them in rows"
    raise InvalidInput(text, (Problem(text, kind),))


# -- JSON: the forms ---------------------------------------------------------------------------------------


def _joined(parts: Mapping[str, Any], schema: Schema) -> Row:
    row = dict(parts.get("features", {}))
    for kind in ("text", "image"):
        if kind in parts:
            name = _sole(schema, kind)
            if name in row:
                raise MalformedBody(f"body holds {kind} twice")
            row[name] = parts[kind]
    return row


def _lists(parts: Mapping[str, Any], schema: Schema) -> Sequence[Row]:
    return _columnar({_sole(schema, key[:-1]): _list(key, value) for key, value in parts.items()})


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInput(f"{key} must be a list", (Problem("must be a list", key),))
    return value


def _one(kind: str) -> Callable[[Any, Schema, int], Sequence[Row]]:
    return lambda value, schema, limit: [{_sole(schema, kind): value}]


def _many(kind: str) -> Callable[[Any, Schema, int], Sequence[Row]]:
    def rows(value: Any, schema: Schema, limit: int) -> Sequence[Row]:
        _check_count(len(_list(kind + "s", value)), limit)
        name = _sole(schema, kind)
        return [{name: item} for item in value]

    return rows


def _features(value: Any, schema: Schema, limit: int) -> Sequence[Row]:
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list) and value and not isinstance(value[0], list | dict):
        return _rows([value], schema, limit)
    return _rows(value, schema, limit)


def _rows(value: Any, schema: Schema, limit: int) -> Sequence[Row]:
    """Return row-oriented data: objects, lists in column order, or bare values of a model with one column."""
    items = _list("rows", value)
    _check_count(len(items), limit)
    columns = schema.columns
    problems: list[Problem] = []
    rows = [_row(item, columns, index, problems) for index, item in enumerate(items)]
    if problems:
        raise InvalidInput(f"{len(problems)} bad row(s)", tuple(problems[:MAX_PROBLEMS]), total=len(problems))
    return rows


def _row(item: Any, columns: Sequence[Column], index: int, problems: list[Problem]) -> Row:
    if isinstance(item, dict):
        if len(item) != 1 or "features" not in item or any(column.name == "features" for column in columns):
            return item
        item = item["features"]
        if isinstance(item, dict):
            return item
    only = columns[0] if len(columns) == 1 else None
    if only is not None and (not isinstance(item, list) or _is_vector(item, only)):
        return {only.name: item}
    if not isinstance(item, list) or len(item) != len(columns):
        problems.append(Problem(f"must be an object, or a list of {len(columns)} values", None, index))
        return {}
    return {column.name: value for column, value in zip(columns, item, strict=True)}


def _is_vector(item: Sequence[Any], column: Column) -> bool:
    return column.kind == "vector" and not (len(item) == 1 and isinstance(item[0], list))


def _split(value: Any, schema: Schema, limit: int) -> Sequence[Row]:
    if not isinstance(value, dict) or not value.keys() <= {"columns", "index", "data"} or "data" not in value:
        raise MalformedBody("a split frame must be an object of columns, data and at most index")
    data, names = value["data"], value.get("columns")
    if names is None:
        return _rows(data, schema, limit)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise MalformedBody("columns must be a list of different strings")
    return _rows(data, Schema(tuple(Column(name, "category") for name in names)), limit)


def _frame(value: Any, schema: Schema, limit: int) -> Sequence[Row]:
    if isinstance(value, dict) and "data" in value and value.keys() <= {"columns", "index", "data"}:
        return _split(value, schema, limit)
    return _columnar(value) if isinstance(value, dict) else _rows(value, schema, limit)


def _inputs(value: Any, schema: Schema, limit: int) -> Sequence[Row]:
    if isinstance(value, str):
        return _rows([value], schema, limit)
    if isinstance(value, dict):
        return _columnar(value)
    if isinstance(value, list) and value and isinstance(value[0], dict) and value[0].keys() >= _TENSOR:
        return _tensors(value, schema, limit)
    return _rows(value, schema, limit)


def _columnar(value: Mapping[str, Any]) -> Sequence[Row]:
    lists = [isinstance(column, list) for column in value.values()]
    if not any(lists):
        return [value] if value else []
    if not all(lists):
        raise InvalidInput(
            "either all columns are lists or none", (Problem("either all columns are lists or none"),)
        )
    if len({len(column) for column in value.values()}) > 1:
        raise InvalidInput("columns differ in length", (Problem("columns differ in length"),))
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _tensors(items: Sequence[Any], schema: Schema, limit: int) -> Sequence[Row]:
    """Return the rows of Open Inference Protocol inputs: one a column, or one for all columns."""
    columns: dict[str, list[Any]] = {}
    for item in items:
        if not isinstance(item, dict) or not item.keys() >= _TENSOR or not isinstance(item["name"], str):
            raise MalformedBody("each of inputs must have name, shape, datatype and data")
        if item["name"] in columns:
            raise MalformedBody("two inputs have the same name")
        columns[item["name"]] = _tensor(item, limit)
    if len(columns) == 1 and not columns.keys() & {column.name for column in schema.columns}:
        return _rows(next(iter(columns.values())), schema, limit)
    return _columnar(columns)


def _tensor(item: Mapping[str, Any], limit: int) -> list[Any]:
    shape, flat = item["shape"], _flat(item["data"])
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_AXES or not all(map(_is_axis, shape)):
        raise MalformedBody(f"shape must be a list of 1 to {MAX_AXES} whole numbers")
    _check_count(shape[0], limit)
    width, rest = divmod(len(flat), shape[0])
    expected = 1
    for axis in shape[1:]:
        expected *= axis
    if rest or width != expected or width == 0:
        text = "data does not fill the shape"
        raise InvalidInput(text, (Problem(text, item["name"][:64]),))
    return flat if width == 1 else [flat[low : low + width] for low in range(0, len(flat), width)]


def _is_axis(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _flat(data: Any) -> list[Any]:
    level = data if isinstance(data, list) else [data]
    while any(isinstance(item, list) for item in level):
        level = [leaf for item in level for leaf in (item if isinstance(item, list) else [item])]
    return level


FORMS: dict[str, Form] = {
    "dataframe_split": _split,
    "dataframe_records": _rows,
    "input_data": _frame,
    "instances": _rows,
    "inputs": _inputs,
    "text": _one("text"),
    "texts": _many("text"),
    "image": _one("image"),
    "images": _many("image"),
    "features": _features,
    "data": _rows,
    "rows": _rows,
}


# -- CSV ---------------------------------------------------------------------------------------------------


def _csv(body: bytes, schema: Schema, limit: int) -> Sequence[Row]:
    """Return the rows of a CSV text with a header row, cells as the schema's kinds read them."""
    import csv
    import io

    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"body is not UTF-8 at byte {error.start}", position=error.start) from None
    if "\0" in text:
        raise MalformedBody("body holds a NUL character")
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = next(lines, [])
        if len(set(header)) < len(header):
            raise MalformedBody("the header row names a column twice")
        kinds = {column.name: column.kind for column in schema.columns}
        rows: list[Row] = []
        for cells in lines:
            if cells:
                rows.append(_cells(header, cells, kinds, len(rows)))
                _check_count(len(rows), limit)
    except csv.Error:
        raise MalformedBody(f"body is not valid CSV at line {lines.line_num}", line=lines.line_num) from None
    return _bounded(rows, limit)


def _cells(header: Sequence[str], cells: Sequence[str], kinds: Mapping[str, str], index: int) -> Row:
    if len(cells) != len(header):
        text = f"must have {len(header)} cells"
        raise InvalidInput(f"row {index} {text}", (Problem(text, None, index),))
    if max(map(len, cells)) > MAX_CELL_CHARS:  # the reader's own limit is the whole process's, and others set it
        raise MalformedBody(f"a cell has more than {MAX_CELL_CHARS} characters", limit=MAX_CELL_CHARS)
    return {name: _cell(cell, kinds.get(name, "text")) for name, cell in zip(header, cells, strict=True)}


def _cell(cell: str, kind: str) -> Any:
    if kind in ("number", "category") and not cell:
        return None
    if kind == "number" and _NUMERIC.issuperset(cell):
        try:
            return float(cell)
        except ValueError:
            return cell
    if kind == "vector":
        return strict_json.loads(cell.encode())
    return cell
