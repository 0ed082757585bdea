"""Label leakage: a single column that gives the label away, as a copy of it or something made from it would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset.table import Dataset
from core.errors import DataRejected, Problem
from core.schema import MAX_PROBLEMS, Column

ACCURACY = 0.99
CHANCE = 1e-3  # of a column seeming to be a leak, above which it is not called one
ERROR_KEPT = 0.05  # of the errors of always naming the largest class, what a leak leaves at most
R2 = 0.999
MIN_ROWS = 50
REPEATS = 20  # rows a value has on average from which on its majority needs no proof on other rows
SAMPLE_ROWS = 20_000
Codes = NDArray[np.intp]


def check_leakage(dataset: Dataset, task: str) -> None:
    """Raise DataRejected if one number or category column of several columns gives the label away.

    Each is judged on one half of the rows by what the other half teaches, both ways round; duplicates are never
    in both halves. Texts, images, vectors, and data with one column or under MIN_ROWS rows are not judged.
    """
    _refuse(leaking_columns(dataset, task))


def check_new_leakage(upload: Dataset, known: Dataset, task: str) -> None:
    """Raise DataRejected if a column gives the label away in an upload, and not by chance: it does not elsewhere.

    In what an upload is joined with, its leak would be diluted.
    """
    names = leaking_columns(upload, task)
    _refuse([name for name in names if task == "regression" or not _by_chance(name, upload, known)])


def _by_chance(name: str, upload: Dataset, known: Dataset) -> bool:
    """Return whether a column as good as it is on the known rows could seem without fault on so many others."""
    column = next(column for column in known.columns if column.name == name)
    half = known.keys() % np.uint64(2) == 0
    if half.all() or not half.any():
        return False
    accuracy = _accuracy(column, known.batch.columns[name], _codes(known.labels or []), half)
    return bool(accuracy**upload.n_rows > CHANCE)


def _refuse(names: Sequence[str]) -> None:
    if names:
        problems = tuple(Problem("gives the label away by itself", name) for name in names[:MAX_PROBLEMS])
        message = (
            f"{len(names)} column(s) predict the label alone, as if made from it: {', '.join(names[:5])[:200]}"
        )
        hint = "; leave them out, or set gate.allow_leakage = true"
        raise DataRejected("leakage", message + hint, problems, total=len(names))


def leaking_columns(dataset: Dataset, task: str) -> list[str]:
    """Return the names of the columns that give the label away."""
    if dataset.n_rows < MIN_ROWS or len(dataset.columns) < 2 or dataset.labels is None:
        return []
    rows = np.linspace(0, dataset.n_rows - 1, min(dataset.n_rows, SAMPLE_ROWS)).astype(np.intp)
    sample = dataset.take(rows)
    half = sample.keys() % np.uint64(2) == 0
    if half.all() or not half.any():
        return []
    y: NDArray[Any] = (
        np.asarray(sample.labels, np.float64) if task == "regression" else _codes(sample.labels or [])
    )
    judge = _gives_target if task == "regression" else _gives_class
    names = []
    for column in sample.columns:
        if column.kind in ("number", "category") and judge(column, sample.batch.columns[column.name], y, half):
            names.append(column.name)
    return names


def _codes(cells: Sequence[Any]) -> Codes:
    """Return a number for each distinct cell, missing ones included."""
    known: dict[Any, int] = {}
    return np.asarray([known.setdefault(cell, len(known)) for cell in cells], np.intp)


def _gives_class(column: Column, cells: Any, y: NDArray[Any], half: NDArray[np.bool_]) -> bool:
    share = np.bincount(y).max() / len(y)
    accuracy = _accuracy(column, cells, y, half)
    return accuracy > ACCURACY and bool(1 - accuracy <= ERROR_KEPT * (1 - share))


def _accuracy(column: Column, cells: Any, y: Codes, half: NDArray[np.bool_]) -> float:
    """Return how well one column tells the class, of rows it did not learn from unless its values repeat a lot."""
    codes = _codes(cells)
    if (int(codes.max()) + 1) * REPEATS <= len(y):
        return float((_majority(codes, y, codes) == y).mean())
    x, predict = (np.asarray(cells, np.float64), _tree) if column.kind == "number" else (codes, _majority)
    right = sum(int((predict(x[a], y[a], x[~a]) == y[~a]).sum()) for a in (half, ~half))
    return right / len(y)


def _tree(x: NDArray[Any], y: Codes, unseen: NDArray[Any]) -> Codes:
    from sklearn.tree import DecisionTreeClassifier

    leaves = 4 * (int(y.max()) + 1)
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=2, random_state=0)
    return np.asarray(tree.fit(x[:, None], y).predict(unseen[:, None]), np.intp)


def _majority(x: NDArray[Any], y: Codes, unseen: NDArray[Any]) -> Codes:
    """Return the most frequent class of each value, of all rows for a value not seen."""
    common = int(np.bincount(y).argmax())
    table: dict[int, dict[int, int]] = {}
    for value, label in zip(x.tolist(), y.tolist(), strict=True):
        votes = table.setdefault(value, {})
        votes[label] = votes.get(label, 0) + 1
    best = {value: max(votes, key=lambda label: votes[label]) for value, votes in table.items()}
    return np.asarray([best.get(value, common) for value in unseen.tolist()], np.intp)


def _gives_target(column: Column, cells: Any, y: NDArray[Any], half: NDArray[np.bool_]) -> bool:
    if column.kind == "category":
        codes = _codes(cells)
        return sum(_r2(y[~a], _means(codes[a], y[a], codes[~a])) for a in (half, ~half)) / 2 > R2
    x = np.asarray(cells, np.float64)
    known = ~np.isnan(x)
    x, y = x[known], y[known]
    if len(x) < MIN_ROWS or x.min() == x.max():
        return False
    straight = np.corrcoef(x, y)[0, 1] ** 2
    ranks = np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1] ** 2
    return bool(max(straight, ranks) > R2)


def _means(x: Codes, y: NDArray[Any], unseen: Codes) -> NDArray[Any]:
    """Return the mean target of each value, of all rows for a value not seen."""
    size = int(max(x.max(), unseen.max())) + 1
    counts = np.bincount(x, minlength=size)
    means = np.where(counts > 0, np.bincount(x, y, size) / np.maximum(counts, 1), y.mean())
    return np.asarray(means[unseen])


def _r2(y: NDArray[Any], predicted: NDArray[Any]) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - predicted) ** 2).sum()) / spread if spread else 0.0
