"""From a dataset to a fitted model: features, balancing, search and estimator with scikit-learn."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core import search
from core.artifact import Draft
from core.errors import CoreError, DataRejected, FitFailed
from core.kinds import Block, estimator_kind, feature_kind
from core.model import Predictions
from core.pipeline import Rows, assemble, beside, overlaid
from core.schema import Batch, Column, Schema
from core.spec import ModelSpec

Array = NDArray[Any]
Progress = Callable[[str, int, int], None]  # stage, done, total (0: unknown)

MAX_WARNINGS = 10
MAX_CATEGORIES = 1000
LIBRARIES = ("scikit-learn", "numpy", "scipy", "imbalanced-learn")

_ONE_FIT = threading.Lock()  # BLAS threads and warning filters belong to the process


class Data(Protocol):
    """What training needs of a dataset."""

    @property
    def batch(self) -> Batch: ...

    @property
    def labels(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """Fitted features and a fitted scikit-learn estimator, with what happened on the way.

    `dense` tells whether x was an array in training. `facts` is deterministic: no times, no paths.
    """

    spec: ModelSpec
    schema: Schema
    classes: tuple[str, ...]
    blocks: tuple[tuple[str, Block], ...]
    estimator: Any
    dense: bool
    facts: Mapping[str, Any] = field(default_factory=dict)

    def reference(self, batch: Batch) -> Predictions:
        """Return scikit-learn's answers, with scikit-learn's own transformers where a feature kind offers one."""
        with _ONE_FIT, _limited(1):
            parts = [_reference(kind, block, batch) for kind, block in self.blocks]
            return answers(self.estimator, beside(parts, dense=self.dense), self.classes)

    def draft(self, facts: Mapping[str, Any], golden: Batch) -> Draft:
        """Return what an artifact is made of. Raises FitFailed if the estimator's kind cannot carry it."""
        kind = self.spec.estimator.kind
        width = sum(block.width for _, block in self.blocks)
        params, sections = estimator_kind(kind).export(self.estimator, self.spec.task, width)
        return Draft(
            self.spec.name,
            self.spec.task,
            self.schema,
            self.classes,
            self.blocks,
            kind,
            params,
            sections,
            {**self.facts, **facts},
            golden,
        )


def _reference(kind: str, block: Block, batch: Batch) -> Any:
    transformer = feature_kind(kind).reference(block)
    return block.matrix(batch) if transformer is None else transformer.transform(batch)


def answers(estimator: Any, x: Any, classes: Sequence[str]) -> Predictions:
    """Return a fitted scikit-learn estimator's answers for x; its classes are codes into `classes`."""
    if not classes:
        return Predictions(None, None, [float(v) for v in np.ravel(estimator.predict(x))])
    proba = np.asarray(estimator.predict_proba(x), np.float64)
    return Predictions([classes[i] for i in proba.argmax(1)], proba.tolist(), None)


def train(
    spec: ModelSpec,
    data: Data,
    *,
    n_jobs: int = 1,
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
) -> TrainedModel:
    """Return the model fitted on all rows of `data`.

    The same data, spec and seed give the same model on any number of threads. `check` is called before each fit
    and may raise to stop. Raises DataRejected for data that cannot be learnt from, ConfigError for a bad
    parameter, FitFailed if scikit-learn raises.
    """
    if spec.search is not None:
        search.check_scoring(spec.search)
    classes, y = _targets(spec, data.labels)
    rows = Rows(data.batch, spec.columns, check=_counted(check, progress))
    noted: list[dict[str, Any]] = []
    with _ONE_FIT, _guarded(), _limited(n_jobs):
        found, fitted = _fit(spec, rows, y, noted, progress or _silent)
    features, estimator = fitted.named_steps["features"], fitted.named_steps["estimator"].estimator_
    facts = {
        "spec": spec.to_dict(),
        "seed": spec.split.seed,
        "libraries": {name: version(name) for name in LIBRARIES},
        "estimator": {"class": type(estimator).__name__, "params": dict(found.params)},
        "options": dict(found.overlay),
        "search": found.facts,
        "warnings": noted,
    }
    schema = Schema(tuple(_column(overlaid(c, found.overlay), data.batch) for c in spec.columns))
    return TrainedModel(spec, schema, classes, tuple(features.blocks_), estimator, features.dense_, facts)


