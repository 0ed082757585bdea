"""Trees: decision tree, random forest, extra trees, histogram gradient boosting; answers equal scikit-learn's."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, FitFailed
from core.forest import Layout, Walker, dense_row, rounded
from core.kinds import Block, Csr, Pairs
from core.votes import Ballot

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections

_BOTH = ("classification", "regression")
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "decision_tree": _BOTH,
    "random_forest": _BOTH,
    "extra_trees": _BOTH,
    "hist_gradient_boosting": _BOTH,
}
_CLASSES = {
    "decision_tree": ("tree", "DecisionTreeClassifier", "DecisionTreeRegressor"),
    "random_forest": ("ensemble", "RandomForestClassifier", "RandomForestRegressor"),
    "extra_trees": ("ensemble", "ExtraTreesClassifier", "ExtraTreesRegressor"),
    "hist_gradient_boosting": (
        "ensemble",
        "HistGradientBoostingClassifier",
        "HistGradientBoostingRegressor",
    ),
}
LAST_BITS = 4e-15  # a softmax or exp of one row by libm, against numpy's of a batch
COLD_ROWS = 2  # rows that are answered before anything is prepared


def build(algorithm: str, task: str, params: Mapping[str, Any], seed: int) -> Any:
    """Return the unfitted scikit-learn estimator. Raises ConfigError naming a bad parameter."""
    import importlib

    package, classifier, regressor = _CLASSES[algorithm]
    name = classifier if task == "classification" else regressor
    estimator = getattr(importlib.import_module(f"sklearn.{package}"), name)
    try:
        return estimator(**{"random_state": seed, **params})
    except TypeError as error:
        raise ConfigError(f"estimator.params of {algorithm}: {error}") from error


def export(fitted: Any, task: str, width: int) -> tuple[dict[str, Any], Sections]:
    """Return the portable form of fitted trees. Raises FitFailed for any other estimator."""
    from core import timber

    if fitted.n_features_in_ != width:
        raise FitFailed(f"the trees were fitted on {fitted.n_features_in_} features, not {width}")
    name = type(fitted).__name__
    if name in _CLASSES["hist_gradient_boosting"]:
        return timber.boosted(fitted)
    if name in _CLASSES["decision_tree"]:
        return timber.forest([fitted], fitted)
    if name in (*_CLASSES["random_forest"], *_CLASSES["extra_trees"]):
        return timber.forest(fitted.estimators_, fitted)
    raise FitFailed(f"{name} is not made of trees that can be carried")


def load(params: Mapping[str, Any], file: FlatFile, prefix: str) -> Trees:
    """Return the scorer whose sections stand in `file` under `prefix`; its cost does not hang on the trees."""
    return Trees(params, file, prefix)


class Trees:
    """A forest (mode vote or mean) or a boosted ensemble (mode boost)."""

    exact = True

    def __init__(self, params: Mapping[str, Any], file: FlatFile, prefix: str) -> None:
        self._mode, self._width = params["mode"], int(params["width"])
        self._single = self._mode != "boost"  # x is rounded to float32, as scikit-learn's forests see it
        self._baseline: list[float] = params["baseline"]
        self._link = params["link"]
        self.bound = 0.0 if self._single else LAST_BITS  # how far from scikit-learn an answer may be
        self.n_out = int(params["n_out"])
        self._layout = Layout(file, prefix, self._width)
        self._masked = prefix + "masks" in file.sections
        self._rows = 0
        self._lock = threading.Lock()
        self._walker: Walker | None = None
        self._ballot: Ballot | None = None
        self._ready = False
        self._batches: Any = None

    def score_row(self, pairs: Pairs, width: int) -> list[float]:
        """Return the outputs for one row of x, shape (n_out,); faster after the first rows."""
        if not self._ready:
            self._prepare()
        if self._ready and self._ballot is not None:
            votes = self._elected(dense_row(pairs, self._width, single=False))
            if votes is not None:
                return votes
        return self._finish(self._walking().leaves(dense_row(pairs, self._width, single=self._single)))

    def fused(self, blocks: Sequence[Block]) -> Callable[[Mapping[str, Any]], list[float]] | None:
        """Return a function of one row's values to the outputs, if every block can give its x as floats."""
        readers = [getattr(block, "floats", None) for block in blocks]
        if None in readers:
            return None
        first, *rest = readers

        def outputs(values: Mapping[str, Any]) -> list[float]:
            x = first(values)  # type: ignore[misc]
            for read in rest:
                x += read(values)  # type: ignore[misc]
            if not self._ready:
                self._prepare()
            votes = self._elected(x) if self._ready and self._ballot is not None else None
            if votes is not None:
                return votes
            return self._finish(self._walking().leaves(rounded(x) if self._single else x))

        return outputs

    def _elected(self, x: list[float]) -> list[float] | None:
        """Return the outputs from the masks, None if the trees must judge."""
        counts = self._ballot.counts(x) if self._ballot else None
        if counts is None:
            return None
        n_trees = self._layout.n_trees
        return [count / n_trees for count in counts]

    def _walking(self) -> Walker:
        walker = self._walker
        if walker is None:
            walker = self._walker = Walker(self._layout, votes=self._mode == "vote")
        return walker

    def _prepare(self) -> None:
        """Do a bounded piece of what makes rows fast, unless another thread is doing one."""
        self._rows += 1
        if self._rows <= COLD_ROWS or not self._lock.acquire(blocking=False):
            return
        try:
            if self._masked and self._ballot is None:
                self._ballot = Ballot(self._layout.file, self._layout.prefix)
            self._ready = (self._ballot or self._walking()).advance()
        finally:
            self._lock.release()

    def _finish(self, outcomes: list[Any]) -> list[float]:
        """Return the outputs from the trees' outcomes, added one by one in the order of scikit-learn.

        (Python's sum() of floats is compensated from 3.12 on and would differ in the last bit.)
        """
        if self._mode == "vote":
            return self._vote(outcomes)
        totals = []
        for k, start in enumerate(self._baseline):
            total = start
            for value in outcomes[k :: len(self._baseline)]:
                total += value
            totals.append(total)
        if self._mode == "mean":
            return [totals[0] / len(outcomes)]
        return _linked(self._link, totals)

    def _vote(self, outcomes: list[Any]) -> list[float]:
        votes = [0.0] * self.n_out
        for outcome in outcomes:
            if outcome.__class__ is int:
                votes[outcome] += 1.0
            else:
                for k, share in outcome:
                    votes[k] += share
        n_trees = len(outcomes)
        return [vote / n_trees for vote in votes]

    def score_matrix(self, parts: Sequence[Csr | Floats]) -> Floats:
        """Return the outputs for the blocks' x side by side, shape (n_rows, n_out)."""
        from core import lockstep
        from core.sparse import row_count

        if self._batches is None:
            self._batches = lockstep.Batches(self._layout, votes=self._mode == "vote", n_out=self.n_out)
        n_rows = row_count(parts[0])
        raw = self._batches.sums(parts, n_rows, self._baseline)
        if self._mode == "boost":
            return _linked_matrix(self._link, raw)
        raw /= self._layout.n_trees
        return raw  # type: ignore[no-any-return]


