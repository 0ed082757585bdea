"""The few operations on compressed rows (Csr) that serving needs, in numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.kinds import Csr

if TYPE_CHECKING:
    from core.kinds import Floats


def row_count(part: Csr | Floats) -> int:
    """Return n_rows of one block's x."""
    return len(part.indptr) - 1 if isinstance(part, Csr) else len(part)


def width_of(part: Csr | Floats) -> int:
    """Return n_features of one block's x."""
    return part.width if isinstance(part, Csr) else int(part.shape[1])


def dense(part: Csr | Floats) -> Floats:
    """Return one block's x as a float64 array of shape (n_rows, width)."""
    import numpy as np

    if not isinstance(part, Csr):
        return part
    x = np.zeros((row_count(part), part.width))
    x[rows_of(part.indptr), part.indices] = part.data
    return x


def side_by_side(parts: Sequence[Csr | Floats]) -> Floats:
    """Return the blocks' x next to each other, dense, shape (n_rows, sum of widths)."""
    import numpy as np

    return dense(parts[0]) if len(parts) == 1 else np.hstack([dense(part) for part in parts])


def take_rows(part: Csr | Floats, start: int, stop: int) -> Csr | Floats:
    """Return rows [start, stop)."""
    if not isinstance(part, Csr):
        return part[start:stop]
    indptr = part.indptr[start : stop + 1]
    low, high = int(indptr[0]), int(indptr[-1])
    return Csr(indptr - low, part.indices[low:high], part.data[low:high], part.width)


def rows_of(indptr: Any) -> Any:
    """Return the row number of each entry, int64 of shape (nnz,)."""
    import numpy as np

    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def merged(indptr: Any, indices: Any, data: Any) -> tuple[Any, Any, Any]:
    """Return the rows with rising indices, entries of equal index added into one."""
    import numpy as np

    rows = rows_of(indptr)
    order = np.lexsort((indices, rows))
    rows, indices, data = rows[order], indices[order], data[order]
    first = np.ones(len(rows), bool)
    first[1:] = (np.diff(rows) != 0) | (np.diff(indices) != 0)
    if not first.all():
        data = np.add.reduceat(data, np.flatnonzero(first))
        rows, indices = rows[first], indices[first]
    counts = np.bincount(rows, minlength=len(indptr) - 1)
    return np.concatenate([[0], np.cumsum(counts)]), indices, data


def entry_lengths(indptr: Any, data: Any) -> Any:
    """Return for each entry the Euclidean length of its row, 1 for rows of zeros; shape (nnz,)."""
    import numpy as np

    rows = rows_of(indptr)
    lengths = np.sqrt(np.bincount(rows, weights=data * data, minlength=len(indptr) - 1))
    lengths[lengths == 0] = 1.0
    return lengths[rows]
