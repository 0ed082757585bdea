"""The proof that a portable model answers as scikit-learn does: row by row and as a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.errors import FitFailed
from core.model import ROW_LIMIT

if TYPE_CHECKING:
    from core.model import Model, Predictions
    from core.schema import Batch

Array = NDArray[Any]

EXACT = 1e-9  # float64 arrays
SINGLE = 1e-6  # float32 arrays
MAX_SINGLE_ROWS = 200
MAX_BATCH_ROWS = 4096


def bound_of(model: Model) -> float:
    """Return the bound that a model's estimator promises: its own, or that of the precision of its arrays."""
    scorer: Any = model.scorer
    return float(getattr(scorer, "bound", EXACT if getattr(scorer, "exact", True) else SINGLE))


def prove(
    model: Model, reference: Callable[[Batch], Predictions], batch: Batch, *, bound: float
) -> dict[str, Any]:
    """Return {"rows", "single_rows", "max_abs_diff", "bound"} of portable answers against scikit-learn's.

    `reference` answers from scikit-learn. Up to MAX_BATCH_ROWS rows go through as one batch and up to
    MAX_SINGLE_ROWS of them, evenly spread, one by one. Probabilities differ by at most `bound`, values by
    at most `bound` x max(1, |y|), and labels are equal unless the two best classes tie within the bound.
    Raises FitFailed with reason "parity" otherwise, or if an answer is not finite.
    """
    if batch.n_rows == 0:
        raise FitFailed("no rows to prove the portable model on", reason="parity")
    chosen = _spread(batch.n_rows, MAX_BATCH_ROWS)
    # a small batch would be answered row by row: repeat it until it takes the other path
    rows = batch.take([chosen[i % len(chosen)] for i in range(max(len(chosen), ROW_LIMIT + 1))])
    single = _spread(len(chosen), MAX_SINGLE_ROWS)
    wanted = reference(rows)
    together = _difference(model.predict(rows), wanted, model.classes, bound)
    alone = [_difference(model.predict(rows.take([i])), _row(wanted, i), model.classes, bound) for i in single]
    worst = max(together, *alone)
    facts: dict[str, Any] = {
        "rows": len(chosen),
        "single_rows": len(single),
        "max_abs_diff": worst,
        "bound": bound,
    }
    if worst > bound:
        facts["max_abs_diff"] = worst if math.isfinite(worst) else None
        raise FitFailed("the portable model does not answer as scikit-learn does", reason="parity", **facts)
    return facts


def _spread(n: int, limit: int) -> list[int]:
    """Return up to `limit` of the indices below n, evenly spread."""
    return list(range(n)) if n <= limit else [i * n // limit for i in range(limit)]


def _row(wanted: Predictions, index: int) -> Predictions:
    return wanted._replace(
        labels=None if wanted.labels is None else wanted.labels[index : index + 1],
        probabilities=None if wanted.probabilities is None else wanted.probabilities[index : index + 1],
        values=None if wanted.values is None else wanted.values[index : index + 1],
    )


def _difference(found: Predictions, wanted: Predictions, classes: tuple[str, ...], bound: float) -> float:
    """Return the largest difference of two answers; infinity for a label that no tie explains."""
    if wanted.values is not None:
        y = np.asarray(wanted.values, np.float64)
        return _largest(np.abs(_floats(found.values, y.shape) - y) / np.maximum(1.0, np.abs(y)))
    proba = np.asarray(wanted.probabilities, np.float64)
    worst = _largest(np.abs(_floats(found.probabilities, proba.shape) - proba))
    for index, (mine, theirs) in enumerate(zip(found.labels or (), wanted.labels or (), strict=True)):
        if mine != theirs:
            row = proba[index]
            if not abs(row[classes.index(mine)] - row[classes.index(theirs)]) <= 2 * bound:
                return math.inf
    return worst


def _floats(answers: Any, shape: tuple[int, ...]) -> Array:
    array = np.asarray(answers, np.float64)
    if array.shape != shape:
        raise FitFailed("the portable model answers in another shape than scikit-learn", reason="parity")
    return array


def _largest(differences: Array) -> float:
    """Return the maximum, infinity if any is NaN (which no comparison would notice)."""
    top = float(differences.max(initial=0.0))
    return math.inf if math.isnan(top) else top
