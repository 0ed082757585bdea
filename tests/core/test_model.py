"""Models and artifacts: export, load, golden replay, and what a damaged artifact does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import artifact, flatfile
from core.errors import IntegrityError, InvalidInput
from core.flatfile import FlatFile
from core.kinds import estimator_kind, feature_kind
from core.schema import Batch, Column, Schema
from tests.core.models import LABELS, TEXTS, draft, text_artifact, text_batch


def rewritten(data: bytes, parts: dict[str, Any] | None = None, **changes: object) -> bytes:
    """Return the artifact with other sections or header fields, digests made consistent again."""
    file = FlatFile(data)
    sections = {name: file.array(name) for name in file.sections}
    kept = {k: v for k, v in file.header.items() if k not in ("sections", "data_size", "digests_sha256")}
    return flatfile.write({**kept, **changes}, {**sections, **(parts or {})})


def test_the_same_draft_gives_the_same_bytes() -> None:
    assert text_artifact() == text_artifact()


def test_a_model_tells_what_it_is() -> None:
    model = artifact.load(text_artifact())
    assert (model.name, model.task, model.classes) == (
        "demo",
        "classification",
        ("account", "billing", "delivery"),
    )
    assert [column.name for column in model.schema.columns] == ["text"]
    assert model.manifest["format_version"] == artifact.FORMAT_VERSION


def test_the_golden_rows_are_replayed_at_load() -> None:
    model = artifact.load(text_artifact())
    model.replay()
    golden = json.loads(bytes(model.file.raw("golden")))
    assert [row["text"] for row in golden["rows"]] == TEXTS[: artifact.GOLDEN_ROWS]


def test_a_model_that_behaves_differently_is_refused_by_the_replay() -> None:
    data = text_artifact()
    flipped = {"estimator/w": -FlatFile(data).array("estimator/w")}
    with pytest.raises(IntegrityError, match="golden replay"):
        artifact.load(rewritten(data, flipped)).replay()


def test_a_golden_section_of_another_length_is_refused() -> None:
    data = text_artifact()
    golden = json.loads(bytes(FlatFile(data).raw("golden")))
    golden["outputs"] = golden["outputs"][:1]
    with pytest.raises(IntegrityError, match="number of outputs"):
        artifact.load(rewritten(data, {"golden": json.dumps(golden).encode()})).replay()


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"blocks": [{"kind": "no_such_kind", "columns": ["text"], "params": {}}]},
        {"blocks": [{"kind": "../../etc", "columns": ["text"], "params": {}}]},
        {"blocks": [{"kind": "text", "columns": ["absent"], "params": {}}]},
        {"blocks": 3},
        {"estimator": {"kind": "os", "params": {}}},
        {"estimator": {"kind": "linear", "params": {}}},
        {"estimator": {"kind": "linear", "params": {"link": "eval"}}},
        {"schema": [{"name": "text"}]},
        {"classes": None},
    ],
)
def test_a_manifest_that_is_not_well_formed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        artifact.load(rewritten(text_artifact(), **changes))


def test_a_damaged_page_is_found_when_it_is_first_used() -> None:
    data = bytearray(text_artifact())
    file = FlatFile(bytes(data))
    data[file._data + file.section("estimator/w").offset] ^= 1
    with pytest.raises(IntegrityError, match="page"):
        artifact.load(bytes(data), file.header_sha256).replay()


def test_golden_rows_are_kept_within_their_size() -> None:
    wide = Batch(3, {"v": [[0.5] * 50_000] * 3})
    assert len(artifact.golden_rows(Schema((Column("v", "vector", width=50_000),)), wide)) == 1
    long = Batch(1, {"text": ["x" * 500], "brand": ["y" * 500]})
    (row,) = artifact.golden_rows(Schema((Column("text", "text"), Column("brand", "category"))), long)
    assert (len(row["text"]), len(row["brand"])) == (artifact.GOLDEN_CHARS, 500)


def test_entries_of_every_kind_have_a_json_form() -> None:
    batch = Batch(
        1,
        {
            "number": [float("nan")],
            "category": [None],
            "image": [b"\x89PNG"],
            "pixels": [np.zeros((2, 2), np.uint8)],
            "vector": [np.array([1.5, 2.0])],
            "tuple": [(1.0,)],
        },
    )
    (row,) = artifact.golden_rows(Schema(()), batch)
    json.dumps(row, allow_nan=False)
    assert row["number"] is None
    assert row["vector"] == [1.5, 2.0]
    assert row["tuple"] == [1.0]
    assert row["image"] == "iVBORw=="
    assert row["pixels"].startswith("iVBORw0KGgo")


def test_unknown_kinds_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        feature_kind("os")
    with pytest.raises(KeyError):
        estimator_kind("subprocess")


def test_images_given_as_arrays_are_replayed_from_png() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (8, 8)).astype(np.uint8) for _ in range(12)]
    column = Column("image", "image", {"size": [8, 8], "grey": True, "pixels": True, "hog": False})
    made, _, _ = draft([column], Batch(12, {"image": pictures}), LABELS)
    artifact.load(artifact.export(made)).replay()


def test_a_picture_that_cannot_be_read_is_named_by_its_row() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (8, 8)).astype(np.uint8) for _ in range(12)]
    column = Column("image", "image", {"size": [8, 8], "hog": False})
    made, _, _ = draft([column], Batch(12, {"image": pictures}), LABELS, kind="trees", algorithm="decision_tree")
    model = artifact.load(artifact.export(made))
    with pytest.raises(InvalidInput) as caught:
        model.predict(Batch(2, {"image": [pictures[0], b"not a picture"]}))
    assert [problem.row for problem in caught.value.problems] == [1]


ABSENT = [
    "sklearn", "scipy", "pandas", "joblib", "numpy", "boto3", "google", "azure", "flask", "msgspec", "inspect",
    "dataclasses", "logging", "asyncio", "urllib.request", "pickle",
]  # fmt: skip
SCRIPT = """
import sys
before = set(sys.modules)  # what the interpreter loads by itself, path files of installed packages included
import json, mmap
from core.artifact import load
with open(sys.argv[1], "rb") as f:
    model = load(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
model.replay()
label = model.predict(model.schema.batch([{"text": "my card was charged twice"}])).labels[0]
print(json.dumps({"label": label, "modules": sorted(set(sys.modules) - before)}))
"""


def test_a_fresh_interpreter_serves_a_text_with_the_standard_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(text_artifact())
    root = Path(__file__).parents[2]
    command, env = [sys.executable, "-c", SCRIPT, str(path)], {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=env)
    found = json.loads(done.stdout)
    expected = artifact.load(text_artifact()).predict(text_batch(["my card was charged twice"]))
    assert [found["label"]] == expected.labels
    assert not [name for name in ABSENT if name in found["modules"]]
    assert len(found["modules"]) <= 70
