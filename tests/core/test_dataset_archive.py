"""Zips and folders of images with their tables, and the real sets of images."""

from __future__ import annotations

import base64
import gzip
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dataset.archive import is_safe
from core.dataset.limits import Limits
from core.dataset.reading import read_table
from core.errors import DataRejected
from tests.core.datafiles import (
    IMAGE,
    JPEG,
    NUMBER,
    PNG,
    ROOT,
    TEXT,
    lines,
    make_spec,
    npz,
    packed,
    parquet,
    read_bytes,
    real_files,
    rejection,
)

IMAGES = make_spec({"image": IMAGE})


def test_a_zip_of_images_with_labels_csv(tmp_path: Path) -> None:
    table = b"file,label\na.png,cat\nsub/b.jpg,dog\n"
    files = {
        "labels.csv": table,
        "a.png": PNG,
        "pics/sub/b.jpg": JPEG,
        "__MACOSX/._a.png": b"x",
        ".DS_Store": b"x",
    }
    assert rejection(tmp_path, packed(files), IMAGES).problems[0].row == 2
    files["sub/b.jpg"] = files.pop("pics/sub/b.jpg")
    dataset = read_bytes(tmp_path, packed(files), IMAGES)
    assert dataset.batch.columns["image"] == [PNG, JPEG]
    by_its_own_name = make_spec({"file": IMAGE})
    assert read_bytes(tmp_path, packed(files), by_its_own_name).batch.columns["file"] == [PNG, JPEG]


def test_an_image_may_be_named_by_its_last_part_if_it_is_the_only_one(tmp_path: Path) -> None:
    table = b"file,label\na.png,cat\n"
    assert read_bytes(tmp_path, packed({"labels.csv": table, "x/a.png": PNG}), IMAGES).n_rows == 1
    error = rejection(tmp_path, packed({"labels.csv": table, "x/a.png": PNG, "y/a.png": PNG}), IMAGES)
    assert "names no image" in error.problems[0].message


def test_a_zip_may_hold_a_table_in_any_format(tmp_path: Path) -> None:
    rows = [{"file": "a.png", "label": "cat", "more": 1}]
    spec = make_spec({"image": IMAGE, "more": NUMBER})
    tables = {
        "data.jsonl": lines(*rows),
        "data.csv.gz": gzip.compress(b"file,label,more\na.png,cat,1\n"),
        "data.parquet": parquet(file=["a.png"], label=["cat"], more=[1]),
    }
    for name, data in tables.items():
        assert read_bytes(tmp_path, packed({name: data, "a.png": PNG}), spec).batch.columns["image"] == [PNG]


def test_a_zip_of_images_alone_can_be_predicted_in_order_of_their_names(tmp_path: Path) -> None:
    dataset = read_bytes(tmp_path, packed({"b.jpg": JPEG, "a.png": PNG}), IMAGES, need_label=False)
    assert dataset.batch.columns["image"] == [PNG, JPEG]


def test_images_stand_beside_a_table_in_a_zip_a_folder_or_its_own_folder(tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    table.write_text("image,label\nz.png,a\nf.jpg,b\nown.png,a\n")
    (tmp_path / "images.zip").write_bytes(packed({"images/z.png": PNG}))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "f.jpg").write_bytes(JPEG)
    (tmp_path / "own.png").write_bytes(PNG)
    assert read_table(str(table), IMAGES).batch.columns["image"] == [PNG, JPEG, PNG]
    assert read_table(str(tmp_path), IMAGES).labels == ["a", "b", "a"]


def test_a_cell_cannot_name_a_file_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    folder = tmp_path / "set"
    folder.mkdir()
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    names = [
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "..\\secret.png",
        "images/../../secret.png",
    ]
    (folder / "data.csv").write_text("image,label\n" + "".join(f"{name},a\n" for name in names))
    error = _rejection_of(folder / "data.csv")
    assert [problem.row for problem in error.problems] == [1, 2, 3, 4, 5]


def _rejection_of(path: Path, limits: Limits | None = None) -> DataRejected:
    with pytest.raises(DataRejected) as caught:
        read_table(str(path), IMAGES, limits=limits)
    return caught.value


def test_an_image_over_its_limit_is_refused(tmp_path: Path) -> None:
    files = {"labels.csv": b"file,label\na.png,cat\n", "a.png": PNG + bytes(1000)}
    for limits in (Limits(image_bytes=500), Limits(bytes=1040)):
        assert rejection(tmp_path, packed(files), IMAGES, limits=limits).reason == "too_large"
    (tmp_path / "set").mkdir()
    for name, data in files.items():
        (tmp_path / "set" / name).write_bytes(data)
    assert _rejection_of(tmp_path / "set", Limits(image_bytes=500)).reason == "too_large"
    row = {"image": base64.b64encode(PNG + bytes(1000)).decode(), "label": "a"}
    assert "at most 500 bytes" in rejection(tmp_path, lines(row), IMAGES, limits=Limits(image_bytes=500)).message
    (tmp_path / "data.csv").write_text("image,label\n" + "a.png,cat\n" * 9)
    (tmp_path / "a.png").write_bytes(PNG + bytes(1000))
    assert "images together" in _rejection_of(tmp_path / "data.csv", Limits(bytes=5000)).message