def _linked(link: str, z: list[float]) -> list[float]:
    """Return the outputs for the sums of one row; the links of sklearn._loss."""
    if link == "sigmoid":
        positive = _expit(z[0])
        return [1.0 - positive, positive]
    if link == "softmax":
        top = max(z)
        powers = [math.exp(value - top) for value in z]
        total = _numpy_sum(powers)
        return [power / total for power in powers]
    return [_exp(z[0])] if link == "log" else z


def _expit(z: float) -> float:
    """Return the logistic function as scipy.special.expit computes it."""
    return 1.0 / (1.0 + _exp(-z))


def _exp(z: float) -> float:
    try:
        return math.exp(z)
    except OverflowError:
        return math.inf


def _numpy_sum(values: list[float]) -> float:
    """Return the sum in the order of numpy's pairwise summation of up to 128 values."""
    n = len(values)
    if n < 8:
        total = 0.0
        for value in values:
            total += value
        return total
    r = values[:8]
    for start in range(8, n - n % 8, 8):
        r = [a + b for a, b in zip(r, values[start : start + 8], strict=True)]
    total = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
    for value in values[n - n % 8 :]:
        total += value
    return total


def _linked_matrix(link: str, z: Floats) -> Floats:
    """Return the outputs for sums of shape (n_rows, n_sums), with the operations of scikit-learn."""
    import numpy as np

    if link == "sigmoid":
        positive = np.array([_expit(value) for value in z[:, 0].tolist()])
        return np.column_stack([1 - positive, positive])
    if link == "softmax":
        z = z - z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        return z
    return np.exp(z) if link == "log" else z
