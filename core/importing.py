"""Models from elsewhere → drafts of versions: fitted scikit-learn pipelines (.joblib, .pkl) and ONNX files.

Loading a pickle runs whatever code it holds, so this is the one module that does it, only when told to trust the
file, and never on behalf of a request or an event.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from core import artifact, graphs, parity, samples
from core.artifact import Draft
from core.dissection import VECTOR, Dissected, dissect
from core.errors import ConfigError, FitFailed
from core.features.table import Part, TableBlock
from core.features.vector import VectorBlock
from core.kinds import Block, estimator_kind
from core.model import Predictions
from core.original import Original, graph_answers
from core.schema import Batch, Column, Schema
from core.transformers import level

if TYPE_CHECKING:
    from core.kinds import Sections

SAMPLE_ROWS = 256
# estimators that an own kind carries; the rest goes to ONNX
_KINDS = {
    "linear": (
        "CalibratedClassifierCV ElasticNet Lasso LinearRegression LogisticRegression LogisticRegressionCV Ridge "
        "RidgeCV SGDClassifier SGDRegressor"
    ),
    "naive_bayes": "BernoulliNB ComplementNB GaussianNB MultinomialNB",
    "trees": (
        "DecisionTreeClassifier DecisionTreeRegressor ExtraTreesClassifier ExtraTreesRegressor "
        "HistGradientBoostingClassifier HistGradientBoostingRegressor RandomForestClassifier RandomForestRegressor"
    ),
}
_DAMAGED = (
    pickle.UnpicklingError,
    ImportError,
    AttributeError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AssertionError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Imported:
    """A model taken in, not yet proved. `schema` tells how rows must look; `facts` where it came from.

    `original` answers as the imported model itself does; `outdated` names the scikit-learn that wrote the file,
    if it is another one.
    """

    task: str
    schema: Schema
    classes: tuple[str, ...]
    blocks: tuple[tuple[str, Block], ...]
    estimator: str
    params: dict[str, Any]
    sections: Sections
    original: Callable[[Batch], Predictions]
    sample: Callable[[int], Batch]
    facts: dict[str, Any] = field(default_factory=dict)
    outdated: str | None = None

    def draft(self, name: str, *, rows: Batch | None = None, expected: Sequence[Any] = ()) -> Draft:
        """Return the draft of a version, proved on `rows` (or generated ones) to answer as the original.

        `expected` are the labels or values that the model gave for `rows` where it was made: needed if the file
        comes from another scikit-learn, checked whenever given. Raises FitFailed.
        """
        self._check_expected(rows, expected)
        rows = self.sample(SAMPLE_ROWS) if rows is None else rows
        draft = Draft(
            name,
            self.task,
            self.schema,
            self.classes,
            self.blocks,
            self.estimator,
            self.params,
            self.sections,
            {"imported": self.facts},
            rows,
        )
        trial = artifact.load(artifact.export(draft))
        proof = parity.prove(trial, self.original, rows, bound=parity.bound_of(trial))
        return draft._replace(facts={"imported": self.facts, "parity": proof})

    def _check_expected(self, rows: Batch | None, expected: Sequence[Any]) -> None:
        if not expected:
            if self.outdated is not None:
                raise FitFailed(
                    f"the file was written by scikit-learn {self.outdated}; give rows with the answers expected",
                    reason="version",
                )
            return
        if rows is None or rows.n_rows != len(expected):
            raise ConfigError("there must be one expected answer for each row")
        found = self.original(rows)
        if found.values is not None:
            agree = np.allclose(found.values, np.asarray(expected, np.float64), rtol=1e-6, atol=1e-9)
        else:
            agree = found.labels == [level(item) for item in expected]
        if not agree:
            raise FitFailed("the model does not give the answers expected for the rows", reason="version")


def open_pipeline(path: str, *, trust: bool, text_column: str = "text", names: Sequence[str] = ()) -> Imported:
    """Return the fitted scikit-learn pipeline or estimator in a joblib or pickle file, taken apart.

    `names` are the columns of a pipeline that was fitted on an array; without them it takes one vector column.
    Raises ConfigError unless the file is trusted, FitFailed naming what cannot be carried.
    """
    if not trust:
        raise ConfigError("loading this file runs the code in it: pass --trust if you know where it comes from")
    model, written_by = _unpickled(path)
    parts = dissect(model, text_column=text_column, names=names)
    task, classes = _task(parts.estimator)
    width = sum(block.width for _, block in parts.blocks)
    kind, params, sections = _exported(parts, task, width)
    original = Original(model, parts, task, classes)
    return Imported(
        task,
        Schema(parts.columns),
        classes,
        parts.blocks,
        kind,
        params,
        sections,
        original.predict,
        lambda count: samples.rows(parts, count),
        {**_source(path), "estimator": type(parts.estimator).__name__, "sklearn": written_by},
        written_by,
    )


def _unpickled(path: str) -> tuple[Any, str | None]:
    """Return the object in a trusted file, and the scikit-learn that wrote it if that was another one."""
    import joblib
    from sklearn.exceptions import InconsistentVersionWarning

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = joblib.load(path)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror or type(error).__name__}") from error
    except _DAMAGED as error:
        raise FitFailed(
            f"the file cannot be loaded here: {type(error).__name__}: {error}", reason="import"
        ) from error
    old = [w.message for w in caught if isinstance(w.message, InconsistentVersionWarning)]
    return model, str(old[0].original_sklearn_version) if old else None


def _source(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _task(estimator: Any) -> tuple[str, tuple[str, ...]]:
    from sklearn.base import is_classifier, is_regressor

    if is_regressor(estimator):
        return "regression", ()
    if not is_classifier(estimator):
        name = type(estimator).__name__
        raise FitFailed(f"{name} is neither a classifier nor a regressor", reason="import")
    labels = getattr(estimator, "classes_", ())
    classes = () if isinstance(labels, list) else tuple(str(level(item)) for item in labels)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise FitFailed("the classifier must have at least two classes, and one output", reason="import")
    return "classification", classes


def _exported(parts: Dissected, task: str, width: int) -> tuple[str, dict[str, Any], Sections]:
    """Return kind, params and sections of the estimator; with the steps that no block carries it goes to ONNX."""
    estimator, reason = parts.estimator, ""
    if not parts.rest:
        for kind, names in _KINDS.items():
            if type(estimator).__name__ in names.split():
                try:
                    return kind, *estimator_kind(kind).export(estimator, task, width)
                except FitFailed as error:
                    reason = f"{error.message}; "
    else:
        from sklearn.pipeline import Pipeline

        steps = [*parts.rest, estimator]
        estimator = Pipeline([(f"s{i}", step) for i, step in enumerate(steps)])
        reason = f"{parts.why}; "
    try:
        return "onnx", *estimator_kind("onnx").export(estimator, task, width)
    except FitFailed as error:
        raise FitFailed(reason + error.message, reason="import") from error


def open_graph(
    path: str, *, task: str, classes: Sequence[str] = (), names: Sequence[str] = (), form: str | None = None
) -> Imported:
    """Return an ONNX model of another library.

    `names` are its columns, as numbers; without them it takes one vector column. `classes` are the labels in the
    order of its outputs, if the graph does not name them. Raises ConfigError or FitFailed saying what is wrong.
    """
    if task not in ("classification", "regression"):
        raise ConfigError("task must be classification or regression")
    try:
        with open(path, "rb") as file:
            # no more than there is: read(n) takes memory for n bytes first
            data = file.read(min(os.fstat(file.fileno()).st_size, graphs.MAX_GRAPH_BYTES) + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror or type(error).__name__}") from error
    graph = graphs.adopt(data, task, n_classes=len(classes), form=form)
    if names and len(names) != graph.width:
        raise ConfigError(f"the graph takes {graph.width} columns, not {len(names)}")
    kind, block, columns = _inputs(names, graph.width)
    parts = Dissected((*names,), columns, ((kind, block),), (), None, {})
    labels = tuple(classes) or graph.classes
    return Imported(
        task,
        Schema(columns),
        labels if task == "classification" else (),
        parts.blocks,
        "onnx",
        graph.params,
        graph.sections,
        lambda batch: graph_answers(graph, labels, block.matrix(batch)),
        lambda count: samples.rows(parts, count),
        {**_source(path), "estimator": "ONNX", "sklearn": None},
    )


def _inputs(names: Sequence[str], width: int) -> tuple[str, Block, tuple[Column, ...]]:
    if not names:
        return "vector", VectorBlock(VECTOR, width, None), (Column(VECTOR, "vector", width=width),)
    table = TableBlock(names, [Part("number", name) for name in names])
    return "table", table, tuple(Column(name, "number") for name in names)
