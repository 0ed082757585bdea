"""Precomputed vectors (.npy sets, embeddings): taken as they are, or scaled by what was learnt in fit.

Scaling is x = (v - center) / spread, with the numbers of scikit-learn's StandardScaler, MinMaxScaler (whose
result it equals but for rounding) or RobustScaler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, DataRejected, Problem
from core.kinds import Pairs, RowReader, fuse_pairs

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections
    from core.schema import Batch, Column

SCALES = ("standard", "minmax", "robust", "none")
ROW_WIDTH = 256  # a wider vector is faster through numpy, even alone
Moments = tuple[list[float], list[float]]  # center and spread


class VectorBlock:
    """One vector column; x = (v - center) / spread, or v itself."""

    def __init__(self, column: str, width: int, moments: Callable[[], tuple[Any, Any]] | None) -> None:
        """`moments` returns center and spread, float64 arrays of shape (width,); None: no scaling."""
        self.columns: tuple[str, ...] = (column,)
        self.width = width
        self._column, self._moments = column, moments
        self._kept: Moments | None = None  # the moments as lists, once a row needed them

    def params(self) -> dict[str, Any]:
        """Return the width and whether it scales."""
        return {"width": self.width, "scaled": self._moments is not None}

    def sections(self) -> Sections:
        """Return `center` and `spread` if it scales."""
        if self._moments is None:
            return {}
        center, spread = self._moments()
        return {"center": center, "spread": spread}

    def names(self) -> list[str]:
        """Return the column's name with the position."""
        return [f"{self._column}[{index}]" for index in range(self.width)]

    def floats(self, values: Mapping[str, Any]) -> list[float]:
        """Return one row of x with its zeros."""
        entry = values[self._column]
        vector: list[float] = entry.tolist() if hasattr(entry, "dtype") else list(entry)
        if self._moments is None:
            return vector
        if self._kept is None:
            center, spread = self._moments()
            self._kept = center.tolist(), spread.tolist()
        return [(v - c) / s for v, c, s in zip(vector, *self._kept, strict=True)]

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return the values that are not zero after scaling."""
        return [(index, value) for index, value in enumerate(self.floats(values)) if value]

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return the share of a row; for a wide vector one that asks for the matrix instead."""
        return fuse_pairs(self.row, weights, n_out) if self.width <= ROW_WIDTH else _ask_for_matrix

    def matrix(self, batch: Batch) -> Floats:
        """Return the vectors, float64 of shape (n_rows, width)."""
        import numpy as np

        x: Floats = np.asarray(batch.columns[self._column], np.float64).reshape(batch.n_rows, self.width)
        if self._moments is None:
            return x
        center, spread = self._moments()
        scaled: Floats = (x - center) / spread
        return scaled


def _ask_for_matrix(values: Mapping[str, Any]) -> list[float]:
    raise NotImplementedError


def fit(columns: Sequence[Column], batch: Batch) -> VectorBlock:
    """Return the block for one vector column, with center and spread learnt if its option `scale` says so.

    Raises ConfigError for a wrong option, DataRejected for values too large to scale.
    """
    import numpy as np

    (column,) = columns
    scale = column.options.get("scale", "none")
    if scale not in SCALES or column.options.keys() - {"scale"}:
        raise ConfigError(f"columns.{column.name}: scale must be one of {', '.join(SCALES)}")
    plain = VectorBlock(column.name, column.width, None)
    if scale == "none":
        return plain
    with np.errstate(over="ignore", invalid="ignore"):
        center, spread = _learnt(scale, plain.matrix(batch))
    if not (np.isfinite(center).all() and np.isfinite(spread).all()):
        problem = Problem("has values too large to scale", column.name)
        raise DataRejected("schema", f"column {column.name} has values too large to scale", (problem,))
    return VectorBlock(column.name, column.width, lambda: (center, spread))


def _learnt(scale: str, x: Floats) -> tuple[Any, Any]:
    """Return center and spread; a constant feature has spread 1."""
    import numpy as np
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    if scale == "standard":
        standard = StandardScaler().fit(x)
        return standard.mean_, standard.scale_
    if scale == "robust":
        robust = RobustScaler().fit(x)
        return robust.center_, robust.scale_
    minmax = MinMaxScaler().fit(x)
    return minmax.data_min_, np.where(minmax.data_range_ == 0.0, 1.0, minmax.data_range_)


def load(columns: Sequence[Column], params: Mapping[str, Any], file: FlatFile, prefix: str) -> VectorBlock:
    """Return the block whose `center` and `spread` stand in `file` under `prefix`."""
    (column,) = columns
    if not params["scaled"]:
        return VectorBlock(column.name, params["width"], None)
    return VectorBlock(
        column.name, params["width"], lambda: (file.array(prefix + "center"), file.array(prefix + "spread"))
    )


def reference(block: VectorBlock) -> None:
    """Return None: scaling is one subtraction and one division, done once here for both sides."""
