"""Snapshots of version 0.1, which were Parquet files: read for the stores that hold them, never written.

Columns `x:NAME` hold the features, `label` the labels, `key` the row digests; the metadata says format, seed,
columns and the shapes of pictures.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.dataset.table import Dataset, Labels
from core.errors import IntegrityError
from core.extras import require
from core.schema import Batch, Column
from core.spec import ModelSpec

MAGIC = b"PAR1"
FORMAT = 1
_META = b"polysky"


def read_parquet(data: bytes, spec: ModelSpec) -> Dataset:
    """Return the dataset of a snapshot, with the columns (and options) of `spec`.

    Raises IntegrityError if the bytes are damaged or hold other columns; DataRejected where pyarrow is not.
    """
    require("pyarrow", "parquet", "reading rows that version 0.1 kept")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True, use_threads=False)
        meta = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IntegrityError("the snapshot of the data is damaged") from error
    columns = sorted([c.name, c.kind, c.width] for c in spec.columns)
    if meta.get("format") != FORMAT or columns != sorted(meta["columns"]):
        raise IntegrityError("the snapshot of the data has other columns than the spec")
    cells = {c.name: _restored(c, table[f"x:{c.name}"], meta["shapes"]) for c in spec.columns}
    labels: Labels = table["label"].to_pylist() if "label" in table.column_names else None
    keys = table["key"].to_numpy() if meta["seed"] == spec.split.seed else None
    return Dataset(spec.columns, Batch(table.num_rows, cells), labels, seed=spec.split.seed, keys=keys)


def _restored(column: Column, stored: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    if column.kind == "number":
        return array("d", stored.to_numpy().tobytes())
    if column.kind == "vector":
        flat = [chunk.flatten().to_numpy() for chunk in stored.chunks]
        return np.concatenate([*flat]).reshape(len(stored), column.width) if flat else np.zeros((0, column.width))
    cells = stored.to_pylist()
    if column.kind == "image" and column.name in shapes:
        return np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), *shapes[column.name])
    return cells
