"""Trees walked in numpy: all rows take their next step in all trees at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.forest import Layout
from core.sparse import side_by_side, take_rows
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.kinds import Csr, Floats

CELLS = 25_600  # (row, tree) pairs that walk together: their state stays in the processor's cache
KEEP_NODES = 1 << 18  # up to so many nodes are kept as arrays between batches
GROUP_NODES = 1 << 20  # trees are read in groups of about so many nodes
GROUP_TREES = 128
DENSE_CELLS = 1 << 22  # of x in memory at once
CHECK_EVERY = 3  # steps between two looks for pairs that have arrived


class Nodes(NamedTuple):
    """Some trees as contiguous arrays; indices count from the first of these nodes."""

    feature: Any  # intp, -1: leaf
    child: Any  # intp, a leaf is its own child
    threshold: Any  # float32 or float64
    outcome: Any  # what stands at a leaf in the place of the threshold
    missing: Any  # uint8, 1: a missing value goes right
    roots: Any  # intp
    first: int  # the number of the first of these trees


class Walk:
    """Leads many rows to their leaves."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._roots = layout.roots()
        self._kept: dict[int, Nodes] = {}

    def groups(self) -> Iterator[Nodes]:
        """Yield the trees in order, in groups that fit in memory."""
        first = 0
        for tree in range(1, self._layout.n_trees + 1):
            full = tree - first == GROUP_TREES or tree == self._layout.n_trees
            if full or self._roots[tree + 1] - self._roots[first] > GROUP_NODES:
                yield self._group(first, tree)
                first = tree

    def _group(self, first: int, last: int) -> Nodes:
        nodes = self._kept.get(first) or self._nodes(first, last)
        if self._layout.n_nodes <= KEEP_NODES:
            self._kept[first] = nodes
        return nodes

    def _nodes(self, first: int, last: int) -> Nodes:
        import numpy as np

        start, stop = self._roots[first], self._roots[last]
        file, prefix = self._layout.file, self._layout.prefix
        nodes = file.array(prefix + "nodes")[start:stop]
        third = np.ascontiguousarray(nodes[:, 2:])
        double = self._layout.double
        threshold = third.view("<f8" if double else "<f4").ravel()
        return Nodes(
            nodes[:, 0].astype(np.intp),
            nodes[:, 1].astype(np.intp) - start,
            threshold,
            threshold if double else third.ravel(),
            file.array(prefix + "missing")[start:stop],
            np.array(self._roots[first:last], np.intp) - start,
            first,
        )


