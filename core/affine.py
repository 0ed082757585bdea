"""Scores z = x @ w + b read from a flat file, for one row in pure Python and for a batch in numpy.

Shared by every estimator kind whose model is a matrix of weights. w lies row by row, one row a feature, so
that a sparse row of x touches only the pages of its own features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import IntegrityError
from core.kinds import Block, Csr, Pairs, RowReader
from core.links import LINKS, link_matrix, link_row
from core.sparse import row_count, width_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections

FLOAT32_FROM = 1 << 17  # weights; above it rows are stored as float32 and parity is 1e-6 instead of 1e-9
_GATHER_CELLS = 1 << 21  # cells of w gathered at once, to bound memory


def sections(weights: Floats, intercept: Floats) -> Sections:
    """Return the arrays of w (n_features, n_scores) and b (n_scores,) as they stand in a file."""
    import numpy as np

    dtype = np.float32 if weights.size > FLOAT32_FROM else np.float64
    return {"w": np.ascontiguousarray(weights, dtype), "b": np.asarray(intercept, np.float64)}


class Affine:
    """A scorer over w and b with a link; `binarize` turns x into x > 0 first (Bernoulli naive Bayes)."""

    def __init__(self, params: Mapping[str, Any], file: FlatFile, prefix: str) -> None:
        if params["link"] not in LINKS:
            raise IntegrityError("artifact has an unknown link")
        self._params = params
        self._file = file
        self._name = prefix + "w"
        self._rows: RowReader = file.rows(self._name)
        intercept, scores = file.rows(prefix + "b"), file.section(prefix + "b").shape[0]
        self._intercept = [intercept(index)[0] for index in range(scores)]
        self._binarize = bool(params.get("binarize"))
        self.n_out = 2 if scores == 1 and params["link"] != "identity" else scores
        self.exact = file.section(self._name).dtype == "f8"

    def fused(self, blocks: Sequence[Block]) -> Callable[[Mapping[str, Any]], list[float]] | None:
        """Return a function of one row's values to the outputs, or None if x cannot be fused with w.

        Under softmax only differences count: scores are taken relative to the last class, which saves one.
        """
        if self._binarize:
            return None
        relative = self._params["link"] == "softmax"
        shares, offset, scores = [], 0, len(self._intercept) - relative
        for block in blocks:
            shares.append(block.fuse(self._from(offset, relative=relative), scores))
            offset += block.width
        return self._fused(shares, relative=relative)

    def _from(self, offset: int, *, relative: bool) -> RowReader:
        rows = self._rows
        if relative:
            return lambda index: _relative(rows(index + offset))
        return rows if offset == 0 else lambda index: rows(index + offset)

    def _fused(
        self, shares: Sequence[Callable[[Mapping[str, Any]], list[float]]], *, relative: bool
    ) -> Callable[[Mapping[str, Any]], list[float]]:
        params = self._params
        intercept = _relative(self._intercept) if relative else tuple(self._intercept)
        last, only = [0.0] * relative, shares[0]

        def outputs(values: Mapping[str, Any]) -> list[float]:
            return link_row(params, [b + z for b, z in zip(intercept, only(values), strict=True)] + last)

        def outputs_of_many(values: Mapping[str, Any]) -> list[float]:
            parts = [share(values) for share in shares]
            return link_row(params, [sum(column) for column in zip(intercept, *parts, strict=True)] + last)

        return outputs if len(shares) == 1 else outputs_of_many

    def score_row(self, pairs: Pairs, width: int) -> list[float]:
        """Return the outputs for one sparse row of x, shape (n_out,)."""
        z = list(self._intercept)
        for index, value in pairs:
            x = float(value > 0) if self._binarize else value
            for k, weight in enumerate(self._rows(index)):
                z[k] += x * weight
        return link_row(self._params, z)

    def score_matrix(self, parts: Sequence[Csr | Floats]) -> Floats:
        """Return the outputs for the blocks' x side by side, shape (n_rows, n_out)."""
        import numpy as np

        w = self._file.array(self._name)
        z = np.tile(np.array(self._intercept), (row_count(parts[0]), 1))
        offset = 0
        for part in parts:
            self._add(z, part, w[offset : offset + width_of(part)])
            offset += width_of(part)
        return link_matrix(self._params, z)

    def _add(self, z: Floats, part: Csr | Floats, w: NDArray[np.floating[Any]]) -> None:
        import numpy as np

        if isinstance(part, Csr):
            data = (part.data > 0).astype(np.float64) if self._binarize else part.data
            _add_sparse(z, part._replace(data=data), w)
        else:
            z += ((part > 0).astype(np.float64) if self._binarize else part) @ w.astype(np.float64)


def _relative(scores: Sequence[float]) -> tuple[float, ...]:
    last = scores[-1]
    return tuple([score - last for score in scores[:-1]])


def _add_sparse(z: Floats, part: Csr, w: NDArray[np.floating[Any]]) -> None:
    """Add x @ w to z, a run of rows at a time, each run gathering at most _GATHER_CELLS cells of w."""
    import numpy as np

    per_run = max(1, _GATHER_CELLS // w.shape[1])
    start, n_rows = 0, len(part.indptr) - 1
    while start < n_rows:
        stop = int(np.searchsorted(part.indptr, part.indptr[start] + per_run, "right")) - 1
        stop = min(max(stop, start + 1), n_rows)
        low, high = int(part.indptr[start]), int(part.indptr[stop])
        if high > low:
            cells = w[part.indices[low:high]] * part.data[low:high, None]
            starts = part.indptr[start:stop] - low
            filled = np.flatnonzero(np.diff(part.indptr[start : stop + 1]))
            z[start + filled] += np.add.reduceat(cells, starts[filled], axis=0)
        start = stop
