"""Sets of numpy arrays: .npz, or several .npy in a folder or zip (one of labels, the others one row each).

Nothing is unpickled; what a header claims is checked against the limits and the bytes before anything is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BufferedReader
from tokenize import TokenError
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from core.dataset.limits import Limits, too_large
from core.dataset.source import Chunk, Source
from core.errors import DataRejected
from core.tuples import NamedTuple

LABELS = frozenset({"y", "label", "labels", "target", "targets"})
CLASS_NAMES = "class_names"
_NOISE = frozenset({"x", "train", "test", "val", "valid", "balanced"})  # words of a file name that name no column
_KINDS = "biufUS"
MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000  # numpy's own limit


class Member(NamedTuple):
    """One .npy: its name without ".npy", its bytes and how many there are."""

    name: str
    stream: BinaryIO
    size: int


def read_array(member: Member, limits: Limits) -> NDArray[Any]:
    """Return the array of a .npy. Raises DataRejected for objects, a false header or a size over the limits."""
    shape, fortran, dtype = _header(member)
    if dtype.hasobject or dtype.kind not in _KINDS:
        message = f"{member.name} holds Python objects or records; save it as an array of numbers or strings"
        raise DataRejected("format", message)
    size = math.prod(shape) * dtype.itemsize
    if not shape or min(shape) < 0:
        raise DataRejected("format", f"{member.name} is a single value, not an array of rows")
    if size > limits.bytes:
        raise too_large(f"{member.name}", limits.bytes, "bytes")
    if shape[0] > limits.rows:
        raise too_large(f"the number of rows of {member.name}", limits.rows)
    data = member.stream.read(size + 1) if size < member.size else b""
    if len(data) != size or not size:
        raise DataRejected("truncated", f"{member.name} does not hold the {size} bytes that its header names")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="C", copy=False)


def _header(member: Member) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(member.stream)
        read, digits = {(1, 0): (npy.read_array_header_1_0, 2), (2, 0): (npy.read_array_header_2_0, 4)}[version]
        # numpy takes memory for the length that is named before it looks at it
        if int.from_bytes(cast(BufferedReader, member.stream).peek(digits)[:digits], "little") > MAX_HEADER_BYTES:
            raise ValueError("header")
        return read(member.stream)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        raise DataRejected("truncated", f"{member.name} has no whole .npy header") from error


def open_arrays(members: Sequence[Member], label: str, limits: Limits, wanted: Collection[str] = ()) -> Source:
    """Return the source of a set of arrays: one chunk, the labels under the name `label`.

    Each other array becomes one column, under its own name if that is in `wanted`, else under `column_name`;
    `class_names` turns label numbers into names.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for member in members:
        arrays[member.name] = read_array(member, limits)
        if sum(array.nbytes for array in arrays.values()) > limits.bytes:
            raise too_large("the arrays together", limits.bytes, "bytes")
    class_names = arrays.pop(CLASS_NAMES, None)
    if not arrays:
        raise DataRejected("format", "there is no array of rows in the file")
    columns = _columns(arrays, label, wanted)
    if label in columns:
        columns[label] = _labels(columns[label], class_names)
    n_rows = _n_rows(columns)
    return Source(tuple(columns), _one(Chunk(n_rows, {name: _cells(array) for name, array in columns.items()})))


def _one(chunk: Chunk) -> Iterator[Chunk]:
    yield chunk


def _columns(arrays: Mapping[str, NDArray[Any]], label: str, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    labels = _label_key(arrays, label)
    for key, array in arrays.items():
        name = label if key == labels else key if key in wanted else column_name(key)
        if name in columns:
            raise DataRejected("schema", f"two arrays would be the column {name}")
        columns[name] = array
    return columns


def _label_key(arrays: Mapping[str, NDArray[Any]], label: str) -> str | None:
    """Return the name of the array of labels: `label` itself, else one that is called y, labels, Y_train, …"""
    if label in arrays:
        return label
    found = [key for key in arrays if LABELS & set(_words(key)) and arrays[key].ndim <= 2]
    if len(found) > 1:
        raise DataRejected("schema", f"more than one array could be the labels: {', '.join(sorted(found)[:5])}")
    return found[0] if found else None


def _words(key: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", key.lower()) if word]


def column_name(key: str) -> str:
    """Return the column of an array: X_train_tfidf_balanced → tfidf, images → image, X → x."""
    words = _words(key)
    rest = [word for word in words if word not in _NOISE]
    if not rest:
        return "x" if "x" in words else key
    return "image" if rest == ["images"] else "_".join(rest)


def _labels(array: NDArray[Any], class_names: NDArray[Any] | None) -> NDArray[Any]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf" and _is_one_hot(array):
        array = array.argmax(axis=1)
    if array.ndim != 1:
        raise DataRejected("schema", "the labels must be one value a row, or one-hot")
    if class_names is None:
        return array
    if array.dtype.kind not in "iu" or class_names.ndim != 1:
        raise DataRejected("schema", "labels with class_names must be whole numbers")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < len(class_names):
        raise DataRejected("schema", f"a label lies outside the {len(class_names)} class_names")
    return np.asarray(class_names[array])


def _is_one_hot(array: NDArray[Any]) -> bool:
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def _n_rows(columns: Mapping[str, NDArray[Any]]) -> int:
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataRejected("schema", f"the arrays differ in their number of rows: {text}")
    return next(iter(lengths.values()))


def _cells(array: NDArray[Any]) -> Any:
    """Return the cells of a column: texts as a list of str, all else as it is."""
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise DataRejected("encoding", "an array of bytes is not UTF-8") from None
    if array.ndim == 1 and array.dtype.kind in "Ub":
        return array.tolist()
    return array
