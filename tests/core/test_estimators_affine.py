"""Linear and naive Bayes models: the portable answers are scikit-learn's, row by row and in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB
from sklearn.svm import LinearSVC

from core import affine
from core.artifact import export, load
from core.errors import ConfigError, FitFailed
from core.estimators import linear, naive_bayes
from core.kinds import Csr, estimator_kind, feature_kind
from core.links import link_matrix, link_row
from core.model import Model
from core.schema import Batch, Column
from tests.core.models import LABELS, draft, text_batch

TEXT = [Column("text", "text", {"ngrams": [1, 2]})]
BINARY = ["billing" if label == "billing" else "other" for label in LABELS]
CASES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("linear", "logistic_regression", {"C": 10.0}, LABELS),
    ("linear", "logistic_regression", {}, BINARY),
    ("linear", "logistic_regression", {"solver": "liblinear"}, BINARY),
    ("linear", "sgd", {}, LABELS),
    ("linear", "sgd", {}, BINARY),
    ("linear", "linear_svc", {}, LABELS),
    ("linear", "linear_svc", {"calibration_folds": 2}, BINARY),
    ("naive_bayes", "multinomial", {}, LABELS),
    ("naive_bayes", "complement", {}, LABELS),
    ("naive_bayes", "bernoulli", {}, LABELS),
    ("naive_bayes", "bernoulli", {}, BINARY),
]


def by_row(model: Model, batch: Batch) -> list[list[float]]:
    return [model.predict(batch.take([index])).outputs()[0] for index in range(batch.n_rows)]


def by_batch(model: Model, batch: Batch) -> list[list[float]]:
    model._row_limit = 0
    return model.predict(batch).outputs()


@pytest.mark.parametrize(("kind", "algorithm", "params", "y"), CASES)
def test_text_probabilities_are_those_of_scikit_learn(
    kind: str, algorithm: str, params: dict[str, Any], y: list[str]
) -> None:
    made, fitted, x = draft(TEXT, text_batch(), y, kind=kind, algorithm=algorithm, params=params)
    model = load(export(made))
    expected = fitted.predict_proba(x)
    assert np.abs(np.array(by_row(model, text_batch())) - expected).max() < 1e-12
    assert np.abs(np.array(by_batch(model, text_batch())) - expected).max() < 1e-12
    assert model.predict(text_batch()).labels == list(fitted.classes_[expected.argmax(axis=1)])
    model.replay()


def vectors(n_rows: int = 120, width: int = 6) -> Batch:
    return Batch(n_rows, {"v": np.random.default_rng(1).normal(size=(n_rows, width)).tolist()})


@pytest.mark.parametrize("algorithm", ["ridge", "sgd", "linear_regression"])
def test_regression_values_are_those_of_scikit_learn(algorithm: str) -> None:
    batch = vectors()
    y = np.array(batch.columns["v"]) @ np.arange(6) + 3
    column = [Column("v", "vector", width=6)]
    made, fitted, x = draft(column, batch, y.tolist(), algorithm=algorithm, task="regression")
    model = load(export(made))
    expected = fitted.predict(x).reshape(-1, 1)
    assert np.abs(np.array(by_row(model, batch)) - expected).max() < 1e-9
    assert np.abs(np.array(by_batch(model, batch)) - expected).max() < 1e-9
    assert model.predict(batch).labels is None


def test_gaussian_naive_bayes_gives_the_probabilities_of_scikit_learn() -> None:
    batch = vectors()
    y = ["a" if row[0] + row[1] > 0 else "b" for row in batch.columns["v"]]
    made, fitted, x = draft([Column("v", "vector", width=6)], batch, y, kind="naive_bayes", algorithm="gaussian")
    model = load(export(made))
    expected = fitted.predict_proba(x)
    assert np.abs(np.array(by_row(model, batch)) - expected).max() < 1e-12
    assert np.abs(np.array(by_batch(model, batch)) - expected).max() < 1e-12


def test_gaussian_naive_bayes_takes_sparse_text_too() -> None:
    made, fitted, x = draft(TEXT, text_batch(), LABELS)
    dense = x.toarray()
    gaussian = naive_bayes.build("gaussian", "classification", {}, 0).fit(dense, LABELS)
    params, sections = naive_bayes.export(gaussian, "classification", dense.shape[1])
    model = load(export(made._replace(estimator="naive_bayes", params=params, sections=sections)))
    assert np.abs(np.array(by_batch(model, text_batch())) - gaussian.predict_proba(dense)).max() < 1e-9
    assert fitted is not None


def test_two_columns_share_one_matrix_of_weights() -> None:
    columns = [Column("text", "text"), Column("v", "vector", width=2)]
    numbers = np.random.default_rng(0).normal(size=(12, 2))
    batch = Batch(12, {**text_batch().columns, "v": numbers.tolist()})
    blocks = [feature_kind("text").fit(columns[:1], batch), feature_kind("vector").fit(columns[1:], batch)]
    text_draft, _, x = draft(columns[:1], batch, LABELS)
    both = np.hstack([x.toarray(), np.asarray(blocks[1].matrix(batch))])
    fitted = LogisticRegression(max_iter=1000).fit(both, LABELS)
    params, sections = linear.export(fitted, "classification", both.shape[1])
    pairs = (("text", blocks[0]), ("vector", blocks[1]))
    schema = text_draft.schema._replace(columns=tuple(columns))
    model = load(export(text_draft._replace(schema=schema, blocks=pairs, params=params, sections=sections)))
    expected = fitted.predict_proba(both)
    assert np.abs(np.array(by_row(model, batch)) - expected).max() < 1e-12
    assert np.abs(np.array(by_batch(model, batch)) - expected).max() < 1e-12


def test_wide_models_keep_float32_rows_within_a_millionth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affine, "FLOAT32_FROM", 10)
    made, fitted, x = draft(TEXT, text_batch(), LABELS, params={"C": 100.0})
    model = load(export(made))
    assert model.file.section("estimator/w").dtype == "f4"
    assert np.abs(np.array(by_row(model, text_batch())) - fitted.predict_proba(x)).max() < 1e-6
    assert np.abs(np.array(by_batch(model, text_batch())) - fitted.predict_proba(x)).max() < 1e-6


def test_a_batch_is_scored_in_runs_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fitted, x = draft(TEXT, text_batch(), LABELS)
    model = load(export(made))
    monkeypatch.setattr(affine, "_GATHER_CELLS", 40)
    assert np.abs(np.array(by_batch(model, text_batch())) - fitted.predict_proba(x)).max() < 1e-12


def test_an_empty_batch_and_empty_texts_are_answered() -> None:
    made, fitted, _ = draft(TEXT, text_batch(), LABELS)
    model = load(export(made))
    assert model.predict(Batch(0, {"text": []})).labels == []
    prior = by_row(model, text_batch([""]))[0]
    assert np.allclose(by_batch(model, text_batch(["", "?!"])), [prior, prior])
    assert np.allclose(prior, fitted.predict_proba(np.zeros((1, model.blocks[0].width)))[0])


@pytest.mark.parametrize(
    ("estimator", "named"),
    [
        (LinearSVC(), "LinearSVC"),
        (Perceptron(), "Perceptron"),
        (SGDClassifier(loss="modified_huber"), "loss"),
        (CalibratedClassifierCV(LinearSVC(), cv=2, ensemble=True), "ensemble"),
        (CalibratedClassifierCV(LinearSVC(), cv=2, ensemble=False, method="isotonic"), "sigmoid"),
        (BernoulliNB(), "BernoulliNB"),
    ],
)
def test_a_model_that_cannot_be_carried_is_named(estimator: Any, named: str) -> None:
    x = np.abs(np.random.default_rng(0).normal(size=(12, 3)))
    with pytest.raises(FitFailed, match=named):
        linear.export(estimator.fit(x, LABELS), "classification", 3)


def test_wrong_widths_and_kinds_are_refused_at_export() -> None:
    x = np.abs(np.random.default_rng(0).normal(size=(12, 3)))
    with pytest.raises(FitFailed):
        linear.export(LogisticRegression().fit(x, LABELS), "classification", 4)
    with pytest.raises(FitFailed):
        naive_bayes.export(BernoulliNB().fit(x, LABELS), "classification", 4)
    with pytest.raises(FitFailed):
        naive_bayes.export(CategoricalNB().fit(x.astype(int), LABELS), "classification", 3)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("linear", name) for name in linear.ALGORITHMS] + [("naive_bayes", name) for name in naive_bayes.ALGORITHMS],
)
def test_an_unknown_parameter_is_named(kind: str, algorithm: str) -> None:
    module = estimator_kind(kind)
    for task in module.ALGORITHMS[algorithm]:
        with pytest.raises(ConfigError, match="no_such_thing"):
            module.build(algorithm, task, {"no_such_thing": 1}, 0)


@pytest.mark.parametrize(
    "params",
    [
        {"link": "softmax"},
        {"link": "ovr"},
        {"link": "calibrated", "a": [-1.0, -2.0, 0.5], "b": [0.0, 1.0, -1.0]},
        {"link": "identity"},
    ],
)
def test_a_link_gives_the_same_for_a_row_and_a_batch(params: dict[str, Any]) -> None:
    z = np.array([[0.0, 1.0, -1.0], [800.0, -800.0, 0.0], [-1000.0, -1000.0, -1000.0]])
    rows = np.array([link_row(params, row.tolist()) for row in z])
    assert np.allclose(link_matrix(params, z), rows, atol=1e-15)
    if params["link"] != "identity":
        assert np.allclose(rows.sum(axis=1), 1.0)


def test_a_csr_part_is_taken_by_rows() -> None:
    from core.sparse import dense, row_count, take_rows

    part = Csr(np.array([0, 1, 3]), np.array([1, 0, 2], np.int32), np.array([5.0, 6.0, 7.0]), 3)
    assert dense(take_rows(part, 1, 2)).tolist() == [[6.0, 0.0, 7.0]]
    assert take_rows(np.eye(3), 1, 2).tolist() == [[0.0, 1.0, 0.0]]  # type: ignore[union-attr]
    assert row_count(part) == 2
