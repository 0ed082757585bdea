"""Datasets: taking and joining rows, digests, the split, and snapshots that are the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import math
import struct
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dataset import snapshot
from core.dataset.snapshot import read_snapshot, write_snapshot
from core.dataset.table import Dataset, concat
from core.errors import IntegrityError
from core.schema import Batch
from core.spec import ModelSpec
from tests.core.datafiles import CATEGORY, IMAGE, NUMBER, PNG, TEXT, make_spec, read_bytes

ALL = make_spec(
    {"n": NUMBER, "c": CATEGORY, "t": TEXT, "i": IMAGE, "v": {"kind": "vector", "width": 2}}, split={"seed": 3}
)


def mixed(spec: ModelSpec = ALL, *, arrays: bool = False) -> Dataset:
    """Return four rows of every kind of column."""
    pictures: Any = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3) if arrays else [PNG, b"b", b"", b"d"]
    columns: dict[str, Any] = {
        "n": array("d", [1.5, math.nan, -0.0, 1e300]),
        "c": ["p", None, "", "p"],
        "t": ["one", "zwei\n", "", "日本"],
        "i": pictures,
        "v": np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32),
    }
    return Dataset(spec.columns, Batch(4, columns), ["a", "b", "a", "b"], seed=spec.split.seed)


def same(left: Dataset, right: Dataset) -> bool:
    """Whether two datasets hold the same rows, NaN for NaN."""
    for name, cells in left.batch.columns.items():
        other: Any = right.batch.columns[name]
        if isinstance(cells, list):
            if cells != list(other):
                return False
        elif not np.array_equal(np.asarray(cells), np.asarray(other), equal_nan=True):
            return False
    return left.labels == right.labels and left.digests() == right.digests()


def test_rows_are_taken_in_the_order_asked_for() -> None:
    dataset = mixed()
    taken = dataset.take([3, 0, 3])
    assert taken.n_rows == 3
    assert taken.labels == ["b", "a", "b"]
    assert list(taken.batch.columns["n"]) == [1e300, 1.5, 1e300]
    assert taken.batch.columns["t"] == ["日本", "one", "日本"]
    assert taken.digests() == [dataset.digests()[i] for i in (3, 0, 3)]
    assert dataset.take(np.array([], int)).n_rows == 0


def test_digests_move_with_the_rows_whether_known_before_or_not() -> None:
    known, unknown = mixed(), mixed()
    known.digests()
    assert known.take([2, 1]).digests() == unknown.take([2, 1]).digests()


def test_taking_and_joining_gives_the_rows_back() -> None:
    for arrays in (False, True):
        dataset = mixed(arrays=arrays)
        assert same(concat([dataset.take([0, 1]), dataset.take([2, 3])]), dataset)


def test_image_files_and_arrays_join_as_a_list() -> None:
    joined = concat([mixed(), mixed(arrays=True)])
    assert joined.n_rows == 8
    assert joined.batch.columns["i"][0] == PNG
    assert joined.batch.columns["i"][7].shape == (2, 3)
    assert len(joined.digests()) == 8


def test_datasets_of_other_columns_or_seeds_do_not_join() -> None:
    other = make_spec({"n": NUMBER})
    with pytest.raises(ValueError, match="cannot be joined"):
        concat([mixed(), Dataset(other.columns, Batch(0, {"n": array("d")}), [])])
    with pytest.raises(ValueError, match="cannot be joined"):
        concat([mixed(), Dataset(ALL.columns, mixed().batch, mixed().labels, seed=4)])


# --- digests and split


def test_the_digest_is_blake2b_of_the_canonical_features() -> None:
    spec = make_spec({"t": TEXT, "n": NUMBER, "c": CATEGORY}, split={"seed": 5})
    columns: dict[str, Any] = {"n": array("d", [1.5]), "t": ["zwei"], "c": [None]}
    dataset = Dataset(spec.columns, Batch(1, columns), ["x"], seed=5)
    parts = b"\xff" * 8 + struct.pack("<q", 4) + b"zwei" + struct.pack("<d", 1.5)
    digest = hashlib.blake2b(parts, digest_size=8, key=struct.pack("<q", 5)).digest()
    assert dataset.digests() == [digest[::-1].hex()]


def test_the_digest_ignores_label_column_order_format_and_signs_of_nothing(tmp_path: Path) -> None:
    spec = make_spec({"x": NUMBER, "c": CATEGORY})
    turned = make_spec({"c": CATEGORY, "x": NUMBER})
    first = read_bytes(tmp_path, b"x,c,label\n1.50,p,a\n-0,,b\n,q,a\n", spec)
    again = read_bytes(tmp_path, b'{"c":"p","x":1.5,"label":"z"}\n{"c":"","x":0,"label":"z"}\n'
                                 b'{"c":"q","x":null,"label":"z"}\n', turned)  # fmt: skip
    assert first.digests() == again.digests()
    assert len(set(first.digests())) == 3


def test_another_seed_gives_other_digests() -> None:
    spec = make_spec({"t": TEXT})
    batch = Batch(1, {"t": ["same"]})
    assert (
        Dataset(spec.columns, batch, ["a"], seed=1).digests()
        != Dataset(spec.columns, batch, ["a"], seed=2).digests()
    )


def test_cells_do_not_run_into_each_other() -> None:
    spec = make_spec({"a": TEXT, "b": TEXT, "c": CATEGORY})
    columns: dict[str, Any] = {"a": ["xy", "x", ""], "b": ["", "y", "xy"], "c": ["", None, ""]}
    assert len(set(Dataset(spec.columns, Batch(3, columns), None).digests())) == 3


def test_duplicates_never_cross_and_the_share_is_about_right() -> None:
    spec = make_spec({"t": TEXT})
    texts = [f"text {i % 5000}" for i in range(10_000)]
    mask = Dataset(spec.columns, Batch(10_000, {"t": texts}), None).holdout_mask(0.2)
    assert mask[:5000] == mask[5000:]
    assert 0.18 < sum(mask[:5000]) / 5000 < 0.22


@given(st.integers(0, 2**64 - 1), st.floats(0, 1))
def test_a_row_is_held_out_exactly_if_its_digest_is_under_the_fraction(key: int, fraction: float) -> None:
    dataset = Dataset((), Batch(1, {}), None, keys=np.array([key], np.uint64))
    assert dataset.holdout_mask(fraction) == [key < min(int(fraction * 2**64), 2**64 - 1)]


def test_a_hundred_thousand_rows_are_digested_in_chunks_like_one_by_one() -> None:
    spec = make_spec({"n": NUMBER, "c": CATEGORY})
    n = 20_000
    columns: dict[str, Any] = {"n": array("d", range(n)), "c": [str(i % 7) for i in range(n)]}
    dataset = Dataset(spec.columns, Batch(n, columns), None)
    alone = Dataset(spec.columns, Batch(1, {"n": array("d", [n - 1]), "c": [str((n - 1) % 7)]}), None)
    assert dataset.digests()[-1] == alone.digests()[0]


# --- snapshots


@pytest.mark.parametrize("arrays", [False, True])
def test_a_snapshot_is_the_same_bytes_every_time_and_reads_back_equal(arrays: bool) -> None:
    dataset = mixed(arrays=arrays)
    data = write_snapshot(dataset)
    assert data == write_snapshot(mixed(arrays=arrays))
    again = read_snapshot(data, ALL)
    assert same(again, dataset)
    assert write_snapshot(again) == data
    assert isinstance(again.batch.columns["n"], array)


def test_a_snapshot_keeps_numbers_as_labels_and_rows_without_labels() -> None:
    spec = make_spec({"n": NUMBER}, task="regression")
    batch = Batch(2, {"n": array("d", [1, 2])})
    assert read_snapshot(write_snapshot(Dataset(spec.columns, batch, [0.1, 2.0])), spec).labels == [0.1, 2.0]
    assert read_snapshot(write_snapshot(Dataset(spec.columns, batch, None)), spec).labels is None


def test_a_snapshot_of_no_rows_reads_back() -> None:
    empty = mixed(arrays=True).take([])
    again = read_snapshot(write_snapshot(empty), ALL)
    assert again.n_rows == 0
    assert np.shape(again.batch.columns["v"]) == (0, 2)


def test_a_snapshot_read_for_another_seed_is_digested_anew() -> None:
    other = make_spec({"t": TEXT}, split={"seed": 9})
    spec = make_spec({"t": TEXT})
    batch = Batch(1, {"t": ["x"]})
    again = read_snapshot(write_snapshot(Dataset(spec.columns, batch, ["a"])), other)
    assert again.digests() == Dataset(other.columns, batch, ["a"], seed=9).digests()


def test_a_snapshot_of_other_columns_or_damaged_bytes_is_refused() -> None:
    data = write_snapshot(mixed())
    for spec in (make_spec({"n": NUMBER}), make_spec({"n": CATEGORY})):
        with pytest.raises(IntegrityError, match="other columns"):
            read_snapshot(data, spec)
    for bad in (b"", data[:-30], data[:200] + b"\0" * 60 + data[260:]):
        with pytest.raises(IntegrityError, match="damaged"):
            read_snapshot(bad, ALL)


def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other")
    np.savez(tmp_path / "other.npz", x=[1])
    for name, why in (("other", "other columns"), ("other.npz", "damaged")):
        with pytest.raises(IntegrityError, match=why):
            read_snapshot((tmp_path / name).read_bytes(), ALL)


@pytest.mark.parametrize("arrays", [False, True])
def test_a_snapshot_of_version_0_1_reads_back_equal_and_damage_to_it_is_refused(arrays: bool) -> None:
    kept = Path(__file__).parent / "snapshots" / f"0.1-{'arrays' if arrays else 'lists'}.parquet"
    data = kept.read_bytes()
    again = read_snapshot(data, ALL)
    assert same(again, mixed(arrays=arrays))
    assert write_snapshot(again) == write_snapshot(mixed(arrays=arrays))
    for bad in (data[:-30], data[:60] + b"\0" * 60 + data[120:]):
        with pytest.raises(IntegrityError, match="damaged"):
            read_snapshot(bad, ALL)
    with pytest.raises(IntegrityError, match="other columns"):
        read_snapshot(data, make_spec({"n": NUMBER}))


def test_a_snapshot_of_a_later_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FORMAT", 99)
    data = write_snapshot(mixed())
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match="another format"):
        read_snapshot(data, ALL)


def test_a_snapshot_whose_parts_differ_in_length_is_refused() -> None:
    data = write_snapshot(mixed())
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    for name in ("key", "0"):
        sink = io.BytesIO()
        np.savez(sink, **{**arrays, name: arrays[name][:-1]})
        with pytest.raises(IntegrityError, match="damaged"):
            read_snapshot(sink.getvalue(), ALL)


def test_a_snapshot_holds_empty_texts_and_missing_categories() -> None:
    spec = make_spec({"t": TEXT, "c": CATEGORY})
    columns: dict[str, Any] = {"t": ["ü", ""], "c": [None, "x"]}
    again = read_snapshot(write_snapshot(Dataset(spec.columns, Batch(2, columns), ["b", "a"])), spec)
    assert (again.batch.columns, again.labels) == (columns, ["b", "a"])
