"""Sets of numpy arrays: npz, and several npy in a folder or zip."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.dataset.arrays import column_name
from core.dataset.limits import Limits
from core.dataset.reading import read_table
from core.errors import DataRejected
from tests.core.datafiles import (
    CATEGORY,
    IMAGE,
    NUMBER,
    TEXT,
    make_spec,
    npy,
    npz,
    packed,
    read_bytes,
    rejection,
)

MIXED = make_spec({"x": NUMBER, "c": CATEGORY, "t": TEXT})
IMAGES = make_spec({"image": IMAGE})
VECTOR = {"kind": "vector", "width": 3}
VECTORS = make_spec({"x": VECTOR})


def test_an_npz_of_images_uses_the_class_names(tmp_path: Path) -> None:
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    data = npz(images=images, labels=np.array([1, 0]), class_names=np.array(["cat", "dog"]))
    dataset = read_bytes(tmp_path, data, IMAGES)
    assert dataset.labels == ["dog", "cat"]
    assert np.array_equal(dataset.batch.columns["image"], images)
    named = make_spec({"images": IMAGE}, label="labels")
    assert np.array_equal(read_bytes(tmp_path, data, named).batch.columns["images"], images)


def test_an_npz_of_x_and_y_is_a_vector_column(tmp_path: Path) -> None:
    for dtype in (np.float64, np.float32, np.int64, np.uint8, np.float16, ">f8"):
        x = np.arange(6).reshape(2, 3).astype(dtype)
        dataset = read_bytes(tmp_path, npz(X=np.asfortranarray(x), y=np.array(["a", "b"])), VECTORS)
        assert np.array_equal(dataset.batch.columns["x"], x)
        assert dataset.labels == ["a", "b"]


def test_arrays_of_one_axis_are_numbers_texts_or_categories(tmp_path: Path) -> None:
    data = npz(
        x=np.array([1.0, np.nan]), t=np.array([b"one", b"two"]), c=np.array(["p", ""]), y=np.array([True, False])
    )
    dataset = read_bytes(tmp_path, data, MIXED)
    assert dataset.batch.columns["t"] == ["one", "two"]
    assert dataset.batch.columns["c"] == ["p", None]
    assert dataset.labels == ["true", "false"]


def three_files(n: int = 4) -> dict[str, bytes]:
    """Return the three-file form."""
    rng = np.random.default_rng(0)
    return {
        "X_train_tfidf_balanced.npy": npy(rng.random((n, 3))),
        "train_image_features_balanced.npy": npy(rng.random((n, 2)).astype(np.float32)),
        "Y_train_balanced.npy": npy(np.arange(n) % 2),
    }


def test_the_three_file_form_is_read_from_a_folder_and_a_zip(tmp_path: Path) -> None:
    spec = make_spec({"tfidf": VECTOR, "image_features": {"kind": "vector", "width": 2}})
    folder = tmp_path / "set"
    folder.mkdir()
    for name, data in three_files().items():
        (folder / name).write_bytes(data)
    from_folder = read_table(str(folder), spec)
    from_zip = read_bytes(tmp_path, packed(three_files()), spec)
    inside = read_bytes(tmp_path, packed({f"deep/{name}": data for name, data in three_files().items()}), spec)
    assert from_folder.labels == from_zip.labels == inside.labels == ["0", "1", "0", "1"]
    assert from_folder.digests() == from_zip.digests() == inside.digests()
    assert from_folder.batch.columns["image_features"].dtype == np.float32  # type: ignore[attr-defined]


def test_one_hot_labels_and_a_column_of_labels_are_understood(tmp_path: Path) -> None:
    x = np.ones((3, 3))
    assert read_bytes(tmp_path, npz(X=x, y=np.eye(3)), VECTORS).labels == ["0", "1", "2"]
    assert read_bytes(tmp_path, npz(X=x, y=np.array([[1.0], [2.0], [1.0]])), VECTORS).labels == ["1", "2", "1"]


def test_a_lone_npy_can_be_predicted(tmp_path: Path) -> None:
    dataset = read_bytes(tmp_path, npy(np.ones((5, 3))), VECTORS, need_label=False)
    assert (dataset.n_rows, dataset.labels) == (5, None)
    assert rejection(tmp_path, npy(np.ones((5, 3))), VECTORS).problems[0].field == "label"


def test_column_names_of_arrays_leave_out_what_names_no_column() -> None:
    names = [
        "X_train_tfidf_balanced",
        "train_image_features_balanced",
        "images",
        "X",
        "X_test",
        "test",
        "my images",
    ]
    assert [column_name(name) for name in names] == [
        "tfidf", "image_features", "image", "x", "x", "test", "my_images",
    ]  # fmt: skip


X, Y = npy(np.ones((2, 3))), npy(np.ones(2))


def false_header(shape: str, descr: str = "'<f8'") -> bytes:
    """Return a .npy whose header claims a shape and that has no data."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize(
    ("arrays", "reason", "words"),
    [
        ({"X.npy": X, "y.npy": npy(np.array([1, None]))}, "format", "Python objects"),
        ({"X.npy": npy(np.zeros(2, [("a", "f8")])), "y.npy": Y}, "format", "records"),
        ({"X.npy": npy(np.zeros(2, "M8[D]")), "y.npy": Y}, "format", "records"),
        ({"X.npy": npy(np.float64(1)), "y.npy": Y}, "format", "single value"),
        ({"X.npy": false_header("(1000, 1000000000)"), "y.npy": Y}, "too_large", "over the limit"),
        ({"X.npy": false_header("(3000000, 1)"), "y.npy": Y}, "too_large", "number of rows"),
        ({"X.npy": false_header("(100, 3)"), "y.npy": Y}, "truncated", "does not hold"),
        ({"X.npy": false_header("(0, 3)"), "y.npy": Y}, "truncated", "does not hold"),
        ({"X.npy": false_header("(-1, 3)"), "y.npy": Y}, "format", "single value|negative"),
        ({"X.npy": b"\x93NUMPY\x01", "y.npy": Y}, "truncated", "no whole .npy header"),
        ({"X.npy": b"\x93NUMPY\x09\x00" + bytes(100), "y.npy": Y}, "truncated", "header"),
        ({"X.npy": X[:-8], "y.npy": Y}, "truncated", "does not hold"),
        ({"X.npy": X, "y.npy": npy(np.ones(3))}, "schema", "differ in their number of rows"),
        ({"X.npy": X, "y.npy": npy(np.ones((2, 2)))}, "schema", "one value a row"),
        ({"X.npy": X, "y.npy": Y, "labels.npy": npy(np.ones(2))}, "schema", "more than"),
        ({"X.npy": X, "X_train.npy": npy(np.ones((2, 3)))}, "schema", "two arrays would be"),
        ({"X.npy": npy(np.ones((2, 4))), "y.npy": Y}, "schema", "must have 3 numbers"),
        ({"X.npy": npy([[1, 2, 3], [1, 2, np.nan]]), "y.npy": Y}, "schema", "row 2.*finite"),
        ({"X.npy": npy(np.array([b"\xff"])), "y.npy": npy(np.ones(1))}, "encoding", "not UTF-8"),
        ({"X.npy": X, "y.npy": Y, "class_names.npy": npy(np.array(["a"]))},
         "schema", "must be whole numbers"),
        ({"X.npy": X, "y.npy": npy(np.array([0, 1])), "class_names.npy": npy(np.array(["a"]))},
         "schema", "outside the 1 class_names"),
        ({"class_names.npy": npy(np.array(["a"]))}, "format", "no array"),
    ],
)  # fmt: skip
def test_a_bad_set_of_arrays_is_refused(tmp_path: Path, arrays: dict[str, bytes], reason: str, words: str) -> None:
    error = rejection(tmp_path, packed(arrays), VECTORS)
    assert error.reason == reason
    assert re.search(words, error.message), error.message


def test_arrays_over_the_limit_together_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("X", "z", "y"):
        (folder / f"{name}.npy").write_bytes(npy(np.ones((100, 3))))
    with pytest.raises(DataRejected, match="arrays together") as caught:
        read_table(str(folder), VECTORS, limits=Limits(bytes=5000))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.ones((2, 4, 4)), "uint8"),
        (np.ones((2, 4, 4, 2), np.uint8), "shape"),
        (np.ones((2, 4), np.uint8), "shape"),
    ],
)
def test_an_array_that_is_no_images_is_refused(tmp_path: Path, images: Any, words: str) -> None:
    error = rejection(tmp_path, npz(images=images, labels=np.arange(2)), IMAGES)
    assert error.reason == "schema"
    assert words in error.message


def test_grey_images_with_an_axis_of_one_are_grey_images(tmp_path: Path) -> None:
    dataset = read_bytes(tmp_path, npz(images=np.ones((2, 4, 5, 1), np.uint8), labels=np.arange(2)), IMAGES)
    assert np.shape(dataset.batch.columns["image"]) == (2, 4, 5)
