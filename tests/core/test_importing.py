"""Imported models: what is carried answers as the original; what is not says which step and why."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_sampled
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from core import artifact, importing
from core.dissection import _carried
from core.errors import ConfigError, FitFailed
from core.importing import Imported
from core.schema import Batch
from core.transformers import Raw
from tests.core.carried import served

RNG = np.random.default_rng(0)
WORDS = "red green blue card parcel late invoice refund Reset pass-word tracking the a of".split()  # noqa: SIM905
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(3, 15))) for _ in range(200)]
TOPICS = ["money" if "card" in text or "refund" in text else "other" for text in TEXTS]
IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """OpenMP threads that wait for a busy core wait by spinning."""
    with threadpool_limits(1):
        yield


def logistic(**params: Any) -> LogisticRegression:
    return LogisticRegression(max_iter=5000, **params)


def mixed() -> tuple[Any, Any]:
    """A table of a number with gaps, a number, a category and a text."""
    table = np.empty((200, 4), object)
    table[:, 0] = RNG.normal(size=200) * 50 + 20
    table[RNG.random(200) < 0.1, 0] = np.nan
    table[:, 1] = RNG.integers(0, 100, 200).astype(float)
    table[:, 2] = RNG.choice(["Paris", "Rome", "Oslo"], 200)
    table[:, 3] = TEXTS
    return table, ((table[:, 2] == "Rome") | (table[:, 1] > 50)).astype(int)


def opened(folder: Path, model: Any, **more: Any) -> Imported:
    joblib.dump(model, folder / "m.joblib")
    return importing.open_pipeline(str(folder / "m.joblib"), trust=True, **more)


def columns(**more: Any) -> ColumnTransformer:
    numbers = FeatureUnion(
        [("value", make_pipeline(SimpleImputer(), StandardScaler())), ("gap", MissingIndicator())]
    )
    return ColumnTransformer(
        [
            ("numbers", numbers, [0]),
            ("plain", "passthrough", slice(1, 2)),
            ("text", make_pipeline(CountVectorizer(), TfidfTransformer()), 3),
            ("places", OneHotEncoder(handle_unknown="ignore"), np.array([False, False, True, False])),
        ],
        **more,
    )


TEXT_MODELS: list[tuple[Any, str]] = [
    (make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), logistic()), "linear"),
    (make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True), MultinomialNB()), "naive_bayes"),
    (make_pipeline(CountVectorizer(binary=True), RandomForestClassifier(n_estimators=5)), "trees"),
    (make_pipeline(HashingVectorizer(n_features=4096), SGDClassifier(loss="log_loss")), "linear"),
    (make_pipeline(TfidfVectorizer(), TruncatedSVD(5), logistic()), "onnx"),
    (make_pipeline(TfidfVectorizer(), SelectKBest(k=5), KNeighborsClassifier()), "onnx"),
]


@pytest.mark.parametrize(("model", "kind"), TEXT_MODELS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_text_pipeline_answers_as_before(tmp_path: Path, model: Any, kind: str) -> None:
    taken = opened(tmp_path, model.fit(TEXTS, TOPICS), text_column="message")
    assert taken.estimator == kind
    assert taken.classes == ("money", "other")
    assert [(c.name, c.kind) for c in taken.schema.columns] == [("message", "text")]
    found = served(taken).predict(Batch(200, {"message": TEXTS}))
    assert found.labels == model.predict(TEXTS).tolist()
    assert np.abs(np.array(found.probabilities) - model.predict_proba(TEXTS)).max() < 1e-6


ARRAY_MODELS: list[tuple[Any, Any, str, str]] = [
    (logistic(), IRIS, "linear", "vector"),
    (make_pipeline(StandardScaler(), logistic()), IRIS, "linear", "vector"),
    (
        make_pipeline(StandardScaler(with_mean=False), "passthrough", logistic()),
        IRIS,
        "linear",
        "vector",
    ),
    (make_pipeline(MinMaxScaler(), RandomForestClassifier(n_estimators=5)), IRIS, "trees", "number"),
    (make_pipeline(SimpleImputer(), StandardScaler(), logistic()), IRIS, "linear", "number"),
    (make_pipeline(StandardScaler(), PCA(2), logistic()), IRIS, "onnx", "vector"),
    (
        make_sampled(StandardScaler(), RandomOverSampler(random_state=0), logistic()),
        IRIS,
        "linear",
        "vector",
    ),
    (GridSearchCV(make_pipeline(StandardScaler(), logistic()), {}, cv=2), IRIS, "linear", "vector"),
    (CalibratedClassifierCV(LinearSVC(), cv=2), IRIS, "onnx", "vector"),
    (HistGradientBoostingRegressor(max_iter=9), DIABETES, "trees", "vector"),
    (LinearRegression(), DIABETES, "linear", "vector"),
    (make_pipeline(StandardScaler(), PoissonRegressor()), DIABETES, "onnx", "vector"),
    (make_pipeline(PolynomialFeatures(2), Ridge(alpha=5.0)), DIABETES, "onnx", "vector"),
]


@pytest.mark.parametrize(("model", "data", "kind", "column"), ARRAY_MODELS, ids=range(len(ARRAY_MODELS)))
def test_a_pipeline_of_arrays_answers_as_before(
    tmp_path: Path, model: Any, data: Any, kind: str, column: str
) -> None:
    x, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    taken = opened(tmp_path, model)
    assert (taken.estimator, taken.schema.columns[0].kind) == (kind, column)
    rows = {"features": x.tolist()}
    if column == "number":
        rows = {c.name: x[:, i].tolist() for i, c in enumerate(taken.schema.columns)}
    found = served(taken).predict(Batch(len(x), rows))
    if taken.task == "regression":
        assert np.allclose(found.values or [], model.predict(x), rtol=1e-4)
    else:
        assert found.labels == [str(label) for label in model.predict(x)]


def test_names_of_columns_can_be_given_or_come_with_the_pipeline(tmp_path: Path) -> None:
    x, y = IRIS
    fitted = make_pipeline(StandardScaler(), logistic()).fit(x, y)
    names = ("a", "b", "c", "d")
    taken = opened(tmp_path, fitted, names=names)
    assert tuple(c.name for c in taken.schema.columns) == names
    served(taken)
    fitted.steps[0][1].feature_names_in_ = np.array(["p", "q", "r", "s"], object)
    assert [c.name for c in opened(tmp_path, fitted).schema.columns] == ["p", "q", "r", "s"]
    with pytest.raises(FitFailed, match="takes 4 columns, not 2"):
        opened(tmp_path, fitted, names=("a", "b"))


def test_a_column_transformer_of_every_kind_of_column_answers_as_before(tmp_path: Path) -> None:
    table, y = mixed()
    for estimator in (logistic(), RandomForestClassifier(n_estimators=5)):
        fitted = make_pipeline(columns(), estimator).fit(table, y)
        taken = opened(tmp_path, fitted)
        kinds = {c.name: c.kind for c in taken.schema.columns}
        assert kinds == {"x0": "number", "x1": "number", "x2": "category", "x3": "text"}
        assert [kind for kind, _ in taken.blocks] == ["table", "text", "table"]
        model = served(taken)
        cells = {name: table[:, i].tolist() for i, name in enumerate(kinds)}
        found = np.array(model.predict(Batch(200, cells)).probabilities)
        assert np.abs(found - fitted.predict_proba(table)).max() < 1e-9


def test_steps_behind_a_table_go_on_as_far_as_they_are_known(tmp_path: Path) -> None:
    table = RNG.normal(size=(120, 3))
    y = (table[:, 0] > 0).astype(int)
    two = ColumnTransformer([("a", MinMaxScaler(), [2, 0]), ("rest", "drop", [1])], remainder="passthrough")
    known = make_pipeline(two, StandardScaler(), logistic()).fit(table, y)
    assert opened(tmp_path, known).estimator == "linear"
    served(opened(tmp_path, known))
    unknown = make_pipeline(two, PCA(2), logistic()).fit(table, y)
    taken = opened(tmp_path, unknown)
    assert taken.estimator == "onnx"
    assert [c.name for c in taken.schema.columns] == ["x0", "x2"]
    served(taken)


def test_numeric_levels_and_string_slices_are_understood(tmp_path: Path) -> None:
    table = np.column_stack([RNG.integers(1, 4, 90), RNG.integers(0, 2, 90)])
    y = table[:, 0] == 2
    coded = make_pipeline(OneHotEncoder(handle_unknown="ignore"), logistic()).fit(table, y)
    taken = opened(tmp_path, coded)
    assert taken.classes == ("false", "true")
    model = served(taken)
    asked = model.schema.batch([{"x0": 2, "x1": 0}, {"x0": "2", "x1": 7}, {"x0": 9.5, "x1": None}])
    assert model.predict(asked).labels == ["true", "true", "false"]
    named = ColumnTransformer([("codes", OrdinalEncoder(), slice(0, 2))])
    fitted = make_pipeline(named, logistic()).fit(table, y)
    fitted.steps[0][1].feature_names_in_ = np.array(["p", "q"], object)
    fitted.steps[0][1].transformers_[0] = ("codes", *fitted.steps[0][1].transformers_[0][1:2], slice("p", "q"))
    served(opened(tmp_path, fitted))
    fitted.steps[0][1].transformers_[0] = (
        "codes",
        *fitted.steps[0][1].transformers_[0][1:2],
        slice(None, None, None),
    )
    served(opened(tmp_path, fitted))


def in_columns(*transformers: Any, **more: Any) -> Any:
    table, y = mixed()
    return make_pipeline(ColumnTransformer(list(transformers), **more), logistic()).fit(table, y)


def fitted_on_iris(*steps: Any) -> Any:
    return make_pipeline(*steps).fit(*IRIS)


def two_labels() -> Any:
    x, y = IRIS
    return MultiOutputClassifier(logistic()).fit(x, np.column_stack([y, y]))


def of_texts(vectorizer: Any) -> Any:
    return make_pipeline(vectorizer, logistic()).fit(TEXTS, TOPICS)


def of_words(*steps: Any) -> Any:
    return make_pipeline(*steps, logistic()).fit(np.array([["a", "b"], ["c", "d"]] * 5, object), [0, 1] * 5)


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: LinearSVC().fit(*IRIS), "LinearSVC has no probabilities"),
    (lambda: KMeans(2, n_init=1).fit(IRIS[0]), "KMeans is neither a classifier nor a regressor"),
    (lambda: {"weights": [1, 2]}, "no fitted scikit-learn estimator"),
    (lambda: make_pipeline(StandardScaler()), "no fitted scikit-learn estimator"),
    (logistic, "LogisticRegression is not fitted"),
    (two_labels, "at least two classes"),
    (
        lambda: fitted_on_iris(FunctionTransformer(np.log1p), logistic()),
        "step functiontransformer: FunctionTransformer holds a Python function",
    ),
    (lambda: of_texts(TfidfVectorizer(tokenizer=str.split, token_pattern=None)), "tokenizer"),
    (
        lambda: in_columns(("plain", "passthrough", [1]), transformer_weights={"plain": 2.0}),
        "step columntransformer: transformer_weights",
    ),
    (
        lambda: in_columns(("inner", make_pipeline(StandardScaler(), PCA(1)), [1])),
        "step columntransformer: inner: pca: PCA has no",
    ),
    (
        lambda: in_columns(("t", make_pipeline(CountVectorizer(), TruncatedSVD(2)), 3)),
        "step columntransformer: TruncatedSVD behind a text vectorizer",
    ),
    (lambda: in_columns(("n", "passthrough", [1]), ("c", OrdinalEncoder(), [1])), "column x1 is read in two ways"),
    (lambda: of_words(FunctionTransformer(np.array), OneHotEncoder()), "step functiontransformer"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_cannot_be_carried_says_which_step_and_why(tmp_path: Path, make: Any, why: str) -> None:
    taken = make()
    with pytest.raises(FitFailed, match=why):
        opened(tmp_path, taken)


def test_a_category_that_no_encoder_takes_is_refused() -> None:
    with pytest.raises(FitFailed, match="column x0 is a category without an encoder"):
        _carried([Raw("x0")], [("estimator", None)], 0)


class Trap:
    """An object whose pickle leaves a marker when it is loaded."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("form", ["joblib", "pickle"])
