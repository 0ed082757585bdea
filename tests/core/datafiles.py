"""Specs and files for the tests of reading data, and where the real data sets lie, if they do."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.dataset.reading import read_table
from core.dataset.table import Dataset
from core.errors import DataRejected
from core.spec import ModelSpec, from_dict

NUMBER: dict[str, Any] = {"kind": "number"}
CATEGORY: dict[str, Any] = {"kind": "category"}
TEXT: dict[str, Any] = {"kind": "text"}
IMAGE: dict[str, Any] = {"kind": "image"}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63600000000200"
    "0148afa4710000000049454e44ae426082"
)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
ROOT = Path(os.environ.get("POLYSKY_DATA") or Path(__file__).parents[3] / "shared" / "data")


def real_files(*names: str) -> list[Path]:
    """Return the data files of the named real data sets that are there (none in a bare clone)."""
    return [path for name in names for path in sorted((ROOT / name).glob("data.*"))]


def make_spec(
    columns: Mapping[str, Any], label: str = "label", task: str = "classification", **more: Any
) -> ModelSpec:
    """Return a spec of the columns with a linear estimator."""
    algorithm = "logistic_regression" if task == "classification" else "ridge"
    head = {"name": "test", "task": task, "label": label, "columns": dict(columns)}
    return from_dict({**head, "estimator": {"kind": "linear", "algorithm": algorithm}, **more})


def read_bytes(folder: Path, data: bytes, spec: ModelSpec, **more: Any) -> Dataset:
    """Return the dataset of a file with these bytes."""
    path = folder / "upload"
    path.write_bytes(data)
    return read_table(str(path), spec, **more)


def rejection(folder: Path, data: bytes, spec: ModelSpec, **more: Any) -> DataRejected:
    """Return the error that a file with these bytes is rejected with."""
    try:
        read_bytes(folder, data, spec, **more)
    except DataRejected as error:
        return error
    raise AssertionError("the file was not rejected")


def packed(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of the files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


def npy(array: Any) -> bytes:
    """Return the bytes of a .npy."""
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def npz(**arrays: Any) -> bytes:
    """Return the bytes of a compressed .npz."""
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def lines(*rows: Any) -> bytes:
    """Return the rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(**columns: Any) -> bytes:
    """Return a Parquet file of the columns."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()