def outcomes(nodes: Nodes, x: Any) -> Iterator[tuple[int, Any]]:
    """Yield (first row, outcomes of shape (n_trees, rows)) for consecutive rows of x, shape (n_rows, width).

    x is float32 or float64 as the thresholds are.
    """
    import numpy as np

    missing = bool(np.isnan(x).any())
    per_piece = max(1, CELLS // len(nodes.roots))
    for low in range(0, len(x), per_piece):
        piece = x[low : low + per_piece]
        # a leaf has feature -1, the last column of the row before: -inf > anything is false, so it stays
        padded = np.full((len(piece), piece.shape[1] + 1), -np.inf, piece.dtype)
        padded[:, :-1] = piece
        leaves = _leaves(nodes, padded, missing=missing)
        yield low, nodes.outcome.take(leaves).reshape(len(nodes.roots), len(piece))


def _leaves(nodes: Nodes, padded: Floats, *, missing: bool) -> Any:
    """Return the leaf of each (tree, row), trees first."""
    import numpy as np

    n_rows, stride = padded.shape
    x = padded.ravel()
    node = np.repeat(nodes.roots, n_rows)
    base = np.tile(np.arange(0, n_rows * stride, stride), len(nodes.roots))
    leaves, place = np.empty_like(node), np.arange(len(node))
    step = 0
    while len(node):
        feature = nodes.feature.take(node)
        feature += base
        value = x.take(feature, mode="wrap")
        right = value > nodes.threshold.take(node)
        if missing:
            right |= np.isnan(value) & (nodes.missing.take(node) != 0)
        after = nodes.child.take(node)
        after += right
        step += 1
        if step % CHECK_EVERY == 0:
            arrived = after == node
            done = np.flatnonzero(arrived)
            if 3 * len(done) > len(node):
                leaves[place[done]] = node[done]
                going = np.flatnonzero(~arrived)
                after, base, place = after[going], base[going], place[going]
        node = after
    return leaves


def widened(x: Floats, sides: Any) -> Floats:
    """Return x with one more column for each categorical split: 0 where the row goes left, 1 where right."""
    import numpy as np

    columns = []
    codes: dict[int, tuple[Any, Any]] = {}
    for feature, missing, left, right in sides:
        if feature not in codes:
            levels = np.unique(np.array(sorted({v for f, _, a, b in sides if f == feature for v in a | b})))
            at = np.searchsorted(levels, x[:, feature]).clip(max=len(levels) - 1)
            codes[feature] = levels, np.where(levels[at] == x[:, feature], at, len(levels))
        levels, code = codes[feature]
        goes = np.full(len(levels) + 1, float(missing))
        goes[:-1][np.isin(levels, list(left))] = 0.0
        goes[:-1][np.isin(levels, list(right))] = 1.0
        columns.append(goes[code])
    return np.hstack([x, np.column_stack(columns)])


class Batches:
    """Sums the trees' outcomes for many rows."""

    def __init__(self, layout: Layout, *, votes: bool, n_out: int) -> None:
        import numpy as np

        self._layout, self._votes = layout, votes
        self._walk = Walk(layout)
        self._sides = layout.sides()
        self._table: Any = None
        if not layout.double:
            values = layout.file.array(layout.prefix + "values")
            # row k < n_out is a vote for class k, the others stand behind; outcome -1 is the first of them
            self._table = np.vstack([np.eye(n_out), values]) if votes else values[:, 0]
        self._n_out = n_out

    def sums(self, parts: Sequence[Csr | Floats], n_rows: int, baseline: Sequence[float]) -> Floats:
        """Return the sums over the trees, added in their order: per class, or per sum of `baseline`."""
        import numpy as np

        width = self._n_out if self._votes else len(baseline)
        total = np.zeros((n_rows, width), order="F")
        if not self._votes:
            total += baseline
        rows = max(1, DENSE_CELLS // (self._layout.width + len(self._sides)))
        for nodes in self._walk.groups():
            for low in range(0, n_rows, rows):
                x = self._dense([take_rows(part, low, low + rows) for part in parts])
                for first, found in outcomes(nodes, x):
                    self._add(total[low + first : low + first + found.shape[1]], found, nodes.first)
        return total

    def _dense(self, parts: Sequence[Csr | Floats]) -> Any:
        import numpy as np

        x = side_by_side(parts)
        if self._layout.double:
            return widened(x, self._sides) if self._sides else x
        with np.errstate(over="ignore"):
            return x.astype(np.float32)

    def _add(self, total: Any, found: Any, first: int) -> None:
        """Add the outcomes of consecutive trees, the first of which has the number `first`."""
        import numpy as np

        rows, width = total.shape
        if self._votes and len(self._table) == self._n_out:
            at = found + np.arange(0, rows * width, width)
            total += np.bincount(at.ravel(), minlength=rows * width).reshape(rows, width)
        elif self._votes:
            for outcome in found:
                total += self._table.take(np.where(outcome < 0, self._n_out + ~outcome, outcome), axis=0)
        else:
            values = found if self._layout.double else self._table.take(found)
            for k in range(width):
                _add_in_order(total[:, (first + k) % width], values[k::width])


def _add_in_order(total: Any, values: Any) -> None:
    """Add values of shape (n, rows) to total one after the other, as no other sum of numpy promises to."""
    import numpy as np

    if len(values):
        total[:] = np.add.accumulate(np.vstack([total, values]), axis=0)[-1]
