"""Metrics equal scikit-learn's and scipy's; intervals, slices and odd cases behave."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from core import evaluation
from core.evaluation import evaluate, headline, wilson
from core.model import Predictions
from core.schema import Batch, Schema
from tests.core.toys import Rows

CLASSES = ("a", "b", "c")


def _classified(
    classes: tuple[str, ...] = CLASSES, n: int = 300, seed: int = 0
) -> tuple[Predictions, list[str], Any]:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(len(classes)), n)
    true = [classes[i] for i in rng.integers(0, len(classes), n)]
    labels = [classes[i] for i in proba.argmax(1)]
    return Predictions(labels, proba.tolist(), None), true, proba


def test_classification_figures_equal_scikit_learn() -> None:
    answers, true, proba = _classified()
    report = evaluate(answers, true, classes=CLASSES, resamples=5)
    assert report["n"] == 300
    assert report["accuracy"] == pytest.approx(reference.accuracy_score(true, answers.labels), abs=1e-12)
    assert report["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(true, answers.labels), abs=1e-12
    )
    assert report["macro_f1"] == pytest.approx(
        reference.f1_score(true, answers.labels, average="macro"), abs=1e-12
    )
    assert report["log_loss"] == pytest.approx(reference.log_loss(true, proba, labels=list(CLASSES)), abs=1e-12)
    assert report["confusion"]["counts"] == reference.confusion_matrix(true, answers.labels).tolist()
    assert "roc_auc" not in report


def test_precision_recall_and_support_equal_scikit_learn() -> None:
    answers, true, _ = _classified()
    rows = evaluate(answers, true, classes=CLASSES, resamples=2)["classes"]
    expected = reference.precision_recall_fscore_support(true, answers.labels, labels=list(CLASSES))
    for index, name in enumerate(CLASSES):
        assert rows[name]["precision"] == pytest.approx(expected[0][index])
        assert rows[name]["recall"] == pytest.approx(expected[1][index])
        assert rows[name]["support"] == expected[3][index]


def test_the_area_under_the_curve_counts_ties_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(1)
    positive = np.round(rng.random(400), 1)
    true = np.where(rng.random(400) < positive, "yes", "no").tolist()
    labels = ["yes" if p > 0.5 else "no" for p in positive]
    answers = Predictions(labels, np.c_[1 - positive, positive].tolist(), None)
    report = evaluate(answers, true, classes=("no", "yes"), resamples=50)
    expected = reference.roc_auc_score([t == "yes" for t in true], positive)
    assert report["roc_auc"] == pytest.approx(expected, abs=1e-12)
    low, high = report["ci"]["roc_auc"]
    assert low < expected < high


def test_the_area_is_left_out_when_the_holdout_has_one_class() -> None:
    answers = Predictions(["no"] * 5, [[0.8, 0.2]] * 5, None)
    report = evaluate(answers, ["no"] * 5, classes=("no", "yes"), resamples=3)
    assert "roc_auc" not in report
    assert report["accuracy"] == 1.0


def test_calibration_error_matches_a_hand_count() -> None:
    # four rows at 0.9, three right: |0.75 - 0.9|; two rows at 0.6, one right: |0.5 - 0.6|
    proba = [[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2
    answers = Predictions(["n"] * 6, proba, None)
    report = evaluate(answers, ["n", "n", "n", "y", "n", "y"], classes=("n", "y"), resamples=2)
    assert report["ece"] == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


def test_a_label_the_model_never_saw_counts_as_wrong() -> None:
    answers = Predictions(["a", "b"], [[0.9, 0.1], [0.2, 0.8]], None)
    report = evaluate(answers, ["a", "z"], classes=("a", "b"), resamples=2)
    assert report["accuracy"] == 0.5
    assert report["classes"]["z"] == {"precision": 0.0, "recall": 0.0, "support": 1}
    assert report["log_loss"] == pytest.approx((-math.log(0.9) - math.log(np.finfo(float).eps)) / 2)


def test_labels_alone_give_no_probability_figures() -> None:
    report = evaluate(Predictions(["a", "b"], None, None), ["a", "a"], classes=("a", "b"), resamples=2)
    assert report["accuracy"] == 0.5
    assert "log_loss" not in report
    assert "ece" not in report


def test_regression_figures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(size=200)
    found = true + rng.normal(scale=0.3, size=200)
    report = evaluate(Predictions(None, None, found.tolist()), true.tolist(), resamples=60)
    assert report["task"] == "regression"
    assert report["r2"] == pytest.approx(reference.r2_score(true, found), abs=1e-12)
    assert report["mae"] == pytest.approx(reference.mean_absolute_error(true, found), abs=1e-12)
    assert report["rmse"] == pytest.approx(reference.root_mean_squared_error(true, found), abs=1e-12)
    assert report["ci"]["mae"][0] < report["mae"] < report["ci"]["mae"][1]


def test_r2_is_left_out_when_all_values_are_equal() -> None:
    report = evaluate(Predictions(None, None, [1.0, 2.0]), [1.0, 1.0], resamples=2)
    assert "r2" not in report
    assert report["mae"] == 0.5


def test_no_rows_give_a_count_of_zero_and_no_figures() -> None:
    assert evaluate(Predictions([], [], None), [], classes=("a", "b")) == {"task": "classification", "n": 0}
    assert evaluate(Predictions(None, None, []), []) == {"task": "regression", "n": 0}


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (7, 10), (10, 10), (940, 1000)])
def test_wilson_intervals_equal_scipy(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [*range(1, 60), 300])
def test_wilson_does_not_doubt_a_perfect_share(n: int) -> None:
    assert wilson(n, n)[1] == 1.0
    assert wilson(0, n)[0] == 0.0


def test_wilson_without_trials_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_interval_of_a_mean_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(size=400)
    found = true + rng.normal(size=400)
    report = evaluate(Predictions(None, None, found.tolist()), true.tolist(), resamples=2000)
    expected = stats.bootstrap((np.abs(found - true),), np.mean, method="percentile", rng=0).confidence_interval
    assert report["ci"]["mae"] == pytest.approx([expected.low, expected.high], abs=0.01)


def test_the_same_predictions_give_the_same_report() -> None:
    answers, true, _ = _classified()
    assert evaluate(answers, true, classes=CLASSES) == evaluate(answers, true, classes=CLASSES)


def test_slices_report_values_with_enough_rows() -> None:
    answers, true, _ = _classified(n=100)
    places: list[str | None] = ["north"] * 40 + [None] * 35 + ["south"] * 25
    report = evaluate(
        answers,
        true,
        classes=CLASSES,
        slices={"place": places, "few": ["x"] * 20 + ["y"] * 20 + ["z"] * 20 + ["w"] * 20 + ["v"] * 20},
    )
    assert set(report["slices"]) == {"place"}
    assert set(report["slices"]["place"]) == {"north", "(missing)"}
    assert answers.labels is not None
    assert report["slices"]["place"]["north"]["n"] == 40
    assert report["slices"]["place"]["north"]["accuracy"] == pytest.approx(
        reference.accuracy_score(true[:40], answers.labels[:40])
    )


def test_slices_of_a_regression_report_its_figures() -> None:
    values = [float(i % 7) for i in range(60)]
    found = Predictions(None, None, [v + 0.5 for v in values])
    report = evaluate(found, values, slices={"place": ["north"] * 60}, resamples=2)
    assert report["slices"]["place"]["north"]["mae"] == pytest.approx(0.5)


def test_a_report_is_plain_json() -> None:
    answers, true, _ = _classified(("a", "b"))
    text = json.dumps(evaluate(answers, true, classes=("a", "b"), slices={"c": ["x"] * 300}), allow_nan=False)
    assert json.loads(text)["n"] == 300


def test_the_headline_keeps_figures_and_count_only() -> None:
    answers, true, _ = _classified()
    short = headline(evaluate(answers, true, classes=CLASSES, resamples=2))
    assert set(short) == {"n", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"}


class _Echo:
    """Answers each row with its own number and remembers the size of the batches it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, batch: Batch) -> Predictions:
        self.sizes.append(batch.n_rows)
        return Predictions(None, None, list(batch.columns["x"]))


def test_large_batches_are_predicted_in_chunks_in_order() -> None:
    model: Any = _Echo()
    n = evaluation.CHUNK_ROWS * 2 + 5
    answers = evaluation.predict_all(model, Batch(n, {"x": [float(i) for i in range(n)]}))
    assert answers.values == [float(i) for i in range(n)]
    assert model.sizes == [evaluation.CHUNK_ROWS, evaluation.CHUNK_ROWS, 5]


def test_predicting_nothing_gives_no_answers() -> None:
    model: Any = _Echo()
    assert evaluation.predict_all(model, Batch(0, {"x": []})) == Predictions(None, None, None)


def test_a_regression_on_no_rows_has_a_count_and_no_figures() -> None:
    model: Any = _Echo()
    model.task, model.classes, model.schema = "regression", (), Schema(())
    assert evaluation.evaluate_on(model, Rows(Batch(0, {"x": []}), [])) == {"task": "regression", "n": 0}
