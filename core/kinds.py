"""What a feature kind and an estimator kind look like, and how a kind is found: by file name, when asked for.

A feature kind is a module `core/features/{kind}.py`, an estimator kind a module `core/estimators/{kind}.py`.
The functions below are what such a module must have. scikit-learn, scipy and pandas may be imported inside the
fitting functions only; numpy only inside functions that handle arrays; module level is the standard library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from core.tuples import NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.flatfile import FlatFile
    from core.schema import Batch, Column

    Floats = NDArray[np.float64]
    Sections = Mapping[str, NDArray[Any] | bytes]

Pairs = list[tuple[int, float]]  # one sparse row of x: (feature index, value), indices unique and rising
RowReader = Callable[[int], tuple[float, ...]]


class Csr(NamedTuple):
    """Sparse x in compressed rows: row i holds indices[indptr[i]:indptr[i + 1]], rising within a row."""

    indptr: Any  # int64, shape (n_rows + 1,)
    indices: Any  # int32, shape (nnz,)
    data: Any  # float64, shape (nnz,)
    width: int


class Block(Protocol):
    """A fitted feature kind over its columns; the same object transforms in training and in serving."""

    columns: tuple[str, ...]
    width: int  # features it yields

    def params(self) -> dict[str, Any]:
        """Return the JSON part of its state (what `load` gets back)."""
        ...

    def sections(self) -> Sections:
        """Return its arrays by short name. Only a block that was just fitted needs to answer."""
        ...

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return one row of x, without numpy where the kind can."""
        ...

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return a function of one row that yields this block's share of x @ w, shape (n_out,).

        `weights(i)` is row i of this block's part of w. The default for a kind is `fuse_pairs`.
        """
        ...

    def matrix(self, batch: Batch) -> Csr | Floats:
        """Return x for a batch: Csr, or a float64 array of shape (n_rows, width)."""
        ...

    def names(self) -> list[str]:
        """Return one readable name per feature (for explanations and reports)."""
        ...


class FeatureKind(Protocol):
    """The module functions of core/features/{kind}.py."""

    def fit(self, columns: Sequence[Column], batch: Batch) -> Block:
        """Return the block fitted on `batch`. Raises DataRejected if nothing can be learnt (say, no terms)."""
        ...

    def load(self, columns: Sequence[Column], params: Mapping[str, Any], file: FlatFile, prefix: str) -> Block:
        """Return the block whose sections stand in `file` under `prefix` + short name."""
        ...

    def reference(self, block: Block) -> Any:
        """Return the equivalent scikit-learn transformer (Batch column(s) → x) for the parity proof, or None."""
        ...


class Scorer(Protocol):
    """A loaded estimator. Classification yields probabilities in class order; regression one value."""

    n_out: int

    def score_row(self, pairs: Pairs, width: int) -> list[float]:
        """Return the outputs for one row, shape (n_out,). May raise NotImplementedError: use score_matrix."""
        ...

    def score_matrix(self, parts: Sequence[Csr | Floats]) -> Floats:
        """Return the outputs for the blocks' x side by side, shape (n_rows, n_out)."""
        ...


class EstimatorKind(Protocol):
    """The module functions of core/estimators/{kind}.py."""

    ALGORITHMS: Mapping[str, tuple[str, ...]]  # name → tasks ("classification", "regression") it can do

    def build(self, algorithm: str, task: str, params: Mapping[str, Any], seed: int) -> Any:
        """Return the unfitted scikit-learn estimator. Raises ConfigError naming a bad parameter."""
        ...

    def export(self, fitted: Any, task: str, width: int) -> tuple[dict[str, Any], Sections]:
        """Return the portable form of a fitted scikit-learn estimator: JSON params and arrays.

        Raises FitFailed if this kind cannot carry it. `width` is the number of features.
        """
        ...

    def load(self, params: Mapping[str, Any], file: FlatFile, prefix: str) -> Scorer:
        """Return the scorer whose sections stand in `file` under `prefix` + short name."""
        ...


# column kind → feature kind (file name)
FEATURE_OF = {"text": "text", "number": "table", "category": "table", "image": "image", "vector": "vector"}
ESTIMATORS = ("linear", "naive_bayes", "trees", "onnx")


def feature_kind(name: str) -> FeatureKind:
    """Return the feature kind module, imported now if it was not yet."""
    if name not in FEATURE_OF.values():
        raise KeyError(name)
    return cast(FeatureKind, importlib.import_module(f"core.features.{name}"))


def estimator_kind(name: str) -> EstimatorKind:
    """Return the estimator kind module, imported now if it was not yet."""
    if name not in ESTIMATORS:
        raise KeyError(name)
    return cast(EstimatorKind, importlib.import_module(f"core.estimators.{name}"))


def fuse_pairs(
    row: Callable[[Mapping[str, Any]], Pairs], weights: RowReader, n_out: int
) -> Callable[[Mapping[str, Any]], list[float]]:
    """Return a fused function for kinds with few features: sum of value × weight row over `row`'s pairs."""

    def share(values: Mapping[str, Any]) -> list[float]:
        total = [0.0] * n_out
        for index, value in row(values):
            for k, weight in enumerate(weights(index)):
                total[k] += value * weight
        return total

    return share
