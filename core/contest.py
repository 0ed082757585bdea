"""Which of a few candidate specs suits the data best, by cross-validation with the models that would serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset.table import Dataset
from core.errors import DataRejected, FitFailed
from core.spec import ModelSpec
from core.training import train

Step = Callable[[int, int], None]  # done, total


def scores(
    specs: Sequence[ModelSpec],
    dataset: Dataset,
    *,
    folds: int,
    repeats: int = 1,
    n_jobs: int = 1,
    step: Step | None = None,
) -> NDArray[np.float64]:
    """Return accuracy or R² of each spec in each fold, shape (n_specs, repeats * folds).

    Folds follow the row digests, so duplicates never cross. Classes that a training part lacks are not learnt.
    A spec that cannot learn from a fold scores -inf there; a fold with nothing to learn or to test is all zeros.
    """
    table = np.zeros((len(specs), folds * repeats))
    for turn in range(folds * repeats):
        held = _fold(dataset.keys(), turn // folds) % folds == turn % folds
        kept = _learnable(dataset.take(np.flatnonzero(~held)))
        test = dataset.take(np.flatnonzero(held))
        for place, spec in enumerate(specs):
            if test.n_rows and len(set(kept.labels or [])) > 1:
                table[place, turn] = _trial(spec, kept, test, n_jobs)
            if step is not None:
                step(turn * len(specs) + place + 1, table.size)
    return table


def _trial(spec: ModelSpec, kept: Dataset, test: Dataset, n_jobs: int) -> float:
    try:
        answers = train(spec, kept, n_jobs=n_jobs).reference(test.batch)
    except (DataRejected, FitFailed):
        return -np.inf
    return _score(answers.labels or answers.values or [], test.labels or [])


def _fold(keys: NDArray[np.uint64], repeat: int) -> NDArray[np.uint64]:
    """Return bits of the digests that the holdout does not depend on, other ones for each repeat."""
    return (keys >> np.uint64(8 * repeat)) & np.uint64(0xFFFFFF)


def _learnable(dataset: Dataset) -> Dataset:
    """Return the rows of classes that have at least two (boosting and calibration need that)."""
    labels: Sequence[Any] = dataset.labels or []
    if labels and not isinstance(labels[0], str):
        return dataset
    counts = Counter(labels)
    return dataset.take([row for row, label in enumerate(labels) if counts[label] > 1])


def _score(answers: Sequence[Any], labels: Sequence[Any]) -> float:
    if isinstance(labels[0], str):
        return float(np.mean([answer == label for answer, label in zip(answers, labels, strict=True)]))
    y, predicted = np.asarray(labels), np.asarray(answers)
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - predicted) ** 2).sum()) / spread if spread else 0.0
