"""The rows that a version was trained on, kept as Parquet: the same rows always give the same bytes.

Columns `x:NAME` hold the features (number float64, NaN where missing; text and category string; image binary;
vector a fixed-size list), `label` the labels, `key` the row digests. Images of one array are their raw bytes,
with the shape in the file's metadata.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.dataset.table import Dataset, Labels
from core.errors import IntegrityError
from core.schema import Batch, Column
from core.spec import ModelSpec

FORMAT = 1
_ROW_GROUP = 65_536
_META = b"polysky"


def write_snapshot(dataset: Dataset) -> bytes:
    """Return the Parquet bytes of a dataset."""
    cells = dataset.batch.columns
    arrays: dict[str, Any] = {f"x:{c.name}": _stored(c, cells[c.name]) for c in dataset.columns}
    if dataset.labels is not None:
        arrays["label"] = _stored_labels(dataset.labels)
    arrays["key"] = pa.array(dataset.keys())
    meta = {
        "format": FORMAT,
        "seed": dataset.seed,
        "columns": [[c.name, c.kind, c.width] for c in dataset.columns],
        "shapes": {
            c.name: list(np.shape(cells[c.name])[1:]) for c in dataset.columns if _is_images(c, cells[c.name])
        },
    }
    table = pa.table(arrays).replace_schema_metadata({_META: json.dumps(meta, sort_keys=True)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
    return sink.getvalue()


def _is_images(column: Column, cells: Any) -> bool:
    return column.kind == "image" and isinstance(cells, np.ndarray)


def _stored_labels(labels: Sequence[Any]) -> Any:
    is_text = bool(labels) and isinstance(labels[0], str)
    return pa.array(labels, pa.large_string() if is_text else pa.float64())


def _stored(column: Column, cells: Any) -> Any:
    if column.kind == "number":
        return pa.array(np.asarray(cells, np.float64), from_pandas=False)
    if column.kind == "vector":
        x = np.asarray(cells, np.float64) if not isinstance(cells, np.ndarray) else cells
        return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), column.width)
    if column.kind != "image":
        return pa.array(cells, pa.large_string())
    if isinstance(cells, np.ndarray):
        return pa.array([cell.tobytes() for cell in cells], pa.large_binary())
    return pa.array([bytes(cell) for cell in cells], pa.large_binary())


def read_snapshot(data: bytes, spec: ModelSpec) -> Dataset:
    """Return the dataset that `write_snapshot` wrote, with the columns (and options) of `spec`.

    Raises IntegrityError if the bytes are damaged or hold other columns than the spec.
    """
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True, use_threads=False)
        meta = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError("the snapshot of the data is damaged") from error
    if meta.get("format") != FORMAT or _form(spec.columns) != sorted(meta["columns"]):
        raise IntegrityError("the snapshot of the data has other columns than the spec")
    columns = {c.name: _restored(c, table[f"x:{c.name}"], meta["shapes"]) for c in spec.columns}
    labels: Labels = table["label"].to_pylist() if "label" in table.column_names else None
    keys = table["key"].to_numpy() if meta["seed"] == spec.split.seed else None
    return Dataset(spec.columns, Batch(table.num_rows, columns), labels, seed=spec.split.seed, keys=keys)


def _form(columns: Sequence[Column]) -> list[list[Any]]:
    return sorted([c.name, c.kind, c.width] for c in columns)


def _restored(column: Column, stored: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    if column.kind == "number":
        return array("d", stored.to_numpy().tobytes())
    if column.kind == "vector":
        flat = [chunk.flatten().to_numpy() for chunk in stored.chunks]
        return np.concatenate([*flat]).reshape(len(stored), column.width) if flat else np.zeros((0, column.width))
    cells = stored.to_pylist()
    if column.kind == "category":
        known: dict[str | None, str | None] = {}
        return [known.setdefault(cell, cell) for cell in cells]
    if column.kind == "image" and column.name in shapes:
        return np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), *shapes[column.name])
    return cells
