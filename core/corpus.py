"""The rows that a version is made of: snapshots kept beside it, grown by uploads, split once and for all.

The holdout is frozen: no uploaded row ever enters it, and no row of it (nor any that the split would have put
there) is learnt from, whatever is uploaded.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset.snapshot import read_snapshot
from core.dataset.table import Dataset, concat
from core.errors import DataRejected, IntegrityError
from core.spec import ModelSpec
from core.tuples import NamedTuple

TRAIN, HOLDOUT = "train", "holdout"
MAX_PARTS = 20  # train parts of one version; with more they are written as one

Part = Mapping[str, Any]  # {"key", "sha256", "rows", "kind"} as the ledger has it


class Corpus(NamedTuple):
    """What to learn from and what to judge by.

    `kept` are parts that hold some of the rows already, `fresh` the train rows that none of them holds, and
    `aside` the uploaded rows that the split puts into the holdout range: neither learnt from nor judged by.
    """

    train: Dataset
    holdout: Dataset
    kept: tuple[Part, ...]
    fresh: Dataset | None
    aside: Dataset | None
    counts: Mapping[str, int]


class Known(NamedTuple):
    """The rows of a published version."""

    train: Dataset
    holdout: Dataset
    parts: tuple[Part, ...]


def first(dataset: Dataset, spec: ModelSpec) -> Corpus:
    """Return the corpus of a data file alone, split by row digest. Raises DataRejected if a side is empty."""
    inside = _held_out(dataset, spec)
    train, holdout = dataset.take(np.flatnonzero(~inside)), _bare(dataset.take(np.flatnonzero(inside)))
    if not train.n_rows or not holdout.n_rows:
        raise DataRejected("rows", f"{dataset.n_rows} rows are too few to hold some of them out")
    return Corpus(train, holdout, (), train, None, {"new": train.n_rows})


def _bare(dataset: Dataset) -> Dataset:
    """Return the rows without what was noted when they were read."""
    columns, batch = dataset.columns, dataset.batch
    return Dataset(columns, batch, dataset.labels, seed=dataset.seed, keys=dataset.keys())


def _held_out(dataset: Dataset, spec: ModelSpec) -> NDArray[np.bool_]:
    """Return the mask of the holdout, shape (n_rows,): never empty, and no class stands there alone."""
    inside = np.asarray(dataset.holdout_mask(spec.split.holdout), bool)
    if not inside.any() and dataset.n_rows:  # so few rows that chance left it empty: take the lowest digests
        keys = dataset.keys()
        count = max(1, round(spec.split.holdout * dataset.n_rows))
        inside = keys <= np.partition(keys, count - 1)[count - 1]
    if spec.task == "classification" and dataset.labels is not None:
        labels = np.asarray(dataset.labels, object)
        learnt = set(labels[~inside].tolist())
        inside &= np.fromiter((label in learnt for label in labels), bool, len(labels))
    return inside


def load(parts: Sequence[Part], spec: ModelSpec, read: Callable[[str], bytes]) -> Known:
    """Return the rows in a version's parts. Raises IntegrityError if bytes or columns are not as promised."""
    train: Dataset | None = None
    holdout: Dataset | None = None
    for part in parts:
        data = read(part["key"])
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise IntegrityError("a snapshot of the data does not match the log", key=part["key"])
        rows = read_snapshot(data, spec)
        if part["kind"] == HOLDOUT:
            holdout = rows
        else:
            train = rows if train is None else concat(_merged(train, rows))
    if train is None or holdout is None:
        raise IntegrityError("the version has no train or no holdout rows")
    return Known(train, holdout, tuple(parts))


def unite(known: Known, uploads: Sequence[Dataset], spec: ModelSpec) -> Corpus:
    """Return the known rows and the uploaded ones, or the uploaded ones alone, as the spec says.

    A row that is known already is not taken twice; of rows with the same features and different labels the newest
    is right. Without uploads the known rows are learnt from again. The counts say what became of uploaded rows.
    """
    if not uploads:
        return Corpus(known.train, known.holdout, known.parts, None, None, {})
    counts = Counter(uploaded=sum(dataset.n_rows for dataset in uploads))
    split = [_apart(dataset, known.holdout, spec, counts) for dataset in uploads]
    new = reduce(lambda old, rows: concat(_merged(old, rows)), (rows for rows, _ in split))
    aside = concat([held for _, held in split])
    holdout_part = tuple(part for part in known.parts if part["kind"] == HOLDOUT)
    if spec.retrain.data == "upload":
        counts["new"] = new.n_rows
        return Corpus(new, known.holdout, holdout_part, new, aside, dict(sorted(counts.items())))
    old, fresh = _merged(known.train, new)
    counts["relabelled"] = known.train.n_rows - old.n_rows
    counts["new"] = fresh.n_rows
    train, kept = concat([old, fresh]), known.parts
    if len(kept) - len(holdout_part) >= MAX_PARTS:
        kept, fresh = holdout_part, train
    return Corpus(train, known.holdout, kept, fresh, aside, dict(sorted(counts.items())))


def _apart(dataset: Dataset, holdout: Dataset, spec: ModelSpec, counts: Counter[str]) -> tuple[Dataset, Dataset]:
    """Return the uploaded rows to learn from, and those set aside; copies of holdout rows are in neither."""
    frozen = np.isin(dataset.keys(), holdout.keys())
    inside = np.asarray(dataset.holdout_mask(spec.split.holdout), bool) & ~frozen
    counts["in_holdout"] += int(frozen.sum())
    counts["set_aside"] += int(inside.sum())
    return dataset.take(np.flatnonzero(~frozen & ~inside)), dataset.take(np.flatnonzero(inside))


def _merged(old: Dataset, new: Dataset) -> tuple[Dataset, Dataset]:
    """Return the old rows that no new row contradicts, and the new rows that are not among the old."""
    labels: dict[int, set[Any]] = {}
    for key, label in zip(new.keys().tolist(), new.labels or (), strict=True):
        labels.setdefault(key, set()).add(label)
    kept, seen = [], set()
    for row, (key, label) in enumerate(zip(old.keys().tolist(), old.labels or (), strict=True)):
        if key not in labels:
            kept.append(row)
        elif label in labels[key]:
            kept.append(row)
            seen.add((key, label))
    pairs = zip(new.keys().tolist(), new.labels or (), strict=True)
    fresh = [row for row, pair in enumerate(pairs) if pair not in seen]
    return old.take(kept), new.take(fresh)
