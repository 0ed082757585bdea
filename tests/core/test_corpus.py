"""Which rows are learnt from and which judge: split once, never crossed, newest label right."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from core import corpus
from core.corpus import Known, Part
from core.dataset.snapshot import read_snapshot, write_snapshot
from core.dataset.table import Dataset
from core.errors import DataRejected, IntegrityError
from core.schema import Batch
from core.spec import ModelSpec
from tests.core.toys import messages, text_spec

SPEC = text_spec()


def _dataset(texts: list[str], labels: list[str], spec: ModelSpec = SPEC) -> Dataset:
    return Dataset(spec.columns, Batch(len(texts), {"text": texts}), labels, seed=spec.split.seed)


def _some(n: int, seed: int = 0) -> Dataset:
    rows = messages(n, seed)
    return _dataset(list(rows.batch.columns["text"]), rows.labels)


def _rows(dataset: Dataset) -> list[tuple[str, Any]]:
    return list(zip(dataset.batch.columns["text"], dataset.labels or (), strict=True))


def _known(dataset: Dataset, parts: tuple[Part, ...] = ()) -> Known:
    split = corpus.first(dataset, SPEC)
    return Known(split.train, split.holdout, parts or ({"kind": "train"}, {"kind": "holdout"}))


def test_a_file_is_split_by_row_digest_into_all_its_rows() -> None:
    dataset = _some(300)
    split = corpus.first(dataset, SPEC)
    assert sorted(_rows(split.train) + _rows(split.holdout)) == sorted(_rows(dataset))
    assert 30 < split.holdout.n_rows < 90
    assert split.fresh is split.train
    assert not split.kept


def test_copies_of_a_row_stand_on_the_same_side() -> None:
    dataset = _some(100)
    twice = _dataset([*dataset.batch.columns["text"]] * 2, [*(dataset.labels or ())] * 2)
    split = corpus.first(twice, SPEC)
    assert not {text for text, _ in _rows(split.train)} & {text for text, _ in _rows(split.holdout)}


@pytest.mark.parametrize("seed", range(30))
def test_a_tiny_file_still_has_both_sides(seed: int) -> None:
    split = corpus.first(_some(10, seed), SPEC)
    assert split.train.n_rows
    assert split.holdout.n_rows


def test_a_class_never_stands_in_the_holdout_alone() -> None:
    dataset = _some(60)
    inside = np.flatnonzero(dataset.holdout_mask(0.2))
    labels = ["rare" if i in inside[:3] else "common" for i in range(60)]
    split = corpus.first(_dataset(list(dataset.batch.columns["text"]), labels), SPEC)
    assert "rare" in (split.train.labels or ())
    assert "rare" not in (split.holdout.labels or ())


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(DataRejected) as rejection:
        corpus.first(_dataset(["a"], ["x"]), SPEC)
    assert rejection.value.reason == "rows"


def test_uploaded_rows_are_added_and_the_holdout_stays() -> None:
    known, upload = _known(_some(200)), _some(100, seed=1)
    grown = corpus.unite(known, [upload], SPEC)
    inside = sum(upload.holdout_mask(0.2))
    assert grown.holdout is known.holdout
    assert grown.counts == {
        "uploaded": 100,
        "in_holdout": 0,
        "set_aside": inside,
        "new": 100 - inside,
        "relabelled": 0,
    }
    assert _rows(grown.train)[: known.train.n_rows] == _rows(known.train)
    assert grown.fresh is not None
    assert _rows(grown.train)[known.train.n_rows :] == _rows(grown.fresh)
    assert grown.aside is not None
    assert grown.aside.n_rows == inside


def test_a_row_in_the_holdout_is_never_learnt_from_whatever_its_label() -> None:
    known = _known(_some(200))
    texts = list(known.holdout.batch.columns["text"])
    grown = corpus.unite(known, [_dataset(texts, ["login"] * len(texts))], SPEC)
    assert grown.counts["in_holdout"] == len(texts)
    assert grown.counts["new"] == 0
    assert not set(texts) & set(grown.train.batch.columns["text"])


def test_a_known_row_is_not_taken_twice() -> None:
    known = _known(_some(200))
    grown = corpus.unite(known, [known.train], SPEC)
    assert _rows(grown.train) == _rows(known.train)
    assert grown.counts["new"] == 0


def test_of_two_labels_the_newest_is_right_and_counted() -> None:
    known = _known(_some(200))
    texts = list(known.train.batch.columns["text"][:10])
    grown = corpus.unite(known, [_dataset(texts, ["other"] * 10)], SPEC)
    found = dict(_rows(grown.train))
    assert [found[text] for text in texts] == ["other"] * 10
    assert grown.counts["relabelled"] == 10
    assert grown.train.n_rows == known.train.n_rows


def test_later_uploads_of_one_run_overrule_earlier_ones() -> None:
    known = _known(_some(200))
    upload = _some(50, seed=2)
    texts = list(upload.batch.columns["text"])
    grown = corpus.unite(known, [_dataset(texts, ["old"] * 50), _dataset(texts, ["new"] * 50)], SPEC)
    assert grown.fresh is not None
    assert set(grown.fresh.labels or ()) == {"new"}


def test_the_upload_alone_is_learnt_from_where_the_spec_says_so() -> None:
    spec = text_spec(retrain={"data": "upload"})
    known, upload = _known(_some(200)), _some(100, seed=1)
    grown = corpus.unite(known, [upload], spec)
    assert grown.train.n_rows == grown.counts["new"] < 100
    assert [part["kind"] for part in grown.kept] == ["holdout"]


def test_without_uploads_the_known_rows_are_learnt_from_again() -> None:
    known = _known(_some(200))
    again = corpus.unite(known, [], SPEC)
    assert (again.train, again.kept, again.fresh) == (known.train, known.parts, None)


def test_many_parts_become_one() -> None:
    parts: tuple[Part, ...] = tuple({"kind": "train"} for _ in range(corpus.MAX_PARTS))
    known = _known(_some(200), (*parts, {"kind": "holdout"}))
    grown = corpus.unite(known, [_some(50, seed=1)], SPEC)
    assert [part["kind"] for part in grown.kept] == ["holdout"]
    assert grown.fresh is grown.train


def _stored(datasets: list[tuple[Dataset, str]]) -> tuple[tuple[Part, ...], dict[str, bytes]]:
    objects = {f"part/{n}": write_snapshot(dataset) for n, (dataset, _) in enumerate(datasets)}
    parts: list[Part] = [
        {
            "key": key,
            "sha256": hashlib.sha256(data).hexdigest(),
            "kind": kind,
            "rows": read_snapshot(data, SPEC).n_rows,
        }
        for (key, data), (_, kind) in zip(objects.items(), datasets, strict=True)
    ]
    return tuple(parts), objects


def test_the_parts_give_back_the_rows_that_were_trained_on() -> None:
    known = _known(_some(200))
    texts = list(known.train.batch.columns["text"][:5])
    grown = corpus.unite(known, [_some(50, seed=1), _dataset(texts, ["other"] * 5)], SPEC)
    assert grown.fresh is not None
    parts, objects = _stored([(known.train, "train"), (known.holdout, "holdout"), (grown.fresh, "train")])
    loaded = corpus.load(parts, SPEC, objects.__getitem__)
    assert _rows(loaded.train) == _rows(grown.train)
    assert _rows(loaded.holdout) == _rows(known.holdout)


def test_a_part_that_does_not_match_the_log_is_refused() -> None:
    known = _known(_some(100))
    parts, objects = _stored([(known.train, "train"), (known.holdout, "holdout")])
    objects["part/0"] = objects["part/1"]
    with pytest.raises(IntegrityError, match="match the log"):
        corpus.load(parts, SPEC, objects.__getitem__)


def test_a_version_without_a_holdout_is_refused() -> None:
    known = _known(_some(100))
    parts, objects = _stored([(known.train, "train")])
    with pytest.raises(IntegrityError, match="no holdout"):
        corpus.load(parts, SPEC, objects.__getitem__)


def test_regression_targets_are_split_and_united_too() -> None:
    spec = text_spec(task="regression", estimator={"kind": "linear", "algorithm": "ridge"})
    rows = messages(100)
    targets: list[Any] = [float(len(text)) for text in rows.batch.columns["text"]]
    split = corpus.first(_dataset(list(rows.batch.columns["text"]), targets, spec), spec)
    grown = corpus.unite(Known(split.train, split.holdout, ()), [_dataset(["a b"], [1.0])], spec)  # type: ignore[list-item]
    assert grown.counts["new"] + grown.counts["set_aside"] == 1
