"""Trees read from a flat file, one row at a time in pure Python.

A tree is packed records in level order: (feature i4, child i4, threshold). A row goes to `child` if its value is
<= threshold, else to `child + 1`. A leaf has feature -1, its own index as `child`, and its outcome in the place
of the threshold. Records of 12 bytes hold a float32 threshold or an int32 outcome (forests, which see x as
float32), records of 16 bytes a float64 of both (boosting). Whether a missing value goes to `child + 1` stands in
the section `missing`, one byte a node.

The first rows read the records as they lie in the file. Then, a bounded piece at a call, small forests are
turned into nested tuples; large ones are read from memory that was checked once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from math import copysign, inf, nextafter
from operator import neg
from typing import TYPE_CHECKING, Any

from core.errors import IntegrityError
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Pairs

MAX_NESTED_NODES = 300_000  # about 90 bytes each as nested tuples
PIECE_NODES = 2_000  # turned into tuples by one call, about a millisecond
Node = tuple[Any, ...]  # (feature, threshold, left, right); a leaf is (None, outcome, 0, 0)
Side = tuple[int, bool, frozenset[float], frozenset[float]]  # feature, missing goes right, left and right levels


class Shared(NamedTuple):
    """Leaves and thresholds that stand in many places of a forest: one object each keeps it in the caches."""

    leaves: dict[Any, Node]
    cuts: dict[float, float]


class Layout:
    """Where the trees of one model lie in its file, and how to read them."""

    def __init__(self, file: FlatFile, prefix: str, width: int) -> None:
        self.file, self.prefix, self.width = file, prefix, width
        self.double = file.section(prefix + "nodes").shape[1] == 4
        self.record = struct.Struct("<iid" if self.double else "<iif")
        self.leaf = struct.Struct("<iid" if self.double else "<iii")
        self.n_nodes = file.section(prefix + "nodes").shape[0]
        self.n_trees = file.section(prefix + "roots").shape[0]

    def roots(self) -> list[int]:
        """Return the index of each tree's first record, and the number of records at the end."""
        read = self.file.rows(self.prefix + "roots")
        return [read(index)[0] for index in range(self.n_trees)] + [self.n_nodes]

    def values(self) -> Callable[[int], tuple[float, ...]]:
        """Return the reader of the outcomes that are no class: probabilities or one value a row."""
        return self.file.rows(self.prefix + "values")

    def missing(self) -> Callable[[int], tuple[int, ...]]:
        """Return the reader of the flags: 1 if a missing value goes right."""
        return self.file.rows(self.prefix + "missing")

    def sides(self) -> list[Side]:
        """Return the categorical splits: split j stands in the records as feature `width` + j."""
        import json

        if self.prefix + "sides" not in self.file.sections:
            return []
        plain = json.loads(bytes(self.file.raw(self.prefix + "sides")))
        return [(f, bool(m), frozenset(left), frozenset(right)) for f, m, left, right in plain]


class Outcomes:
    """What a leaf's outcome means: a class (votes), pairs (class, probability), or a value."""

    def __init__(self, layout: Layout, *, votes: bool) -> None:
        self._votes, self._double = votes, layout.double
        self._values = None if layout.double else layout.values()

    def __call__(self, outcome: Any) -> Any:
        """Return a class or (class, probability) pairs for votes, else a float."""
        if self._values is None:
            return outcome
        if not self._votes:
            return self._values(outcome)[0]
        if outcome >= 0:
            return outcome
        return tuple((k, p) for k, p in enumerate(self._values(~outcome)) if p)


