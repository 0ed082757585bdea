"""Table columns: the block's numbers are scikit-learn's, bit for bit, in a row and in a batch."""

from __future__ import annotations

import csv
import gzip
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigError, DataRejected
from core.features import table
from core.kinds import Csr
from core.schema import Batch, Column
from tests.core.carried import dense, full, reloaded
from tests.core.datafiles import real_files

ODD = {"a": [1.5, math.nan, 0.0, -1e300, 3.0], "b": [0.0, 1.0, math.nan, 7.25, -2.0]}
ODD_CATEGORIES = ["red", "never seen", None, "rare", "blue"]


def sample(n: int = 300) -> Batch:
    """Numbers with gaps, and a category with frequent, rare and missing levels."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=n) * 100
    a[rng.random(n) < 0.2] = math.nan
    levels = ["red", "blue", "green", "rare", None]
    c = [levels[i] for i in rng.choice(5, n, p=[0.5, 0.3, 0.1, 0.02, 0.08])]
    return Batch(n, {"a": a.tolist(), "b": (a[::-1] * 1.1).tolist(), "c": c})


def columns(number: dict[str, Any], category: dict[str, Any]) -> list[Column]:
    return [Column("a", "number", number), Column("b", "number", number), Column("c", "category", category)]


@pytest.mark.parametrize("indicator", [True, False])
@pytest.mark.parametrize("scale", ["standard", "minmax", "robust", "none"])
@pytest.mark.parametrize("impute", ["median", "mean", "zero", "none"])
def test_numbers_equal_scikit_learn_in_a_batch_and_in_a_row(impute: str, scale: str, indicator: bool) -> None:
    chosen = columns({"impute": impute, "scale": scale, "indicator": indicator}, {})
    fitted = table.fit(chosen, sample())
    block = reloaded("table", chosen, fitted)
    odd = Batch(5, {**ODD, "c": ODD_CATEGORIES})
    for batch in (sample(), odd):
        expected = full(table.reference(fitted).transform(batch))
        x = block.matrix(batch)
        assert np.array_equal(x, expected, equal_nan=True)
        rows = np.array([dense(block, batch.row(i)) for i in range(batch.n_rows)])
        assert np.array_equal(rows, x, equal_nan=True)
        assert np.array_equal([block.floats(batch.row(i)) for i in range(batch.n_rows)], x, equal_nan=True)


@pytest.mark.parametrize("rarest", [None, 10, 0.05, 0.0, 1.0])
@pytest.mark.parametrize("encode", ["onehot", "ordinal"])
def test_categories_equal_scikit_learn(encode: str, rarest: float | None) -> None:
    options = {"encode": encode} if rarest is None else {"encode": encode, "min_frequency": rarest}
    chosen = columns({}, options)
    fitted = table.fit(chosen, sample())
    block = reloaded("table", chosen, fitted)
    odd = Batch(5, {**ODD, "c": ODD_CATEGORIES})
    for batch in (sample(), odd):
        x = block.matrix(batch)
        assert np.array_equal(x, full(table.reference(fitted).transform(batch)))
        assert np.array_equal([dense(block, batch.row(i)) for i in range(batch.n_rows)], x)


def test_an_unknown_category_is_all_zeros_or_minus_one_and_missing_is_a_level_of_its_own() -> None:
    batch = Batch(4, {"c": ["x", "y", None, "x"]})
    onehot = table.fit([Column("c", "category")], batch)
    assert onehot.names() == ["c=x", "c=y", "c=missing"]
    assert full(onehot.matrix(Batch(3, {"c": ["new", None, "y"]}))).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    ordinal = table.fit([Column("c", "category", {"encode": "ordinal"})], batch)
    assert full(ordinal.matrix(Batch(3, {"c": ["new", None, "y"]}))).tolist() == [[-1], [2], [1]]
    assert ordinal.row({"c": "x"}) == []


def test_features_have_readable_names() -> None:
    chosen = [Column("age", "number", {"indicator": True}), Column("c", "category", {"min_frequency": 2})]
    batch = Batch(5, {"age": [1.0, 2.0, math.nan, 4.0, 5.0], "c": ["x", "x", "y", "z", "x"]})
    assert table.fit(chosen, batch).names() == ["age", "age missing", "c=x", "c=infrequent"]


def test_a_batch_without_rows_has_no_rows_of_x() -> None:
    block = table.fit(columns({}, {}), sample())
    assert full(block.matrix(Batch(0, {"a": [], "b": [], "c": []}))).shape == (0, block.width)


def test_a_wide_block_yields_compressed_rows_with_the_same_numbers() -> None:
    rng = np.random.default_rng(1)
    batch = Batch(400, {"n": rng.normal(size=400).tolist(), "c": [str(i) for i in rng.integers(0, 300, 400)]})
    chosen = [Column("n", "number", {"impute": "none"}), Column("c", "category")]
    fitted = table.fit(chosen, batch)
    block = reloaded("table", chosen, fitted)
    probe = Batch(3, {"n": [0.5, math.nan, 0.0], "c": ["7", "unknown", None]})
    for rows in (batch, probe):
        x = block.matrix(rows)
        assert isinstance(x, Csr)
        assert np.array_equal(full(x), full(table.reference(fitted).transform(rows)), equal_nan=True)
        assert all(np.all(np.diff(x.indices[a:b]) > 0) for a, b in zip(x.indptr, x.indptr[1:], strict=False))


def test_the_fused_share_is_x_times_w() -> None:
    block = table.fit(columns({"scale": "robust"}, {}), sample())
    w = np.random.default_rng(2).normal(size=(block.width, 3))
    share = block.fuse(lambda index: tuple(w[index].tolist()), 3)
    for row in range(20):
        expected = block.matrix(sample().take([row]))[0] @ w
        assert share(sample().row(row)) == pytest.approx(expected.tolist(), abs=1e-12)


def test_weights_are_read_once_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_MEMO_ROWS", 1)
    reads: list[int] = []
    block = table.fit([Column("a", "number"), Column("b", "number")], sample())
    share = block.fuse(lambda index: (float(reads.append(index) or 1),), 1)  # type: ignore[func-returns-value]
    first = share({"a": 1.0, "b": 2.0})
    assert share({"a": 1.0, "b": 2.0}) == first
    assert reads == [0, 1, 1]


def test_a_column_without_values_is_filled_with_zero_or_rejected_if_nothing_fills_it() -> None:
    empty = Batch(3, {"a": [math.nan] * 3})
    assert full(table.fit([Column("a", "number")], empty).matrix(empty)).tolist() == [[0.0]] * 3
    with pytest.raises(DataRejected, match="column a has no values"):
        table.fit([Column("a", "number", {"impute": "none"})], empty)


@pytest.mark.parametrize("scale", ["standard", "minmax"])
def test_values_too_large_to_scale_are_rejected(scale: str) -> None:
    with pytest.raises(DataRejected, match="column a has values too large"):
        table.fit([Column("a", "number", {"scale": scale})], Batch(2, {"a": [-1.7e308, 1.7e308]}))


@pytest.mark.parametrize("options", [{"impute": "magic"}, {"size": 3}])
def test_a_wrong_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"columns\.a\.{min(options)}"):
        table.fit([Column("a", "number", options)], sample())


def test_a_part_of_unknown_kind_is_not_loaded() -> None:
    with pytest.raises(ValueError, match="magic"):
        table.load([Column("a", "number")], {"parts": [{"kind": "magic", "column": "a"}]}, None, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", [Path("made/here"), *real_files("adult_income")], ids=lambda path: path.parent.name
)
def test_a_table_with_gaps_and_rare_levels_equals_scikit_learn(path: Path) -> None:
    _equals_scikit_learn(_made_rows() if path == Path("made/here") else _rows_of(path))


def _made_rows() -> list[dict[str, str]]:
    """Rows as a CSV file gives them: numbers and levels as texts, gaps empty."""
    rng = np.random.default_rng(3)
    jobs = ["clerk", "farmer", "nurse", "", "rare 1", "rare 2"]
    chosen = rng.choice(jobs, 400, p=[0.4, 0.3, 0.15, 0.1, 0.03, 0.02])
    ages = [str(age) if age % 11 else "" for age in rng.integers(1, 90, 400).tolist()]
    return [
        {"age": age, "job": str(job), "label": "x"} for age, job in zip(["40", *ages[1:]], chosen, strict=True)
    ]


def _rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [row for row, _ in zip(csv.DictReader(file), range(1500), strict=False)]


def _equals_scikit_learn(rows: list[dict[str, str]]) -> None:
    numbers = [name for name in rows[0] if name != "label" and rows[0][name].isdigit()]
    others = [name for name in rows[0] if name != "label" and name not in numbers]
    cells: dict[str, Any] = {n: [float(r[n]) if r[n] else math.nan for r in rows] for n in numbers}
    cells |= {n: [r[n] or None for r in rows] for n in others}
    chosen = [Column(name, "number" if name in numbers else "category") for name in cells]
    batch = Batch(len(rows), cells)
    fitted = table.fit(chosen, batch)
    assert np.array_equal(full(fitted.matrix(batch)), full(table.reference(fitted).transform(batch)))


def test_a_row_needs_no_numpy() -> None:
    code = (
        "import sys; from core.features import table; from core.schema import Column\n"
        "parts = [{'kind': 'number', 'column': 'a', 'fill': 1.0, 'steps': [['over', 1.0, 2.0]]},"
        " {'kind': 'onehot', 'column': 'c', 'width': 2, 'levels': [['x', 0], [None, 1]]}]\n"
        "block = table.load([Column('a', 'number'), Column('c', 'category')], {'parts': parts}, None, '')\n"
        "print(block.row({'a': 5.0, 'c': None}), 'numpy' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[(0, 2.0), (2, 1.0)] False False"
