"""The scikit-learn pipeline over our own features: what is fitted here is what serves.

X is row numbers, shape (n_rows, 1): the rows themselves stay in one `Rows`, which fits a block once for each set
of rows and options, however many candidates of a search ask for it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import has_fit_parameter

from core.errors import ConfigError, FitFailed
from core.kinds import FEATURE_OF, Block, Csr, estimator_kind, feature_kind
from core.schema import Batch, Column
from core.spec import ModelSpec

if TYPE_CHECKING:
    from core.kinds import Floats

Array = NDArray[Any]
Overlay = tuple[tuple[str, Any], ...]  # ("COLUMN.option", value) pairs laid over the options of the spec

CACHE_BYTES = 1 << 29
MAX_DENSE_BYTES = 2 << 30


def groups(columns: Sequence[Column]) -> list[tuple[str, tuple[Column, ...]]]:
    """Return (feature kind, its columns): one block a text, image or vector column, one for all table columns."""
    table = tuple(column for column in columns if FEATURE_OF[column.kind] == "table")
    found: list[tuple[str, tuple[Column, ...]]] = []
    for column in columns:
        kind = FEATURE_OF[column.kind]
        if kind != "table":
            found.append((kind, (column,)))
        elif column is table[0]:
            found.append((kind, table))
    return found


def overlaid(column: Column, overlay: Overlay) -> Column:
    """Return the column with the options that `overlay` names for it."""
    new = {key.rpartition(".")[2]: value for key, value in overlay if key.rpartition(".")[0] == column.name}
    return column._replace(options={**column.options, **new}) if new else column


class Rows:
    """The rows of one training: blocks fitted on some of them and x of some of them, each made once.

    `check` is called before each fit and may raise to stop the training. Shared, never copied, by clones.
    """

    def __init__(
        self,
        batch: Batch,
        columns: Sequence[Column],
        *,
        check: Callable[[], None] = lambda: None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._batch, self._groups, self._check = batch, groups(columns), check
        self._limit, self._size = cache_bytes, 0
        self._made: OrderedDict[tuple[Any, ...], tuple[Any, int]] = OrderedDict()
        self._lock = threading.RLock()
        self.fits = 0  # blocks fitted so far

    def blocks(self, overlay: Overlay, indices: Array) -> list[tuple[str, Block]]:
        """Return (feature kind, block) fitted on the rows at `indices`. Raises DataRejected."""
        self._check()
        key = _key(indices)
        return [
            (kind, self._block(kind, self._columns(group, overlay), key, indices)) for kind, group in self._groups
        ]

    def parts(self, overlay: Overlay, fitted_on: Array, indices: Array) -> list[Csr | Floats]:
        """Return x of the rows at `indices`, one part a block, by blocks fitted on the rows at `fitted_on`."""
        key, rows = _key(fitted_on), _key(indices)
        parts = []
        for kind, group in self._groups:
            columns = self._columns(group, overlay)
            block = self._block(kind, columns, key, fitted_on)
            parts.append(self._once(("x", *_names(columns), key, rows), partial(self._matrix, block, indices)))
        return parts

    def forget(self) -> None:
        """Drop everything that was remembered."""
        with self._lock:
            self._made.clear()
            self._size = 0

    def _columns(self, group: Sequence[Column], overlay: Overlay) -> tuple[Column, ...]:
        return tuple(overlaid(column, overlay) for column in group)

    def _block(self, kind: str, columns: tuple[Column, ...], key: str, indices: Array) -> Block:
        def fit() -> Block:
            self.fits += 1
            return feature_kind(kind).fit(columns, self._take(indices))

        block: Block = self._once(("block", *_names(columns), key), fit)
        return block

    def _matrix(self, block: Block, indices: Array) -> Csr | Floats:
        return block.matrix(self._take(indices))

    def _take(self, indices: Array) -> Batch:
        return self._batch.take([int(i) for i in indices])

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key][0]
            value = make()
            size = _size(value)
            self._made[key] = (value, size)
            self._size += size
            while self._size > self._limit and len(self._made) > 1:
                self._size -= self._made.popitem(last=False)[1][1]
            return value


def _names(columns: Sequence[Column]) -> tuple[str, ...]:
    return tuple(f"{column.name}\0{sorted(column.options.items())!r}" for column in columns)


def _key(indices: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(indices, np.int64).tobytes()).hexdigest()


def _size(value: Any) -> int:
    """Return the bytes of x; a block counts as if each feature took 100."""
    if isinstance(value, Csr):
        return int(value.indptr.nbytes + value.indices.nbytes + value.data.nbytes)
    return int(getattr(value, "nbytes", 100 * getattr(value, "width", 0)))


def beside(parts: Sequence[Any], *, dense: bool = False) -> Any:
    """Return the blocks' x next to each other: a scipy CSR matrix if any part is sparse, else a float64 array."""
    plain = [_scipy(part) if isinstance(part, Csr) else part for part in parts]
    if not any(map(sparse.issparse, plain)):
        return np.hstack([np.asarray(part, np.float64) for part in plain])
    joined = sparse.csr_matrix(sparse.hstack([sparse.csr_matrix(part) for part in plain], format="csr"))
    size = 8 * joined.shape[0] * joined.shape[1]
    if dense and size > MAX_DENSE_BYTES:
        raise FitFailed("this estimator needs dense features, and they do not fit in memory", bytes=size)
    return joined.toarray() if dense else joined


