"""Parquet: typed cells, and cut, damaged or oversized files."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.dataset.limits import Limits
from core.dataset.reading import read_table
from core.errors import DataRejected
from tests.core.datafiles import (
    CATEGORY,
    IMAGE,
    JPEG,
    NUMBER,
    PNG,
    TEXT,
    make_spec,
    parquet,
    read_bytes,
    rejection,
)

NUMBERS = make_spec({"x": NUMBER})
VECTOR = {"kind": "vector", "width": 3}


def test_parquet_types_become_typed_columns(tmp_path: Path) -> None:
    data = parquet(
        x=pa.array([1, None, 3], pa.int32()), c=pa.array(["p", None, "p"]), t=["one", "two", None],
        v=pa.array([[1.0, 2.0, 3.0]] * 3, pa.list_(pa.float32(), 3)), i=pa.array([PNG, JPEG, PNG]),
        label=pa.array([1.0, 2.0, 1.0]),
    )  # fmt: skip
    spec = make_spec({"x": NUMBER, "c": CATEGORY, "t": TEXT, "v": VECTOR, "i": IMAGE})
    dataset = read_bytes(tmp_path, data, spec)
    columns = dataset.batch.columns
    assert (columns["x"][0], math.isnan(columns["x"][1]), columns["x"][2]) == (1.0, True, 3.0)
    assert (columns["c"], columns["t"]) == (["p", None, "p"], ["one", "two", ""])
    assert (columns["i"], dataset.labels) == ([PNG, JPEG, PNG], ["1", "2", "1"])
    assert np.asarray(columns["v"]).dtype == np.float32


def test_parquet_numbers_decimals_times_and_lists(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    data = parquet(
        d=pa.array([Decimal("1.50"), Decimal("2.25")]), day=pa.array([datetime.date(2020, 1, 2), None]),
        l=pa.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), n=pa.array([1.5, math.nan]), label=["a", "b"],
    )  # fmt: skip
    dataset = read_bytes(tmp_path, data, make_spec({"d": NUMBER, "day": CATEGORY, "l": VECTOR, "n": NUMBER}))
    assert list(dataset.batch.columns["d"]) == [1.5, 2.25]
    assert dataset.batch.columns["day"] == ["2020-01-02", None]
    assert np.array_equal(dataset.batch.columns["l"], [[1, 2, 3], [4, 5, 6]])
    assert math.isnan(dataset.batch.columns["n"][1])


def test_parquet_infinity_is_a_problem(tmp_path: Path) -> None:
    error = rejection(tmp_path, parquet(x=[1.0, math.inf], label=["a", "b"]), NUMBERS)
    assert [(problem.row, problem.field) for problem in error.problems] == [(2, "x")]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_parquet_file_is_truncated(tmp_path: Path, share: float) -> None:
    data = parquet(x=[float(i) for i in range(1000)], label=["a", "b"] * 500)
    assert rejection(tmp_path, data[: int(len(data) * share)], NUMBERS).reason == "truncated"


def test_a_flipped_byte_under_a_page_checksum_is_found(tmp_path: Path) -> None:
    sink = io.BytesIO()
    table = pa.table({"x": [float(i) for i in range(1000)], "label": ["a", "b"] * 500})
    pq.write_table(table, sink, write_page_checksum=True)
    data = bytearray(sink.getvalue())
    data[300] ^= 0xFF
    assert rejection(tmp_path, bytes(data), NUMBERS).reason == "truncated"


def test_a_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    offsets, data = pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(b"ok\xff\xfe")
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    assert rejection(tmp_path, parquet(t=texts, label=["a", "b"]), make_spec({"t": TEXT})).reason == "encoding"


def test_long_texts_over_the_limit_are_refused_by_what_the_file_says(tmp_path: Path) -> None:
    texts = [f"{i:0500d}" for i in range(1000)]
    error = rejection(tmp_path, parquet(t=texts, label=["a", "b"] * 500), make_spec({"t": TEXT}),
                      limits=Limits(bytes=200_000))  # fmt: skip
    assert (error.reason, error.fields["limit"]) == ("too_large", 200_000)


@given(st.lists(st.tuples(st.integers(0, 1800), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=200)
def test_a_damaged_parquet_file_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(parquet(x=[float(i) for i in range(100)], label=["a", "b"] * 50))
    for place, mask in flips:
        data[-1 - place % len(data)] ^= mask
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(data))
    with contextlib.suppress(DataRejected):
        assert read_table(str(path), NUMBERS).n_rows


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(rows=10), "number of rows"),
        (Limits(columns=1), "number of columns"),
        (Limits(bytes=40_000), "unpacked"),
        (Limits(bytes=100_000), "unpacked"),
    ],
)
def test_parquet_over_a_limit_is_refused(tmp_path: Path, limits: Limits, words: str) -> None:
    data = parquet(t=["the same long text " * 20] * 5000, label=["a", "b"] * 2500)
    error = rejection(tmp_path, data, make_spec({"t": TEXT}), limits=limits)
    assert error.reason == "too_large"
    assert words in error.message