def test_nothing_is_unpickled_without_trust(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "m.joblib", tmp_path / "marker"
    joblib.dump(Trap(str(marker)), path) if form == "joblib" else path.write_bytes(pickle.dumps(Trap(str(marker))))
    with pytest.raises(ConfigError, match="--trust"):
        importing.open_pipeline(str(path), trust=False)
    assert not marker.exists()
    with pytest.raises(FitFailed, match="no fitted"):
        importing.open_pipeline(str(path), trust=True)
    assert marker.exists()


def test_a_file_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        importing.open_pipeline(str(tmp_path / "nothing"), trust=True)
    for rubbish in (b"", b"rubbish", b"\x80\x04\x95", b"cnowhere.module\nThing\n.", b"ZF0x50000000000000"):
        (tmp_path / "m").write_bytes(rubbish)
        with pytest.raises(FitFailed, match="cannot be loaded here"):
            importing.open_pipeline(str(tmp_path / "m"), trust=True)


def old_file(folder: Path) -> tuple[str, Any]:
    """A pipeline as another scikit-learn would have written it."""
    fitted = make_pipeline(StandardScaler(), logistic()).fit(*IRIS)
    sink = io.BytesIO()
    joblib.dump(fitted, sink)
    version = sklearn.__version__.encode()
    path = folder / "old.joblib"
    path.write_bytes(sink.getvalue().replace(version, b"0" * (len(version) - 2) + b".9"))
    return str(path), fitted


def test_another_scikit_learn_needs_expected_answers(tmp_path: Path) -> None:
    path, fitted = old_file(tmp_path)
    taken = importing.open_pipeline(path, trust=True)
    assert taken.outdated is not None
    assert taken.facts["sklearn"] == taken.outdated
    x = IRIS[0][::10]
    rows = Batch(len(x), {"features": x.tolist()})
    labels = [str(label) for label in fitted.predict(x)]
    with pytest.raises(FitFailed, match="written by scikit-learn"):
        taken.draft("m")
    with pytest.raises(FitFailed, match="does not give the answers expected"):
        taken.draft("m", rows=rows, expected=labels[::-1])
    with pytest.raises(ConfigError, match="one expected answer for each row"):
        taken.draft("m", rows=rows, expected=labels[:2])
    assert taken.draft("m", rows=rows, expected=labels).facts["imported"]["sklearn"] == taken.outdated
    assert taken.draft("m", rows=rows, expected=fitted.predict(x).tolist()).name == "m"


def test_expected_values_of_a_regression_are_checked_too(tmp_path: Path) -> None:
    x, y = DIABETES
    fitted = Ridge().fit(x, y)
    taken = opened(tmp_path, fitted)
    rows = Batch(5, {"features": x[:5].tolist()})
    taken.draft("m", rows=rows, expected=fitted.predict(x[:5]).tolist())
    with pytest.raises(FitFailed, match="expected"):
        taken.draft("m", rows=rows, expected=(fitted.predict(x[:5]) + 1).tolist())


def test_a_pipeline_that_cannot_be_proved_is_refused(tmp_path: Path) -> None:
    taken = opened(tmp_path, logistic().fit(*IRIS))
    lying = logistic(C=0.01).fit(*IRIS)
    other = opened(tmp_path, lying)
    with pytest.raises(FitFailed, match="does not answer as scikit-learn"):
        Imported(
            taken.task, taken.schema, taken.classes, taken.blocks, taken.estimator, taken.params, taken.sections,
            other.original, taken.sample,
        ).draft("m")  # fmt: skip


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    fitted = make_pipeline(TfidfVectorizer(), logistic()).fit(TEXTS, TOPICS)
    one, two = (artifact.export(opened(tmp_path, fitted).draft("m")) for _ in range(2))
    assert one == two
