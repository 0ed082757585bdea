"""Digests of rows, and the split that follows from them: duplicates never cross, and it never changes.

The digest of a row is BLAKE2b-64, keyed with the seed, over its features in order of the column names, each in
one canonical form: float64 bytes of a number (one NaN, one zero), UTF-8 of a text or category, the bytes of an
image, float64 bytes of a vector. The label is not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.schema import Batch, Column

CHUNK_ROWS = 8192
_MISSING = b"\xff\xff\xff\xff\xff\xff\xff\xff"


def row_keys(columns: Sequence[Column], batch: Batch, seed: int) -> NDArray[np.uint64]:
    """Return the digests of the rows, shape (n_rows,)."""
    keys = np.empty(batch.n_rows, np.uint64)
    numbers = sorted(column.name for column in columns if column.kind == "number")
    others = sorted((column.name, column.kind) for column in columns if column.kind != "number")
    start = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little"))
    for low in range(0, batch.n_rows, CHUNK_ROWS):
        high = min(low + CHUNK_ROWS, batch.n_rows)
        parts = [_PARTS[kind](batch.columns[name][low:high]) for name, kind in others]
        if numbers:
            parts.append(_number_parts([batch.columns[name][low:high] for name in numbers]))
        rows = zip(*parts, strict=True)
        keys[low:high] = [_key(start, row) for row in rows]
    return keys


def _key(start: Any, row: Iterable[bytes]) -> int:
    digest = start.copy()
    digest.update(b"".join(row))
    return int.from_bytes(digest.digest(), "little")


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def _number_parts(columns: Sequence[Any]) -> list[bytes]:
    x = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    return _float_rows(x)


def _float_rows(x: NDArray[Any]) -> list[bytes]:
    """Return the float64 bytes of each row, with one NaN and one zero."""
    x = x.astype("<f8") + 0.0  # -0.0 + 0.0 is 0.0
    x[np.isnan(x)] = np.nan
    data, width = x.tobytes(), x.shape[1] * 8
    return [data[i : i + width] for i in range(0, len(data), width)]


def _text_parts(cells: Any) -> list[bytes]:
    return [_MISSING if cell is None else _framed(cell.encode()) for cell in cells]


def _image_parts(cells: Any) -> list[bytes]:
    if not isinstance(cells, np.ndarray):
        return [_framed(cell if isinstance(cell, bytes) else _raw(cell)) for cell in cells]
    return [_framed(_raw(cell)) for cell in cells]


def _raw(image: NDArray[np.uint8]) -> bytes:
    return str(image.shape).encode() + image.tobytes()


def _vector_parts(cells: Any) -> list[bytes]:
    return _float_rows(np.asarray(cells, np.float64))


_PARTS: dict[str, Callable[[Any], list[bytes]]] = {
    "text": _text_parts,
    "category": _text_parts,
    "image": _image_parts,
    "vector": _vector_parts,
}


def holdout_mask(keys: NDArray[np.uint64], fraction: float) -> list[bool]:
    """Return for each key whether key / 2**64 < fraction."""
    limit = min(int(fraction * 2**64), 2**64 - 1)
    return [bool(inside) for inside in keys < np.uint64(limit)]