def link(name: str) -> bytes:
    """Return a zip that holds a symbolic link."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return sink.getvalue()


def test_a_zip_with_unsafe_names_or_links_is_refused(tmp_path: Path) -> None:
    for name in ("../a.png", "/a.png", "a/../../b.png", "c:\\a.png", "a\\b.png", "C:/a.png"):
        assert rejection(tmp_path, packed({name: PNG}), IMAGES).reason == "format"
    assert rejection(tmp_path, link("a.png"), IMAGES).reason == "format"


def test_a_zip_that_is_encrypted_doubled_empty_or_bare_is_refused(tmp_path: Path) -> None:
    data = bytearray(packed({"a.png": PNG}))
    data[6] |= 1
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 8] |= 1
    assert "encrypted" in rejection(tmp_path, bytes(data), IMAGES).message
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.png", PNG)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", PNG)
    assert "twice" in rejection(tmp_path, sink.getvalue(), IMAGES).message
    assert rejection(tmp_path, packed({}), IMAGES).reason == "format"
    assert rejection(tmp_path, packed({"readme.txt": b"hello"}), IMAGES).reason == "format"
    two = {"a.csv": b"x,label\n", "b.csv": b"x,label\n"}
    assert "side by side" in rejection(tmp_path, packed(two), IMAGES).message


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = packed({"labels.csv": b"file,label\n" + bytes(5_000_000)})
    assert len(bomb) < 10_000
    assert rejection(tmp_path, bomb, IMAGES, limits=Limits(bytes=1_000_000)).reason == "too_large"
    assert rejection(
        tmp_path, packed({f"{i}.png": PNG for i in range(9)}), IMAGES, limits=Limits(members=8)
    ).reason == ("too_large")


def test_a_damaged_zip_is_truncated(tmp_path: Path) -> None:
    data = packed({"labels.csv": b"file,label\na.png,cat\n", "a.png": PNG * 20})
    for cut in (10, len(data) // 2, len(data) - 1):
        assert rejection(tmp_path, data[:cut], IMAGES).reason == "truncated"
    broken = bytearray(data)
    at = data.index(b"a.png", 60) + 8
    broken[at : at + 4] = b"\xff\xff\xff\xff"
    assert rejection(tmp_path, bytes(broken), IMAGES).reason in {"truncated", "schema"}
    unknown = bytearray(packed({"labels.csv": b"file,label\n"}, 0))
    unknown[8:10] = b"\x63\x00"
    place = unknown.rindex(b"PK\x01\x02") + 10
    unknown[place : place + 2] = b"\x63\x00"
    assert rejection(tmp_path, bytes(unknown), IMAGES).reason == "truncated"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert _rejection_of(tmp_path).reason == "format"


@given(st.text(max_size=30))
def test_a_safe_name_stays_in_its_place(name: str) -> None:
    if is_safe(name):
        path = os.path.normpath(os.path.join("/place", name))
        assert path.startswith("/place")


REAL = sorted({path.parent for path in real_files("mnist", "fashion_mnist", "cifar10_small")})


@pytest.mark.parametrize("folder", [Path("generated"), *REAL], ids=lambda folder: folder.name)
def test_image_sets_equal_what_numpy_loads(folder: Path, tmp_path: Path) -> None:
    if folder.name == "generated":
        folder = tmp_path
        images = np.zeros((3, 4, 4), np.uint8)
        (folder / "data.npz").write_bytes(
            npz(images=images, labels=np.arange(3), class_names=np.array(list("abc")))
        )
    loaded = np.load(folder / "data.npz")
    dataset = read_table(str(folder), IMAGES)
    assert np.array_equal(dataset.batch.columns["image"], loaded["images"])
    assert dataset.labels == loaded["class_names"][loaded["labels"]].tolist()


@pytest.mark.parametrize(
    "root", [Path("generated"), *([ROOT] if ROOT.is_dir() else [])], ids=lambda root: root.name
)
def test_a_table_finds_its_images_in_the_zip_beside_it(root: Path, tmp_path: Path) -> None:
    spec = make_spec({"text": TEXT, "retail_price": NUMBER, "image": IMAGE}, data={"extra": "ignore"})
    folder = root / "product_multimodal"
    if not folder.is_dir():
        folder = tmp_path
        (folder / "data.csv").write_text("text,retail_price,image,label\nmug,9.5,m.jpg,kitchen\n")
        (folder / "images.zip").write_bytes(packed({"images/m.jpg": JPEG}))
    dataset = read_table(str(folder / "data.csv"), spec)
    with zipfile.ZipFile(folder / "images.zip") as archive:
        stored = {archive.read(name) for name in archive.namelist()}
    assert len(dataset.batch.columns["image"]) == dataset.n_rows
    assert set(dataset.batch.columns["image"]) <= stored
