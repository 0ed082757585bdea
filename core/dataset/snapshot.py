"""The rows that a version was trained on, kept as an .npz file: the same rows always give the same bytes.

`about` is JSON: format, seed, columns and the shapes of pictures. Column i lies in `i` (numbers float64, NaN where
missing; vectors of shape (n_rows, width)), or in `i.bytes` and `i.ends`: texts in UTF-8 or pictures, one after the
other, and where each ends. Categories are such texts, each once, and `i.codes`: which one a row has, -1 for none;
so are `label`s, or numbers. `key` holds the row digests. Nothing in it is a Python object.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset import former
from core.dataset.table import Dataset, Labels
from core.errors import IntegrityError
from core.schema import Batch, Column
from core.spec import ModelSpec

FORMAT = 2
Arrays = dict[str, NDArray[Any]]
# what a file that is cut, damaged or something else makes the readers raise
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, MemoryError, SyntaxError, TokenError, RecursionError)
_MISSHAPEN = (ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


def write_snapshot(dataset: Dataset) -> bytes:
    """Return the bytes of a dataset's snapshot."""
    cells = dataset.batch.columns
    about = {
        "format": FORMAT,
        "seed": dataset.seed,
        "columns": [[c.name, c.kind, c.width] for c in dataset.columns],
        "shapes": {
            c.name: list(np.shape(cells[c.name])[1:]) for c in dataset.columns if _is_images(c, cells[c.name])
        },
    }
    arrays: Arrays = {
        "about": np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8),
        "key": dataset.keys(),
    }
    for place, column in enumerate(dataset.columns):
        arrays |= _stored(str(place), column, cells[column.name])
    if dataset.labels is not None:
        is_text = bool(dataset.labels) and isinstance(dataset.labels[0], str)
        labels: Any = dataset.labels
        arrays |= _coded("label", labels) if is_text else {"label": np.asarray(labels, np.float64)}
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    return sink.getvalue()


def _is_images(column: Column, cells: Any) -> bool:
    return column.kind == "image" and isinstance(cells, np.ndarray)


def _stored(name: str, column: Column, cells: Any) -> Arrays:
    if column.kind == "number":
        return {name: np.asarray(cells, np.float64)}
    if column.kind == "vector":
        return {name: cells if isinstance(cells, np.ndarray) else np.asarray(cells, np.float64)}
    if column.kind == "category":
        return _coded(name, cells)
    if column.kind == "text":
        return _strung(name, [cell.encode() for cell in cells])
    return _strung(name, [cell.tobytes() if isinstance(cell, np.ndarray) else bytes(cell) for cell in cells])


def _strung(name: str, cells: Sequence[bytes]) -> Arrays:
    ends = np.cumsum([len(cell) for cell in cells], dtype=np.int64)
    return {f"{name}.bytes": np.frombuffer(b"".join(cells), np.uint8), f"{name}.ends": ends}


def _coded(name: str, cells: Sequence[str | None]) -> Arrays:
    known: dict[str | None, int] = {None: -1}
    codes = np.array([known.setdefault(cell, len(known) - 1) for cell in cells], np.int32)
    texts = [text.encode() for text in known if text is not None]
    return {**_strung(name, texts), f"{name}.codes": codes}


def read_snapshot(data: bytes, spec: ModelSpec) -> Dataset:
    """Return the dataset that `write_snapshot`, or that of version 0.1, wrote, with the columns of `spec`.

    Raises IntegrityError if the bytes are damaged or hold other columns than the spec.
    """
    if data.startswith(former.MAGIC):
        return former.read_parquet(data, spec)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays: Arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != FORMAT:
            raise IntegrityError("the snapshot of the data has another format")
        if sorted(about["columns"]) != sorted([c.name, c.kind, c.width] for c in spec.columns):
            raise IntegrityError("the snapshot of the data has other columns than the spec")
        return _dataset(arrays, about, spec)
    except (*_DAMAGE, *_MISSHAPEN) as error:
        raise IntegrityError("the snapshot of the data is damaged") from error


def _dataset(arrays: Arrays, about: Mapping[str, Any], spec: ModelSpec) -> Dataset:
    places = {name: str(place) for place, (name, _, _) in enumerate(about["columns"])}
    columns = {c.name: _restored(arrays, places[c.name], c, about["shapes"].get(c.name)) for c in spec.columns}
    labels: Labels = None
    if "label" in arrays:
        labels = arrays["label"].tolist()
    elif "label.codes" in arrays:
        labels = [text for text in _decoded(arrays, "label") if text is not None]
    keys = arrays["key"]
    batch = Batch(len(keys), columns)
    if any(len(cells) != len(keys) for cells in (*columns.values(), *([] if labels is None else [labels]))):
        raise ValueError("lengths")
    seed = spec.split.seed
    return Dataset(spec.columns, batch, labels, seed=seed, keys=keys if about["seed"] == seed else None)


def _restored(arrays: Arrays, name: str, column: Column, shape: Sequence[int] | None) -> Any:
    if column.kind == "number":
        return array("d", arrays[name].astype(np.float64).tobytes())
    if column.kind == "vector":
        return arrays[name].reshape(-1, column.width)
    if column.kind == "category":
        return _decoded(arrays, name)
    if column.kind == "text":
        return _texts(arrays, name)
    if shape is not None:
        return arrays[f"{name}.bytes"].reshape(-1, *shape)
    return _unstrung(arrays, name)


def _unstrung(arrays: Arrays, name: str) -> list[bytes]:
    data, ends = arrays[f"{name}.bytes"].tobytes(), arrays[f"{name}.ends"].tolist()
    return [data[start:stop] for start, stop in pairwise([0, *ends])]


def _texts(arrays: Arrays, name: str) -> list[str]:
    return [cell.decode() for cell in _unstrung(arrays, name)]


def _decoded(arrays: Arrays, name: str) -> list[str | None]:
    texts: list[str | None] = [*_texts(arrays, name), None]  # -1 is the last
    return [texts[code] for code in arrays[f"{name}.codes"].tolist()]