def _scipy(part: Csr) -> Any:
    return sparse.csr_matrix((part.data, part.indices, part.indptr), shape=(len(part.indptr) - 1, part.width))


class FeatureStep(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn transformer: row numbers → x. Its tunable parameters are named "COLUMN.option"."""

    def __init__(self, rows: Rows, overlay: Overlay = (), dense: bool = False) -> None:
        self.rows, self.overlay, self.dense = rows, overlay, dense

    def __sklearn_clone__(self) -> FeatureStep:
        return FeatureStep(self.rows, self.overlay, self.dense)

    def set_params(self, **params: Any) -> Self:
        """Lay options over those of the spec."""
        self.overlay = tuple({**dict(self.overlay), **params}.items())
        return self

    def fit(self, x: Array, y: Any = None) -> Self:
        """Fit the blocks on the rows numbered in `x`, shape (n, 1)."""
        self.fitted_on_ = np.asarray(x)[:, 0]
        self.blocks_ = self.rows.blocks(self.overlay, self.fitted_on_)
        return self

    def transform(self, x: Array) -> Any:
        """Return x of the rows numbered in `x`, shape (n, 1)."""
        parts = self.rows.parts(self.overlay, self.fitted_on_, np.asarray(x)[:, 0])
        joined = beside(parts, dense=self.dense)
        self.dense_ = not sparse.issparse(joined)
        return joined


class EstimatorStep(BaseEstimator):  # type: ignore[misc]
    """A scikit-learn estimator built by its kind, so that a search goes through the same door as a fit."""

    def __init__(self, spec: ModelSpec, params: Overlay = ()) -> None:
        self.spec, self.params = spec, params

    def __sklearn_tags__(self) -> Any:
        return self._built().__sklearn_tags__()

    def __sklearn_clone__(self) -> EstimatorStep:
        return EstimatorStep(self.spec, self.params)

    def set_params(self, **params: Any) -> Self:
        """Lay parameters over those of the spec."""
        self.params = tuple({**dict(self.params), **params}.items())
        return self

    def _built(self) -> Any:
        return build(self.spec, dict(self.params))

    def fit(self, x: Any, y: Any) -> Self:
        """Fit the estimator; with class weights where the spec asks for them."""
        estimator = self._built()
        fit_params = {}
        if self.spec.balance == "class_weight" and not _weigh(estimator):
            if not has_fit_parameter(estimator, "sample_weight"):
                raise ConfigError(f"balance: {self.spec.estimator.algorithm} takes no class weights")
            fit_params["sample_weight"] = compute_sample_weight("balanced", y)
        self.estimator_ = estimator.fit(x, y, **fit_params)
        return self

    @property
    def classes_(self) -> Any:
        """Return the class codes, shape (n_classes,)."""
        return self.estimator_.classes_

    def predict(self, x: Any) -> Any:
        """Return codes or values, shape (n,)."""
        return self.estimator_.predict(x)

    def predict_proba(self, x: Any) -> Any:
        """Return probabilities, shape (n, n_classes)."""
        return self.estimator_.predict_proba(x)


def build(spec: ModelSpec, params: Mapping[str, Any]) -> Any:
    """Return the unfitted estimator of the spec with `params` over its own. Raises ConfigError."""
    e = spec.estimator
    return estimator_kind(e.kind).build(e.algorithm, spec.task, {**e.params, **params}, spec.split.seed)


def _weigh(estimator: Any) -> bool:
    """Set balanced class weights on an estimator or the one it wraps; return whether it takes them."""
    names = [n for n in estimator.get_params() if n == "class_weight" or n.endswith("__class_weight")]
    if names:
        estimator.set_params(**{min(names, key=len): "balanced"})
    return bool(names)


def takes_sparse(spec: ModelSpec) -> bool:
    """Return whether the spec's estimator takes sparse x."""
    return bool(build(spec, {}).__sklearn_tags__().input_tags.sparse)


def assemble(spec: ModelSpec, rows: Rows, smallest: int) -> Any:
    """Return the unfitted pipeline: features, then a sampler if the spec balances by rows, then the estimator.

    `smallest` is the number of rows that the smallest class has in the smallest fit (for SMOTE's neighbours).
    """
    from imblearn.pipeline import Pipeline

    features = FeatureStep(rows, dense=not takes_sparse(spec))
    sampler = _sampler(spec, smallest)
    middle = [("balance", sampler)] if sampler is not None else []
    return Pipeline([("features", features), *middle, ("estimator", EstimatorStep(spec))])


def _sampler(spec: ModelSpec, smallest: int) -> Any:
    from imblearn import over_sampling, under_sampling

    seed = spec.split.seed
    if spec.balance == "oversample":
        return over_sampling.RandomOverSampler(random_state=seed)
    if spec.balance == "undersample":
        return under_sampling.RandomUnderSampler(random_state=seed)
    if spec.balance == "smote":
        return over_sampling.SMOTE(random_state=seed, k_neighbors=max(1, min(5, smallest - 1)))
    return None
