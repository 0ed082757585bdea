"""What makes an upload suspicious, and what does not."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from core import artifact
from core.corpus import Known, first
from core.dataset.leakage import check_new_leakage
from core.dataset.table import Dataset
from core.errors import DataRejected
from core.model import Model
from core.schema import Batch
from core.spec import ModelSpec, from_dict
from core.suspicion import examine
from core.training import train


def _spec(task: str = "classification", algorithm: str = "logistic_regression") -> ModelSpec:
    columns = {"a": {"kind": "number"}, "b": {"kind": "number"}}
    estimator = {"kind": "linear", "algorithm": algorithm}
    return from_dict({"name": "m", "task": task, "label": "y", "columns": columns, "estimator": estimator})


def _drawn(n: int, seed: int, spec: ModelSpec) -> Dataset:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    a, b = rng.normal(size=n) + kinds, rng.normal(size=n) - 2.0 * kinds
    number = (a - b + rng.normal(size=n) / 4).tolist()
    labels = [f"k{kind}" for kind in kinds] if spec.task == "classification" else number
    return Dataset(spec.columns, Batch(n, {"a": array("d", a.tolist()), "b": array("d", b.tolist())}), labels)


def _model(spec: ModelSpec) -> tuple[Model, Known]:
    rows = first(_drawn(1200, 0, spec), spec)
    draft = train(spec, rows.train).draft({}, rows.holdout.batch.take(range(4)))
    return artifact.load(artifact.export(draft)), Known(rows.train, rows.holdout, ())


def _relabelled(rows: Dataset, share: float, seed: int = 1) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = np.asarray(rows.labels, object)
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    labels[chosen] = np.roll(labels[chosen], 1) if rows.labels and isinstance(rows.labels[0], float) else "k0"
    return Dataset(rows.columns, rows.batch, labels.tolist())


LEARNERS = [
    ("classification", "logistic_regression"),
    ("classification", "linear_svc"),
    ("regression", "ridge"),
]
SEEN = [0.03, 0.03, 0.06]  # shares of wrong labels; a value is told apart less well than a class


@pytest.mark.parametrize(("task", "algorithm"), LEARNERS)
def test_wrong_labels_are_suspicious_and_right_ones_are_not(task: str, algorithm: str) -> None:
    spec = _spec(task, algorithm)
    model, known = _model(spec)
    upload = _drawn(800, 2, spec)
    assert examine(model, known, [upload]).reasons == ()
    found = examine(model, known, [_relabelled(upload, 0.3)])
    assert found.reasons[0].startswith("labels: about")
    assert found.evidence["wrong_share"] > 0.1
    assert examine(model, known, [_relabelled(upload, 0.3)]) == found


@pytest.mark.parametrize(
    ("task", "algorithm", "share"), [(*pair, s) for pair, s in zip(LEARNERS, SEEN, strict=True)]
)
def test_few_wrong_labels_are_enough_where_there_are_many_rows(task: str, algorithm: str, share: float) -> None:
    """So few that a threshold of three times the one there is would let them pass."""
    spec = _spec(task, algorithm)
    model, known = _model(spec)
    for seed in (2, 3):
        upload = _drawn(3000, seed, spec)
        assert examine(model, known, [upload]).reasons == ()
        assert examine(model, known, [_relabelled(upload, share)]).reasons


def test_the_estimate_is_near_the_share_of_wrong_labels() -> None:
    spec = _spec()
    model, known = _model(spec)
    found = examine(model, known, [_relabelled(_drawn(2000, 3, spec), 0.15)])
    assert abs(found.evidence["wrong_share"] - 0.1) < 0.04  # a third of the rows was k0 before
    assert "'k0' where the model in use says" in found.reasons[0]


def test_other_shares_of_the_classes_are_not_suspicious() -> None:
    spec = _spec()
    model, known = _model(spec)
    upload = _drawn(2000, 4, spec)
    rare = [i for i, label in enumerate(upload.labels or ()) if label != "k1" or i % 8 == 0]
    assert examine(model, known, [upload.take(rare)]).reasons == ()


def test_a_few_rows_are_not_judged_and_many_small_uploads_are_judged_together() -> None:
    spec = _spec()
    model, known = _model(spec)
    parts = [_relabelled(_drawn(20, 10 + n, spec), 0.5) for n in range(10)]
    assert all("judged" not in examine(model, known, [part]).evidence for part in parts)
    assert examine(model, known, parts).reasons


def test_classes_that_the_model_does_not_know_are_not_held_against_it() -> None:
    spec = _spec()
    model, known = _model(spec)
    upload = _drawn(200, 5, spec)
    new = Dataset(
        upload.columns, upload.batch, ["new" if i % 2 else str(y) for i, y in enumerate(upload.labels or ())]
    )
    found = examine(model, known, [new])
    assert (found.reasons, found.evidence["judged"]) == ((), 100)


def test_a_column_that_leaks_in_an_upload_alone_is_refused_and_one_that_was_good_before_is_not() -> None:
    spec = _spec()
    known, upload = _drawn(600, 6, spec), _drawn(200, 7, spec)
    check_new_leakage(upload, known, "classification")
    codes = array("d", [float(str(label)[1:]) for label in upload.labels or ()])
    leak = Dataset(spec.columns, Batch(200, {**upload.batch.columns, "a": codes}), upload.labels)
    with pytest.raises(DataRejected, match="predict the label alone, as if made from it: a;"):
        check_new_leakage(leak, known, "classification")
    check_new_leakage(leak, Dataset(spec.columns, leak.batch, leak.labels), "classification")
