"""What a data set must be before anything is learnt from it: enough rows and classes, no leak, no overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from core.dataset.leakage import check_leakage
from core.dataset.table import Dataset
from core.errors import DataRejected, Problem
from core.schema import MAX_PROBLEMS
from core.spec import ModelSpec
from core.tuples import NamedTuple

MIN_ROWS = 10
MAX_CLASSES = 1000


class Checked(NamedTuple):
    """Data that passed. `dataset` lacks the rows of rare classes if the spec drops those.

    `duplicates` counts rows whose features an earlier row has; `conflicts` those of them with another label.
    """

    dataset: Dataset
    classes: Mapping[str, int]
    duplicates: int
    conflicts: int
    notes: tuple[str, ...]


def check_training(dataset: Dataset, spec: ModelSpec, *, known_classes: Collection[str] = ()) -> Checked:
    """Return the data with what is remarkable about it.

    `known_classes` are those of the model that serves now. Raises DataRejected: rows, classes, leakage.
    """
    notes = list(dataset.notes)
    if dataset.n_quarantined:
        notes.append(f"{dataset.n_quarantined} row(s) with bad cells were set aside")
    if spec.task == "classification":
        dataset = _without_rare(dataset, spec, notes)
    if dataset.n_rows < MIN_ROWS:
        raise DataRejected(
            "rows", f"{dataset.n_rows} rows are too few to learn from; at least {MIN_ROWS} are needed"
        )
    classes = _check_classes(dataset, spec, known_classes)
    notes += [f"column {name} has the same value in every row" for name in constant_columns(dataset)]
    if not spec.gate.allow_leakage:
        check_leakage(dataset, spec.task)
    duplicates, conflicts = count_duplicates(dataset)
    if conflicts:
        notes.append(f"{conflicts} row(s) have the features of an earlier row and another label")
    return Checked(dataset, classes, duplicates, conflicts, tuple(notes))


def _labels(dataset: Dataset) -> Sequence[Any]:
    if dataset.labels is None:
        raise ValueError("the dataset has no labels")
    return dataset.labels


def _without_rare(dataset: Dataset, spec: ModelSpec, notes: list[str]) -> Dataset:
    """Return the data without the classes that have too few rows, or raise, as the spec says."""
    counts = Counter(_labels(dataset))
    least = spec.labels.min_rows
    rare = sorted(name for name, count in counts.items() if count < least)
    if not rare:
        return dataset
    if spec.labels.rare == "error":
        problems = tuple(Problem(f"class {name[:64]} has {counts[name]} row(s)", spec.label) for name in rare)
        message = f'{len(rare)} class(es) have fewer than {least} rows; add rows or set labels.rare = "drop"'
        raise DataRejected("classes", message, problems[:MAX_PROBLEMS], total=len(rare))
    lost = sum(counts[name] for name in rare)
    notes.append(f"{lost} row(s) of {len(rare)} class(es) with fewer than {least} rows were dropped")
    gone = set(rare)
    return dataset.take([row for row, label in enumerate(_labels(dataset)) if label not in gone])


def _check_classes(dataset: Dataset, spec: ModelSpec, known: Collection[str]) -> dict[str, int]:
    if spec.task != "classification":
        if min(_labels(dataset)) == max(_labels(dataset)):
            raise DataRejected("classes", "every row has the same target; there is nothing to learn")
        return {}
    counts = dict(sorted(Counter(_labels(dataset)).items()))
    if len(counts) < 2:
        raise DataRejected("classes", "every row has the same class; there is nothing to learn")
    if len(counts) > MAX_CLASSES:
        message = f"the label has {len(counts)} classes, the limit is {MAX_CLASSES}; is it the right column?"
        raise DataRejected("classes", message, limit=MAX_CLASSES)
    new = sorted(set(counts) - set(known)) if known and spec.labels.new == "error" else []
    lost = sorted(set(known) - set(counts))
    if new or lost:
        raise _changed_classes(new, lost, spec.label)
    return counts


def _changed_classes(new: Sequence[str], lost: Sequence[str], label: str) -> DataRejected:
    problems = [Problem(f"class {name[:64]} is unknown to the serving model", label) for name in new]
    problems += [Problem(f"class {name[:64]} of the serving model has no rows", label) for name in lost]
    message = f'{len(new)} new and {len(lost)} lost class(es); labels.new = "accept" lets new ones in'
    return DataRejected("classes", message, tuple(problems[:MAX_PROBLEMS]), total=len(problems))


def constant_columns(dataset: Dataset) -> list[str]:
    """Return the number and category columns that have one value (or none) in all rows."""
    found = []
    for column in dataset.columns:
        cells = dataset.batch.columns[column.name]
        if column.kind == "number":
            x = np.asarray(cells, np.float64)
            x = x[~np.isnan(x)]
            same = not len(x) or bool((x == x[0]).all())
        else:
            same = column.kind == "category" and len(set(cells)) == 1
        if same:
            found.append(column.name)
    return found


def count_duplicates(dataset: Dataset) -> tuple[int, int]:
    """Return how many rows repeat the features of an earlier row, and how many of those have another label."""
    first: dict[int, Any] = {}
    conflicts = 0
    for key, label in zip(dataset.keys().tolist(), _labels(dataset), strict=True):
        conflicts += first.setdefault(key, label) != label
    return dataset.n_rows - len(first), conflicts
