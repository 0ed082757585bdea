"""Metrics of predictions against labels, with confidence intervals, calibration and slices.

Intervals are 95 %: Wilson's for accuracy (Wilson 1927, "Probable inference, the law of succession, and statistical
inference"), the bootstrap percentile interval for the rest (Efron and Tibshirani 1993, "An introduction to the
bootstrap", chapter 13), seeded, so the same predictions give the same figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.model import Predictions

if TYPE_CHECKING:
    from core.model import Model
    from core.schema import Batch

Array = NDArray[Any]
Metrics = dict[str, Any]

Z95 = 1.959963984540054  # the 0.975 quantile of the standard normal
ECE_BINS = 15
MIN_SLICE_ROWS = 30
MAX_SLICES = 50
RESAMPLES = 400
CHUNK_ROWS = 2048


class Labelled(Protocol):
    """Rows with their labels (a Dataset)."""

    @property
    def batch(self) -> Batch: ...

    @property
    def labels(self) -> Any: ...


def predict_all(model: Model, batch: Batch) -> Predictions:
    """Return the model's answers for a batch of any size, in chunks that bound the memory."""
    indices = range(batch.n_rows)
    parts = [model.predict(batch.take(indices[low : low + CHUNK_ROWS])) for low in indices[::CHUNK_ROWS]]
    return Predictions(
        _joined([part.labels for part in parts]),
        _joined([part.probabilities for part in parts]),
        _joined([part.values for part in parts]),
    )


def _joined(parts: Sequence[list[Any] | None]) -> list[Any] | None:
    return (
        [item for part in parts if part is not None for item in part] if parts and parts[0] is not None else None
    )


