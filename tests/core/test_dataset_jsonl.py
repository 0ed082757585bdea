"""JSON Lines: what is read, and how each kind of bad line is refused."""

from __future__ import annotations

import base64
import gzip
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.dataset.jsonl import open_jsonl
from core.dataset.limits import Limits
from core.dataset.problems import Problems
from core.dataset.reading import read_table
from core.dataset.wide import Vectors
from core.errors import DataRejected
from tests.core.datafiles import (
    CATEGORY,
    IMAGE,
    NUMBER,
    PNG,
    TEXT,
    lines,
    make_spec,
    read_bytes,
    rejection,
)

MIXED = make_spec({"x": NUMBER, "c": CATEGORY, "t": TEXT})
NUMBERS = make_spec({"x": NUMBER})
VECTOR = {"kind": "vector", "width": 3}


def test_json_lines_become_typed_columns(tmp_path: Path) -> None:
    rows = (
        {"label": "a", "x": 1, "c": True, "t": "first"},
        {"x": None, "c": None, "t": "zweiter ü", "label": 7},
        {"x": 2.5, "c": 3, "t": None, "label": False},
    )
    for data in (lines(*rows), b"\n" + lines(*rows) + b"\n\n", gzip.compress(lines(*rows))):
        dataset = read_bytes(tmp_path, data, MIXED)
        assert dataset.labels == ["a", "7", "false"]
        assert dataset.batch.columns["c"] == ["true", None, "3"]
        assert dataset.batch.columns["t"] == ["first", "zweiter ü", ""]
        x = dataset.batch.columns["x"]
        assert (x[0], math.isnan(x[1]), x[2]) == (1.0, True, 2.5)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"x":1,"x":2,"label":"a"}\n', "line 2 has the same key twice"),
        (b'{"x":NaN,"label":"a"}\n', "line 2 holds NaN"),
        (b'{"x":-Infinity,"label":"a"}\n', "line 2 holds -Infinity"),
        (b"{'x':1}\n", "line 2 is not valid JSON"),
        (b"[1,2]\n", "line 2 is not a JSON object"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 2 is not valid JSON"),
        (b'{"x":1,"label":"a"} {}\n', "line 2 is not valid JSON"),
        (b'{"x":' + b"9" * 5000 + b',"label":"a"}\n', "line 2 is not valid JSON"),
    ],
)
def test_a_line_that_is_not_strict_json_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    error = rejection(tmp_path, lines({"x": 1, "label": "a"}) + line, NUMBERS)
    assert (error.reason, error.fields["line"]) == ("syntax", 2)
    assert words in error.message


def test_a_cut_last_line_is_truncated(tmp_path: Path) -> None:
    data = lines({"x": 1, "label": "a"}, {"x": 2, "label": "b"})
    assert rejection(tmp_path, data[:-5], NUMBERS).reason == "truncated"
    assert read_bytes(tmp_path, data[:-1], NUMBERS).n_rows == 2


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"x": True, "c": "", "t": "", "label": "a"}, "x"),
        ({"x": [1], "c": "", "t": "", "label": "a"}, "x"),
        ({"x": 10**400, "c": "", "t": "", "label": "a"}, "x"),
        ({"x": "1_0", "c": "", "t": "", "label": "a"}, "x"),
        ({"x": 1, "c": {}, "t": "", "label": "a"}, "c"),
        ({"x": 1, "c": "\ud800", "t": "", "label": "a"}, "c"),
        ({"x": 1, "c": "", "t": 5, "label": "a"}, "t"),
        ({"x": 1, "c": "", "t": "\udfff", "label": "a"}, "t"),
        ({"x": 1, "c": "", "t": "y" * 1_000_001, "label": "a"}, "t"),
        ({"x": 1, "c": "", "t": "", "label": None}, "label"),
        ({"x": 1, "c": "", "t": "", "label": [1]}, "label"),
        ({"x": 1, "c": "", "label": "a"}, "t"),
        ({"c": "", "t": "", "label": "a"}, "x"),
        ({"x": 1, "t": "", "label": "a"}, "c"),
        ({"x": 1, "c": "", "t": ""}, "label"),
        ({"x": 1, "c": "", "t": "", "label": "a", "more": 1}, "more"),
    ],
)
def test_a_bad_value_is_named_by_row_and_column(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    good = {"x": 1, "c": "p", "t": "text", "label": "a"}
    error = rejection(tmp_path, lines(good, good, row), MIXED)
    assert error.reason == "schema"
    assert [(problem.row, problem.field) for problem in error.problems] == [(3, field)]


def test_more_keys_than_columns_or_rows_than_the_limit_are_too_large(tmp_path: Path) -> None:
    row = {"x": 1, "label": "a"}
    assert rejection(tmp_path, lines(row), NUMBERS, limits=Limits(columns=1)).reason == "too_large"
    assert rejection(tmp_path, lines(*[row] * 5), NUMBERS, limits=Limits(rows=4)).reason == "too_large"


def test_a_stream_of_blank_lines_is_empty() -> None:
    with pytest.raises(DataRejected, match="empty"):
        open_jsonl(io.BufferedReader(io.BytesIO(b"\n \n")), Limits())


def test_vectors_and_a_file_without_rows_of_them_have_their_width(tmp_path: Path) -> None:
    problems = Problems()
    builder = Vectors("v", problems, 2)
    assert np.shape(builder.finish()) == (0, 2)
    builder.add([np.array([1.0, 2.0]), [3, math.inf]], 0)
    assert problems.shown[0].row == 2
    builder.add([[5, 6]], 2)
    assert np.array_equal(builder.finish(), [[1, 2], [0, 0], [5, 6]])


def test_long_files_come_in_chunks(tmp_path: Path) -> None:
    seen: list[int] = []
    data = lines(*({"x": i, "label": str(i % 2)} for i in range(5000)))
    dataset = read_bytes(tmp_path, data, NUMBERS, progress=seen.append)
    assert seen == [4096, 5000]
    assert list(dataset.batch.columns["x"]) == list(range(5000))


def test_vectors_and_base64_images_stand_in_json_lines(tmp_path: Path) -> None:
    spec = make_spec({"v": VECTOR, "image": IMAGE})
    row = {"v": [1, 2.5, -3], "image": base64.b64encode(PNG).decode(), "label": "a"}
    dataset = read_bytes(tmp_path, lines(row, row), spec)
    assert np.array_equal(dataset.batch.columns["v"], [[1, 2.5, -3]] * 2)
    assert dataset.batch.columns["image"] == [PNG, PNG]
    bad_vectors = [[1, 2], None, "1,2,3", [1, 2, None], [1, 2, True], [1, 2, 10**400], [1, 2, "3"]]
    error = rejection(tmp_path, lines(row, *({**row, "v": v} for v in bad_vectors)), spec)
    assert [problem.row for problem in error.problems] == list(range(2, 9))
    bad_images = [None, "", "nothing.png", base64.b64encode(b"GIF89a").decode(), 5]
    error = rejection(tmp_path, lines(row, *({**row, "image": image} for image in bad_images)), spec)
    assert [problem.row for problem in error.problems] == list(range(2, 7))
    del row["v"]
    assert rejection(tmp_path, lines({**row, "v": [1, 2, 3]}, row), spec).problems[0].field == "v"


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_after_a_row_are_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(b'{"x":1,"label":"a"}\n' + data)
    try:
        rows = read_table(str(path), NUMBERS).n_rows
    except DataRejected as error:
        rows = 1 if error.reason else 0
    assert rows >= 1
