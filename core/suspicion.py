"""Does an upload look as if its labels were wrong? Judged before it is learnt from, by the model in use.

Poison is diluted once it is joined with what is known, and the frozen holdout does not show it; the upload itself
does. If a share of its labels were drawn from the other classes, the log likelihood ratio of each row against the
model's probabilities would rise; how much, the probabilities tell. So the mean of the ratio, less what the model
expects of it (which a shift of the features does not change), less the same mean on the frozen holdout (which
takes out what the model gets wrong about itself), over the rise per flipped label estimates the share of flipped
labels. It is held against its own spread on the holdout. Classes that have become commoner or rarer are allowed
for: the probabilities follow (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to
new a priori probabilities"), and the holdout rows are weighted alike. Everything is deterministic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.corpus import Known
from core.dataset.table import Dataset, concat
from core.evaluation import predict_all
from core.model import Model
from core.tuples import NamedTuple

Floats = NDArray[np.float64]

MIN_ROWS = 30  # uploaded rows, and holdout rows, below which nothing is judged
MIN_SHARE = 0.015  # of wrong labels, below which a world that changes a little is not told from poison
Z = 2.0  # one-sided: 2 % of clean uploads reach it by chance
MAX_RELABELLED = 0.02
MIN_RELABELLED = 10
_FLIPS = 0.3  # bounds the ratio: less is more sensitive to the rows that the model is sure of, and to chance
_ERRORS = 3  # wrong labels that the holdout is taken to have besides those it shows
_TINY = 1e-6
_MAX_TILT = 8.0  # a class may have become so many times commoner or rarer


class Suspicion(NamedTuple):
    """`reasons` are sentences with figures, empty for an upload that looks like what is known."""

    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"reasons": list(self.reasons), **self.evidence}


class _Rows(NamedTuple):
    """Of each row the score, less what the model expects, and a weight; `lift`: the mean rise of a wrong label."""

    score: Floats
    weight: Floats
    lift: float

    @property
    def mean(self) -> float:
        """The weighted mean score."""
        return float(self.weight @ self.score)


def examine(model: Model, known: Known, uploads: Sequence[Dataset]) -> Suspicion:
    """Return what is suspicious about uploads taken together, as `model` sees them.

    Rows that are known already are not asked about again; where they come with another label, that counts by
    itself.
    """
    upload = concat(uploads)
    fresh, overlap, relabelled = _compare(known, upload)
    evidence: dict[str, Any] = {"rows": upload.n_rows, "overlap": overlap, "relabelled": relabelled}
    reasons = []
    if relabelled >= MIN_RELABELLED and relabelled > MAX_RELABELLED * overlap:
        reasons.append(f"relabelled: {relabelled} of {overlap} known rows come with another label")
    rows, holdout = _judged(model, fresh), _judged(model, known.holdout)
    if min(rows.n_rows, holdout.n_rows) >= MIN_ROWS:
        share, error = _share(*_scored(model, rows, holdout))
        evidence |= {"judged": rows.n_rows, "wrong_share": round(share, 4), "error": round(error, 4)}
        if share > max(MIN_SHARE, Z * error):
            reasons.append(
                f"labels: about {share:.1%} of {rows.n_rows} new rows look wrongly labelled "
                f"(of clean rows at most {max(MIN_SHARE, Z * error):.1%} would){_pairs(model, rows)}"
            )
    return Suspicion(tuple(reasons), evidence)


def _compare(known: Known, upload: Dataset) -> tuple[Dataset, int, int]:
    """Return the rows that are not known, how many are, and how many of those have a label they never had."""
    labels: dict[int, set[Any]] = {}
    for part in (known.train, known.holdout):
        for key, label in zip(part.keys().tolist(), part.labels or (), strict=True):
            labels.setdefault(key, set()).add(label)
    fresh, relabelled = [], 0
    for row, (key, label) in enumerate(zip(upload.keys().tolist(), upload.labels or (), strict=True)):
        if key not in labels:
            fresh.append(row)
        else:
            relabelled += label not in labels[key]
    return upload.take(fresh), upload.n_rows - len(fresh), relabelled


def _judged(model: Model, rows: Dataset) -> Dataset:
    """Return the rows of classes that the model knows; of all others it has no opinion."""
    if model.task == "regression":
        return rows
    known = set(model.classes)
    return rows.take([row for row, label in enumerate(rows.labels or ()) if label in known])


def _share(rows: _Rows, holdout: _Rows) -> tuple[float, float]:
    """Return the estimated share of wrong labels, and the standard error it has if there are none.

    The spread is that of the holdout with a few wrong labels more, so that a model without a fault is not sure.
    """
    lift, mean = max(rows.lift, _TINY), holdout.mean
    square = float(holdout.weight @ (holdout.score - mean) ** 2) + _ERRORS * holdout.lift**2 / len(holdout.score)
    trials = float((rows.weight**2).sum() + (holdout.weight**2).sum())
    return (rows.mean - mean) / lift, math.sqrt(square * trials) / lift


def _scored(model: Model, rows: Dataset, holdout: Dataset) -> tuple[_Rows, _Rows]:
    if model.task == "regression":
        return _scored_values(model, rows), _scored_values(model, holdout)
    place = {name: index for index, name in enumerate(model.classes)}
    y, z = (np.asarray([place[str(label)] for label in d.labels or ()], np.intp) for d in (rows, holdout))
    now, before = (np.bincount(codes, minlength=len(place)) + 1.0 for codes in (y, z))
    tilt = np.clip(now / now.sum() * before.sum() / before, 1 / _MAX_TILT, _MAX_TILT)
    weight = tilt[z] / tilt[z].sum()
    p, q = (_probabilities(model, d, place) * tilt for d in (rows, holdout))
    return _scored_classes(p, y, np.full(len(y), 1 / len(y))), _scored_classes(q, z, weight)


def _scored_classes(p: Floats, y: NDArray[np.intp], weight: Floats) -> _Rows:
    """Return the log likelihood ratio of "some labels are wrong" against "none is", row by row."""
    p = np.clip(p / p.sum(1, keepdims=True), _TINY, 1.0)
    p /= p.sum(1, keepdims=True)
    others = max(p.shape[1] - 1, 1)
    ratio = np.log1p(_FLIPS * ((1 - p) / (others * p) - 1))
    expected = (p * ratio).sum(1)
    wrong = (p * (ratio.sum(1, keepdims=True) - ratio) / others).sum(1)
    return _Rows(ratio[np.arange(len(y)), y] - expected, weight, float(weight @ (wrong - expected)))


def _probabilities(model: Model, rows: Dataset, place: Mapping[str, int]) -> Floats:
    """Return the model's probabilities; of one that gives none, certainty."""
    found = predict_all(model, rows.batch)
    if found.probabilities is not None:
        return np.asarray(found.probabilities, np.float64)
    sure = np.zeros((rows.n_rows, len(place)))
    sure[np.arange(rows.n_rows), [place[label] for label in found.labels or ()]] = 0.9
    return sure + 0.1 / len(place)


def _scored_values(model: Model, rows: Dataset) -> _Rows:
    """Return a bounded measure of the residual; a wrong value is one that belongs to another row."""
    y = np.asarray(rows.labels, np.float64)
    found = np.asarray(predict_all(model, rows.batch).values, np.float64)
    spread = float(np.asarray(y).std()) or 1.0
    score = np.minimum(np.abs(y - found) / spread, 2.0)
    wrong = np.minimum(np.abs(np.roll(np.sort(y), len(y) // 2)[np.argsort(np.argsort(y))] - found) / spread, 2.0)
    return _Rows(score, np.full(len(y), 1 / len(y)), float(wrong.mean() - score.mean()))


def _pairs(model: Model, rows: Dataset) -> str:
    """Return the commonest contradiction in words."""
    if model.task == "regression":
        return ""
    said = predict_all(model, rows.batch).labels or []
    pairs = Counter((a, str(b)) for a, b in zip(said, rows.labels or (), strict=True) if a != b)
    if not pairs:
        return ""
    (a, b), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
    return f"; most often {b[:64]!r} where the model in use says {a[:64]!r} ({count})"