def _fit(
    spec: ModelSpec, rows: Rows, y: Array, noted: list[dict[str, Any]], progress: Progress
) -> tuple[search.Found, Any]:
    """Return what the search found and the pipeline fitted on all rows with it."""
    x = np.arange(len(y), dtype=np.int64).reshape(-1, 1)
    pipeline = assemble(spec, rows, _smallest(spec, y))
    with _recorded("search", noted):
        found = search.run(spec, pipeline, x, y)
    rows.forget()
    pipeline = assemble(spec, rows, _rarest(y))
    pipeline.named_steps["features"].set_params(**dict(found.overlay))
    pipeline.named_steps["estimator"].set_params(**found.params)
    progress("fit", 0, 1)
    with _recorded("fit", noted):
        pipeline.fit(x, y)
    progress("fit", 1, 1)
    return found, pipeline


def _targets(spec: ModelSpec, labels: Sequence[Any] | None) -> tuple[tuple[str, ...], Array]:
    """Return the classes in order (none for regression) and y: class codes or values, shape (n_rows,)."""
    if not labels:
        raise DataRejected("rows", "no rows to learn from")
    if spec.task == "regression":
        return (), np.asarray(labels, np.float64)
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise DataRejected("classes", f"{len(classes)} class among the training rows; at least 2 are needed")
    y = np.searchsorted(np.asarray(classes, object), np.asarray(labels, object)).astype(np.int64)
    if spec.balance == "smote" and _smallest(spec, y) < 2:
        raise DataRejected("classes", "smote needs at least 2 rows of each class in each fold")
    return classes, y


def _rarest(y: Array) -> int:
    return min(Counter(y.tolist()).values())


def _smallest(spec: ModelSpec, y: Array) -> int:
    """Return how many rows the rarest class has in the smallest fit."""
    folds = search.fold_count(spec, y)
    rarest = _rarest(y)
    return rarest - -(-rarest // folds) if folds else rarest


def _column(column: Column, batch: Batch) -> Column:
    """Return the column with the categories seen, if they are few enough to list."""
    if column.kind != "category" or column.values:
        return column
    seen = sorted({value for value in batch.columns[column.name] if value is not None})
    return column._replace(values=tuple(seen)) if len(seen) <= MAX_CATEGORIES else column


def _silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


def _counted(check: Callable[[], None], progress: Progress | None) -> Callable[[], None]:
    """Return a check that also reports how many feature fits were asked for."""
    if progress is None:
        return check
    asked = 0

    def step() -> None:
        nonlocal asked
        check()
        asked += 1
        progress("features", asked, 0)

    return step


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn what scikit-learn raises into FitFailed; errors of ours and of memory pass."""
    try:
        yield
    except (CoreError, MemoryError, OSError):
        raise
    except Exception as error:  # any failure of a library's fit is one outcome
        raise FitFailed(_cause(error), reason="fit") from error


def _cause(error: Exception) -> str:
    """Return what a fit failed of: the library's words where they tell a rule of a parameter, never a value."""
    kind, text = type(error).__name__, str(error)
    if kind == "InvalidParameterError":
        return f"estimator.params: {text.rpartition(' Got ')[0][:300]}"
    if text.startswith("Negative values in data passed to"):
        return (
            'estimator.algorithm takes no negative values: set scale = "minmax" for the columns, or choose another'
        )
    return f"training raised {kind}"


@contextmanager
def _limited(n_jobs: int) -> Iterator[None]:
    """Run joblib on `n_jobs` threads, BLAS and OpenMP on one.

    The order of BLAS sums must not hang on the number of threads; and OpenMP threads that wait for each other
    spin, which on a busy machine made boosting 20 times slower than one thread alone.
    """
    from joblib import parallel_config
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

    with threadpool_limits({"blas": 1, "openmp": 1}), parallel_config(backend="threading", n_jobs=n_jobs):
        yield


@contextmanager
def _recorded(stage: str, noted: list[dict[str, Any]]) -> Iterator[None]:
    """Record the warnings that libraries give instead of showing them: each once, with its count."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    counts = Counter((type(w.message).__name__, str(w.message).strip().split("\n")[0][:200]) for w in caught)
    for (kind, message), count in sorted(counts.items())[:MAX_WARNINGS]:
        noted.append({"stage": stage, "kind": kind, "message": message, "count": count})
