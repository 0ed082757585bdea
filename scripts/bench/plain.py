"""Plain scikit-learn pipelines, as one would write them by hand, on the rows of a Dataset. No code of core."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

ESTIMATORS: dict[tuple[str, str], Any] = {
    ("logistic_regression", "classification"): lambda: LogisticRegression(max_iter=1000),
    ("sgd", "classification"): lambda: LogisticRegression(max_iter=1000),
    ("linear_svc", "classification"): LinearSVC,
    ("multinomial", "classification"): MultinomialNB,
    ("complement", "classification"): MultinomialNB,
    ("random_forest", "classification"): lambda: RandomForestClassifier(random_state=0),
    ("extra_trees", "classification"): lambda: ExtraTreesClassifier(random_state=0),
    ("hist_gradient_boosting", "classification"): lambda: HistGradientBoostingClassifier(random_state=0),
    ("random_forest", "regression"): lambda: RandomForestRegressor(random_state=0),
    ("extra_trees", "regression"): lambda: ExtraTreesRegressor(random_state=0),
    ("hist_gradient_boosting", "regression"): lambda: HistGradientBoostingRegressor(random_state=0),
    ("ridge", "regression"): Ridge,
}


def score(kinds: dict[str, str], algorithm: str, task: str, train: Rows, test: Rows) -> float:
    """Return accuracy or R² on `test` of the plain pipeline of the same kind fitted on `train`."""
    steps = [_step(name, kind, position) for position, (name, kind) in enumerate(kinds.items())]
    dense = 0.0 if algorithm.startswith("hist") else 0.3
    features = ColumnTransformer(steps, sparse_threshold=dense)
    pipeline = make_pipeline(features, ESTIMATORS[algorithm, task]())
    pipeline.fit(train.table(list(kinds)), train.labels)
    return float(pipeline.score(test.table(list(kinds)), test.labels))


class Rows:
    """Columns of Python values and labels."""

    def __init__(self, columns: dict[str, Sequence[Any]], labels: Sequence[Any]) -> None:
        self.columns, self.labels = columns, np.asarray(labels)

    def table(self, names: Sequence[str]) -> Any:
        """Return an object array of shape (n_rows, n_columns)."""
        table = np.empty((len(self.labels), len(names)), object)
        for position, name in enumerate(names):
            for row, value in enumerate(self.columns[name]):
                table[row, position] = value
        return table


def _step(name: str, kind: str, position: int) -> tuple[str, Any, Any]:
    if kind == "text":
        return name, TfidfVectorizer(), position
    if kind == "number":
        numbers = FunctionTransformer(lambda x: x.astype(float))
        return name, make_pipeline(numbers, SimpleImputer(strategy="median"), StandardScaler()), [position]
    if kind == "category":
        text = FunctionTransformer(lambda x: np.where(x == None, "missing", x).astype(str))  # noqa: E711
        return name, make_pipeline(text, OneHotEncoder(handle_unknown="ignore")), [position]
    unpack = _pixels if kind == "image" else _stack
    return name, make_pipeline(FunctionTransformer(unpack), StandardScaler()), position


def _stack(column: Any) -> Any:
    return np.stack([np.asarray(value, float) for value in column])


def _pixels(column: Any) -> Any:
    """Return grey pixels in 0..1; files are scaled to 32 x 32."""
    from PIL import Image

    rows = []
    for value in column:
        if isinstance(value, bytes):
            value = np.asarray(Image.open(io.BytesIO(value)).convert("L").resize((32, 32)))  # noqa: PLW2901
        rows.append(np.asarray(value, float).ravel() / 255.0)
    return np.stack(rows)