def evaluate(
    predictions: Predictions,
    labels: Sequence[Any],
    *,
    classes: Sequence[str] = (),
    slices: Mapping[str, Sequence[str | None]] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Metrics:
    """Return the metrics of `predictions` (class order `classes`) against `labels`, safe to write as JSON.

    A metric that the rows do not define (the area under the curve of one class) is left out. `slices` maps a
    column name to its values, row by row: each value with at least MIN_SLICE_ROWS rows gets its own metrics.
    """
    if predictions.values is not None:
        rows = _Values(np.asarray(predictions.values, np.float64), np.asarray(labels, np.float64))
        return _report(rows, slices or {}, np.random.default_rng(seed), resamples)
    rest = sorted(set(labels) - set(classes))
    answers = _answers(predictions, [*map(str, classes), *rest], labels)
    return _report(answers, slices or {}, np.random.default_rng(seed), resamples)


def _report(
    rows: _Answers | _Values, slices: Mapping[str, Any], rng: np.random.Generator, resamples: int
) -> Metrics:
    n = rows.n
    report: Metrics = {"task": rows.task, "n": n}
    if n == 0:
        return report
    figures = rows.figures(np.ones(n))
    report |= figures
    report["ci"] = _intervals(rows, figures, rng, resamples)
    report |= rows.details()
    found = {column: _sliced(rows, values) for column, values in slices.items()}
    report["slices"] = {column: values for column, values in found.items() if values}
    return report


def _intervals(
    rows: _Answers | _Values, figures: Mapping[str, float], rng: np.random.Generator, resamples: int
) -> dict[str, list[float]]:
    draws: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(resamples):
        weights = np.bincount(rng.integers(0, rows.n, rows.n), minlength=rows.n).astype(np.float64)
        for name, value in rows.figures(weights).items():
            draws.setdefault(name, []).append(value)
    limits = {name: [float(v) for v in np.quantile(d, (0.025, 0.975))] for name, d in draws.items() if d}
    if "accuracy" in figures:
        limits["accuracy"] = list(wilson(round(figures["accuracy"] * rows.n), rows.n))
    return {name: limits[name] for name in figures if name in limits}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share; (0, 1) without trials."""
    if n == 0:
        return 0.0, 1.0
    share, square = successes / n, Z95 * Z95
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # the ends are exact: a rounding error under 1 would read as doubt about a perfect share
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == n else min(1.0, middle + half)


def _sliced(rows: _Answers | _Values, values: Sequence[str | None]) -> dict[str, Any]:
    groups: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault("(missing)" if value is None else value, []).append(index)
    large = sorted((v for v in groups if len(groups[v]) >= MIN_SLICE_ROWS), key=lambda v: (-len(groups[v]), v))
    return {value: rows.slice(np.array(groups[value])) for value in sorted(large[:MAX_SLICES])}


@dataclass(frozen=True)
class _Values:
    """Regression: predicted and true values, shape (n,)."""

    predicted: Array
    true: Array
    task = "regression"

    @property
    def n(self) -> int:
        return len(self.true)

    def figures(self, weights: Array) -> dict[str, float]:
        total, error = weights.sum(), self.predicted - self.true
        mse = float(weights @ error**2 / total)
        figures = {"mae": float(weights @ np.abs(error) / total), "rmse": math.sqrt(mse)}
        spread = float(weights @ (self.true - weights @ self.true / total) ** 2 / total)
        return {"r2": 1.0 - mse / spread, **figures} if spread > 0 else figures

    def details(self) -> Metrics:
        return {"baseline": {"value": float(self.true.mean()), "rmse": float(self.true.std())}}

    def slice(self, indices: Array) -> dict[str, Any]:
        part = _Values(self.predicted[indices], self.true[indices])
        return {"n": part.n, **part.figures(np.ones(part.n))}


class _Answers:
    """Classification: class codes into `names`, shape (n,), and probabilities, shape (n, k), or None."""

    __slots__ = ("_bins", "_gap", "_losses", "_ranking", "names", "predicted", "true")
    task = "classification"

    def __init__(self, predicted: Array, true: Array, proba: Array | None, names: tuple[str, ...]) -> None:
        self.predicted, self.true, self.names = predicted, true, names
        self._losses, self._ranking = None, None
        if proba is None or not len(true):
            return
        tiny = np.finfo(np.float64).eps  # as sklearn.metrics.log_loss clips
        self._losses = -np.log(np.clip(proba[np.arange(len(true)), true], tiny, 1 - tiny))
        sure = proba.max(1)
        self._bins = np.minimum((sure * ECE_BINS).astype(np.int64), ECE_BINS - 1)
        self._gap = (predicted == true) - sure
        if len(names) == 2:
            self._ranking = _Ranking(proba[:, 1], true == 1)

    @property
    def n(self) -> int:
        return len(self.true)

    def counts(self, weights: Array) -> Array:
        """Return the confusion counts, shape (k, k): true class by predicted class."""
        k = len(self.names)
        return np.bincount(self.true * k + self.predicted, weights, k * k).reshape(k, k)

    def figures(self, weights: Array) -> dict[str, float]:
        counts = self.counts(weights)
        hits, support, claimed = counts.diagonal(), counts.sum(1), counts.sum(0)
        seen, either = support > 0, support + claimed > 0
        figures = {
            "accuracy": float(hits.sum() / counts.sum()),
            "balanced_accuracy": float((hits[seen] / support[seen]).mean()),
            "macro_f1": float((2 * hits[either] / (support + claimed)[either]).mean()),
        }
        if self._losses is None:
            return figures
        total = weights.sum()
        figures["log_loss"] = float(weights @ self._losses / total)
        # expected calibration error over equal bins (Naeini et al. 2015)
        figures["ece"] = float(np.abs(np.bincount(self._bins, weights * self._gap, ECE_BINS)).sum() / total)
        area = self._ranking.area(weights) if self._ranking else None
        return figures if area is None else {**figures, "roc_auc": area}

    def details(self) -> Metrics:
        counts = self.counts(np.ones(self.n)).astype(np.int64)
        hits, support, claimed = counts.diagonal(), counts.sum(1), counts.sum(0)
        classes = {
            name: {
                "precision": float(hits[i] / claimed[i]) if claimed[i] else 0.0,
                "recall": float(hits[i] / support[i]) if support[i] else 0.0,
                "support": int(support[i]),
            }
            for i, name in enumerate(self.names)
        }
        common = int(support.argmax())
        baseline = {"label": self.names[common], "accuracy": float(support[common] / self.n)}
        return {
            "classes": classes,
            "confusion": {"labels": list(self.names), "counts": counts.tolist()},
            "baseline": baseline,
        }

    def slice(self, indices: Array) -> dict[str, Any]:
        hits = int((self.predicted[indices] == self.true[indices]).sum())
        n = len(indices)
        return {"n": n, "accuracy": hits / n, "ci": list(wilson(hits, n))}


def _answers(predictions: Predictions, names: Sequence[str], labels: Sequence[str]) -> _Answers:
    code = {name: index for index, name in enumerate(names)}
    true = np.array([code[label] for label in labels], np.int64)
    predicted = np.array([code[label] for label in predictions.labels or ()], np.int64)
    if predictions.probabilities is None or not len(true):
        return _Answers(predicted, true, None, tuple(names))
    proba = np.asarray(predictions.probabilities, np.float64)
    padded = np.pad(proba, ((0, 0), (0, len(names) - proba.shape[1])))
    return _Answers(predicted, true, padded, tuple(names))


class _Ranking:
    """Scores sorted once, so that the area under the ROC curve costs one pass a resample."""

    def __init__(self, scores: Array, positive: Array) -> None:
        self._order = np.argsort(scores, kind="stable")
        ranked = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        self._positive = positive[self._order]

    def area(self, weights: Array) -> float | None:
        """Return P(score of a positive > score of a negative) + ½ P(equal) (Mann and Whitney 1947), or None."""
        ranked = weights[self._order]
        up = np.add.reduceat(np.where(self._positive, ranked, 0.0), self._starts)
        down = np.add.reduceat(np.where(self._positive, 0.0, ranked), self._starts)
        pairs = up.sum() * down.sum()
        if not pairs:
            return None
        below = np.cumsum(down) - down
        return float((up @ (below + down / 2)) / pairs)


# the figures of a report, and whether more of it is better
HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "roc_auc": True,
    "r2": True,
    "log_loss": False,
    "ece": False,
    "mae": False,
    "rmse": False,
}


def headline(metrics: Metrics) -> dict[str, Any]:
    """Return the short form for a log entry: the figures and the count, without intervals and tables."""
    return {name: value for name, value in metrics.items() if name == "n" or name in HIGHER_IS_BETTER}


def evaluate_on(model: Model, data: Labelled, *, resamples: int = RESAMPLES) -> Metrics:
    """Return the metrics of a model on labelled rows, sliced by its category columns."""
    slices = {c.name: data.batch.columns[c.name] for c in model.schema.columns if c.kind == "category"}
    found = predict_all(model, data.batch)
    if model.task == "regression" and found.values is None:
        found = found._replace(values=[])
    return evaluate(found, data.labels, classes=model.classes, slices=slices, resamples=resamples)
