"""Precomputed vectors (.npy sets, embeddings): taken as they are, or scaled by what was learnt in fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.kinds import Pairs, RowReader, fuse_pairs

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections
    from core.schema import Batch, Column

DEFAULTS: dict[str, Any] = {"scale": "none"}
ROW_WIDTH = 256  # a wider vector is faster through numpy, even alone


class VectorBlock:
    """One vector column; x = (v - center) / spread, or v itself."""

    def __init__(self, column: str, width: int, moments: Callable[[], tuple[Any, Any]] | None) -> None:
        """`moments` returns center and spread, float64 arrays of shape (width,); None: no scaling."""
        self.columns: tuple[str, ...] = (column,)
        self.width = width
        self._column, self._moments = column, moments

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

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return the values that are not zero after scaling."""
        vector = values[self._column]
        if self._moments is not None:
            center, spread = self._moments()
            scaled = zip(vector, center.tolist(), spread.tolist(), strict=True)
            vector = [(value - c) / s for value, c, s in scaled]
        return [(index, float(value)) for index, value in enumerate(vector) if value]

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return the share of a row; for a wide vector one that asks for the matrix instead."""
        return fuse_pairs(self.row, weights, n_out) if self.width <= ROW_WIDTH else _ask_for_matrix

    def matrix(self, batch: Batch) -> Floats:
        """Return the vectors, float64 of shape (n_rows, width)."""
        import numpy as np

        x = np.asarray(batch.columns[self._column], np.float64).reshape(batch.n_rows, self.width)
        if self._moments is None:
            return x
        center, spread = self._moments()
        scaled: Floats = (x - center) / spread
        return scaled


def _ask_for_matrix(values: Mapping[str, Any]) -> list[float]:
    raise NotImplementedError


def fit(columns: Sequence[Column], batch: Batch) -> VectorBlock:
    """Return the block for one vector column, with center and spread learnt if its option `scale` says so."""
    import numpy as np

    (column,) = columns
    plain = VectorBlock(column.name, column.width, None)
    scale = {**DEFAULTS, **column.options}["scale"]
    if scale == "none":
        return plain
    center, spread = _learnt(scale, plain.matrix(batch))
    spread = np.where(spread == 0.0, 1.0, spread)
    return VectorBlock(column.name, column.width, lambda: (center, spread))


def _learnt(scale: str, x: Floats) -> tuple[Any, Any]:
    import numpy as np

    if scale == "standard":
        return x.mean(axis=0), x.std(axis=0)
    if scale == "minmax":
        return x.min(axis=0), np.ptp(x, axis=0)
    low, middle, high = np.percentile(x, [25, 50, 75], axis=0)
    return middle, high - low


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
