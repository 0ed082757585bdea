"""Every kind of column and estimator through one door: trained, exported, proved, always the same bytes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from core import corpus
from core.building import Builder, Built, version_id
from core.dataset.checks import check_training
from core.dataset.table import Dataset
from core.errors import ConfigError, FitFailed
from core.model import Predictions
from core.parity import EXACT, SINGLE
from core.schema import Batch
from core.spec import ModelSpec, from_dict
from core.training import TrainedModel, train
from tests.core.toys import messages

COLUMNS = {
    "place": {"kind": "category"},
    "price": {"kind": "number"},
    "size": {"kind": "number"},
    "words": {"kind": "text"},
    "code": {"kind": "vector", "width": 3},
}


def _spec(kind: str, algorithm: str, columns: tuple[str, ...], **more: Any) -> ModelSpec:
    task = more.pop("task", "classification")
    params = more.pop("params", {})
    return from_dict(
        {
            "name": "mixed",
            "task": task,
            "label": "target",
            "columns": {name: COLUMNS[name] for name in columns},
            "estimator": {"kind": kind, "algorithm": algorithm, "params": params},
            **more,
        }
    )


def _dataset(spec: ModelSpec, n: int = 160, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    price, size = rng.normal(10, 3, n), rng.exponential(2, n)
    place = rng.choice(["north", "south", "west"], n)
    words = messages(n, seed, topics=("login", "billing"))
    code = rng.normal(size=(n, 3))
    score = (price - 10) / 3 + (place == "north") + code[:, 0] + rng.normal(0, 0.5, n)
    score += np.where(np.array(words.labels) == "login", 1.0, -1.0)
    price[rng.random(n) < 0.05] = np.nan
    cells: dict[str, Any] = {
        "place": place.tolist(),
        "price": price.tolist(),
        "size": size.tolist(),
        "words": list(words.batch.columns["text"]),
        "code": code,
    }
    labels: Any = score.tolist() if spec.task == "regression" else np.where(score > 0, "high", "low").tolist()
    batch = Batch(n, {column.name: cells[column.name] for column in spec.columns})
    return Dataset(spec.columns, batch, labels, seed=spec.split.seed)


def _build(spec: ModelSpec, builder: Builder | None = None) -> Built:
    dataset = _dataset(spec)
    return (builder or Builder()).build(spec, corpus.first(dataset, spec), check_training(dataset, spec))


TABLE = ("place", "price", "size")
ALL = (*TABLE, "words", "code")
KINDS = [
    ("linear", "logistic_regression", ALL, {}),
    ("linear", "linear_svc", ALL, {"max_iter": 5000}),
    ("linear", "sgd", ALL, {}),
    ("naive_bayes", "gaussian", ("price", "size", "code"), {}),
    ("naive_bayes", "multinomial", ("words",), {}),
    ("trees", "random_forest", ALL, {"n_estimators": 12}),
    ("trees", "extra_trees", TABLE, {"n_estimators": 12}),
    ("trees", "hist_gradient_boosting", ALL, {"max_iter": 12}),
]


BOUNDS = {"random_forest": 0.0, "extra_trees": 0.0, "hist_gradient_boosting": 4e-15}  # trees: equal


@pytest.mark.parametrize(("kind", "algorithm", "columns", "params"), KINDS)
def test_every_kind_is_proved_equal_to_scikit_learn_and_learns(
    kind: str, algorithm: str, columns: tuple[str, ...], params: dict[str, Any]
) -> None:
    built = _build(_spec(kind, algorithm, columns, params=params))
    proof = built.model.manifest["facts"]["parity"]
    assert proof["max_abs_diff"] <= proof["bound"] == BOUNDS.get(algorithm, EXACT)
    assert built.metrics["accuracy"] > 0.5
    built.model.replay()


@pytest.mark.parametrize(
    ("kind", "algorithm", "params"),
    [
        ("linear", "ridge", {}),
        ("linear", "linear_regression", {}),
        ("trees", "random_forest", {"n_estimators": 12}),
        ("trees", "hist_gradient_boosting", {"max_iter": 12}),
    ],
)
def test_every_regression_is_proved_too(kind: str, algorithm: str, params: dict[str, Any]) -> None:
    built = _build(_spec(kind, algorithm, ("place", "price", "code"), task="regression", params=params))
    assert built.model.manifest["facts"]["parity"]["max_abs_diff"] <= EXACT
    assert built.metrics["r2"] > 0.2
    assert built.model.classes == ()


def test_an_onnx_estimator_is_held_to_its_own_stated_bound() -> None:
    built = _build(_spec("onnx", "sklearn.neighbors.KNeighborsClassifier", TABLE))
    proof = built.model.manifest["facts"]["parity"]
    assert proof["max_abs_diff"] <= proof["bound"]
    assert proof["bound"] >= SINGLE


@pytest.mark.parametrize(
    ("kind", "algorithm", "columns", "params"),
    [
        ("trees", "random_forest", ALL, {"n_estimators": 12}),
        ("trees", "hist_gradient_boosting", TABLE, {"max_iter": 2}),
        ("linear", "logistic_regression", ALL, {}),
    ],
)
def test_one_thread_and_two_give_the_same_bytes(
    kind: str, algorithm: str, columns: tuple[str, ...], params: dict[str, Any]
) -> None:
    spec = _spec(kind, algorithm, columns, params=params)
    shas = {hashlib.sha256(_build(spec, Builder(n_jobs=n)).data).hexdigest() for n in (1, 2, 1)}
    assert len(shas) == 1


@pytest.mark.parametrize("balance", ["oversample", "smote", "class_weight"])
def test_balancing_works_on_mixed_columns(balance: str) -> None:
    built = _build(_spec("linear", "logistic_regression", ALL, balance=balance))
    assert built.metrics["accuracy"] > 0.6


def test_class_weights_reach_the_estimator_inside_a_calibration() -> None:
    dataset = _dataset(spec := _spec("linear", "linear_svc", TABLE, balance="class_weight"))
    assert train(spec, dataset).estimator.estimator.class_weight == "balanced"


def test_metrics_are_sliced_by_the_category_columns() -> None:
    spec = _spec("linear", "logistic_regression", TABLE)
    dataset = _dataset(spec, n=900)
    built = Builder().build(spec, corpus.first(dataset, spec), check_training(dataset, spec))
    assert set(built.metrics["slices"]["place"]) == {"north", "south", "west"}


def test_the_categories_seen_stand_in_the_schema() -> None:
    column = _build(_spec("linear", "logistic_regression", TABLE)).model.schema.columns[0]
    assert (column.name, column.values) == ("place", ("north", "south", "west"))


def test_rare_classes_are_dropped_where_the_spec_says_so() -> None:
    spec = _spec("linear", "logistic_regression", TABLE, labels={"rare": "drop", "min_rows": 5})
    dataset = _dataset(spec)
    labels: Any = dataset.labels
    labels[0] = "odd"
    rows = corpus.Corpus(dataset, dataset.take(range(100, 160)), (), dataset, None, {})
    built = Builder().build(spec, rows, check_training(dataset, spec))
    assert built.model.classes == ("high", "low")


def test_a_portable_model_that_answers_otherwise_is_never_built() -> None:
    class Bent(TrainedModel):
        def reference(self, batch: Batch) -> Predictions:
            found = super().reference(batch)
            return found._replace(probabilities=[[q, p] for p, q in found.probabilities or ()])

    def bent(*args: Any, **options: Any) -> TrainedModel:
        model = train(*args, **options)
        return Bent(**{name: getattr(model, name) for name in TrainedModel.__dataclass_fields__})

    with pytest.raises(FitFailed) as failure:
        _build(_spec("linear", "logistic_regression", TABLE), Builder(train=bent))
    assert failure.value.fields["reason"] == "parity"


def test_an_unknown_gate_metric_is_refused_before_the_training() -> None:
    spec = _spec("linear", "logistic_regression", TABLE, gate={"metric": "luck"})

    def never(*args: Any, **options: Any) -> TrainedModel:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"gate\.metric"):
        _build(spec, Builder(train=never))


def test_a_version_id_hangs_on_source_and_spec() -> None:
    spec, other = _spec("linear", "sgd", TABLE), _spec("linear", "sgd", ALL)
    assert version_id("a" * 32, spec) == version_id("a" * 32, spec)
    assert len({version_id("a" * 32, spec), version_id("b" * 32, spec), version_id("a" * 32, other)}) == 3
    assert version_id("a" * 32, spec).startswith("v-")