class Walker:
    """Leads one row of x to its leaf in each tree."""

    def __init__(self, layout: Layout, *, votes: bool) -> None:
        self._layout = layout
        self._outcome = Outcomes(layout, votes=votes)
        self._roots = layout.roots()
        self._sides = layout.sides()
        self._read = layout.file.records(layout.prefix + "nodes", layout.record, layout.n_nodes)
        self._leaf = layout.file.records(layout.prefix + "nodes", layout.leaf, layout.n_nodes)
        self._missing = layout.missing()
        self._trees: list[Node] = []  # the first trees, as nested tuples
        self._buffer: Any = None  # all records, once they were checked as a whole
        self._steps = self._prepare()

    def leaves(self, x: list[float]) -> list[Any]:
        """Return the outcome of each tree for one row: x as `dense_row` gives it."""
        if self._buffer is not None:
            return self._from_buffer(x)
        built = self._trees[:]  # another thread may be building more
        found: list[Any] = []
        if built:
            both = x if len(x) > self._layout.width else [*x, *map(neg, x)]
            found = (_nested_mixed if self._sides else _nested)(built, both)
        for root in self._roots[len(built) : -1]:
            found.append(self._outcome(self._leaf(self._descend(root, x))[2]))
        return found

    def advance(self) -> bool:
        """Prepare a piece of what makes rows fast; return whether there is nothing left to do."""
        return next(self._steps, True)

    def _descend(self, node: int, x: Sequence[float]) -> int:
        """Return the leaf that x reaches from `node`, reading one record at a time."""
        read, width = self._read, self._layout.width
        feature, child, threshold = read(node)
        while feature >= 0:
            value = x[feature] if feature < width else self._side(feature - width, x)
            if value <= threshold:
                node = child
            elif value > threshold:
                node = child + 1
            else:
                node = child + self._missing(node)[0]
            feature, child, threshold = read(node)
        return node

    def _side(self, index: int, x: Sequence[float]) -> float:
        """Return 0 if x goes left at a categorical split, 1 if it goes right."""
        feature, missing, left, right = self._sides[index]
        value = x[feature]
        return 0.0 if value in left else 1.0 if value in right else float(missing)

    def _from_buffer(self, x: Sequence[float]) -> list[Any]:
        """Return the outcomes read from the checked buffer, where nothing is left to check but indices."""
        buffer, unpack, size = self._buffer, self._layout.record.unpack_from, self._layout.record.size
        found, leaf, outcome = [], self._layout.leaf.unpack_from, self._outcome
        for root in self._roots[:-1]:
            node = root
            feature, child, threshold = unpack(buffer, node * size)
            while feature >= 0:
                value = x[feature]
                if value <= threshold:
                    node = child
                elif value > threshold:
                    node = child + 1
                else:
                    node = child + self._missing(node)[0]
                feature, child, threshold = unpack(buffer, node * size)
            found.append(outcome(leaf(buffer, node * size)[2]))
        return found

    def _prepare(self) -> Iterator[bool]:
        if self._layout.n_nodes > MAX_NESTED_NODES and not self._sides:
            self._buffer = self._layout.file.raw(self._layout.prefix + "nodes")
            return
        yield from self._nest()

    def _nest(self) -> Iterator[bool]:
        layout, done = self._layout, 0
        read = layout.file.slice_reader(layout.prefix + "nodes")
        missing = layout.file.slice_reader(layout.prefix + "missing")
        shared = Shared({}, {})
        for start, stop in zip(self._roots, self._roots[1:], strict=False):
            raw = read(start * layout.record.size, stop * layout.record.size)
            self._trees.append(self._tree(raw, missing(start, stop), start, shared))
            done += stop - start
            if done >= PIECE_NODES:
                done = 0
                yield False

    def _tree(self, raw: bytes, missing: bytes, start: int, shared: Shared) -> Node:
        """Return a tree as nested tuples."""
        records, outcomes = self._layout.record.iter_unpack(raw), self._layout.leaf.iter_unpack(raw)
        plain = list(zip(records, outcomes, missing, strict=True))
        nodes: list[Any] = [None] * len(plain)
        for index in range(len(plain) - 1, -1, -1):
            (feature, child, threshold), (_, _, outcome), right = plain[index]
            if feature < 0:
                leaf = shared.leaves.get(outcome)
                if leaf is None:
                    leaf = shared.leaves[outcome] = (None, self._outcome(outcome), 0, 0)
                nodes[index] = leaf
                continue
            at = child - start
            if not index < at < len(plain) - 1:
                raise IntegrityError("a tree is not in level order")
            cut = shared.cuts.setdefault(threshold, threshold)
            nodes[index] = self._split(feature, cut, (nodes[at], nodes[at + 1]), bool(right))
        return tuple(nodes[0])

    def _split(self, feature: int, threshold: float, children: tuple[Node, Node], right: bool) -> Node:
        """Return a split of the nested form, where a missing value always takes the last place.

        If it goes left, the split is told of -x, which stands behind x: -x <= the number before -threshold is
        x > threshold. A categorical split holds the levels that take the first place.
        """
        low, high = children
        if feature >= self._layout.width:
            at, _, left, levels = self._sides[feature - self._layout.width]
            return (at, left, low, high) if right else (at, levels, high, low)
        if right:
            return (feature, threshold, low, high)
        return (feature + self._layout.width, nextafter(-threshold, -inf), high, low)


def _nested(trees: Sequence[Node], x: Sequence[float]) -> list[Any]:
    """Return the outcomes for one row, x followed by -x."""
    found = []
    for feature, threshold, left, right in trees:
        while feature is not None:
            feature, threshold, left, right = left if x[feature] <= threshold else right  # noqa: PLW2901
        found.append(threshold)
    return found


def _nested_mixed(trees: Sequence[Node], x: Sequence[float]) -> list[Any]:
    """Return what `_nested` does for trees of which some splits hold a set of levels."""
    found = []
    for feature, threshold, left, right in trees:
        while feature is not None:
            value = x[feature]
            low = value <= threshold if threshold.__class__ is float else value in threshold
            feature, threshold, left, right = left if low else right  # noqa: PLW2901
        found.append(threshold)
    return found


def dense_row(pairs: Pairs, width: int, *, single: bool) -> list[float]:
    """Return one row of x, rounded to float32 if `single`: `width` floats, or those and their negatives."""
    values = [value for _, value in pairs]
    if single:
        values = rounded(values)
    if len(values) == width:
        return values
    x = [0.0] * (2 * width)
    for (index, _), value in zip(pairs, values, strict=True):
        x[index], x[index + width] = value, -value
    return x


def rounded(values: list[float]) -> list[float]:
    """Return the values rounded to float32."""
    form = f"<{len(values)}f"
    try:
        return list(struct.unpack(form, struct.pack(form, *values)))
    except OverflowError:
        return [_single(value) for value in values]


def _single(value: float) -> float:
    """Return a value as float32 has it, infinite beyond its range."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return copysign(inf, value)
