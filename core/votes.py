"""Votes of a forest for one row by bit masks, for forests whose leaves each stand for one class.

Every leaf of a group of trees has a bit. For a feature, sorted thresholds cut the line into buckets, and a
bucket's mask has the bits of all leaves that a value in it does not rule out. The masks of all features ANDed
leave one bit a tree, so counting the bits of a class counts its votes. (Related to QuickScorer, Lucchese et al.
2015, which ANDs one mask for each false split; here each feature costs one bisection and one AND.)

Bits are ordered by class. The class with the most leaves has none: it gets the votes that no other class got.
A leaf of mixed classes has its bit behind them all; a row that reaches one is left to the tree walk. In the file
a mask is XORed with the one before it, and a feature's masks are deflated together.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from core.errors import IntegrityError
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Sections

MAX_MASK_BYTES = 8 << 20  # of one model, in memory
MAX_STEPS = 256  # bisections for one row
MAX_MIXED = 0.02  # share of leaves of mixed classes
GROUPS = (1, 2, 4, 8)
PIECE_BYTES = 1 << 20  # of masks prepared by one call, about a millisecond
SEEN_VALUES = 64  # of a feature, whose mask is found without a bisection


class Flat(NamedTuple):
    """The trees of a forest as numpy arrays, children after parents, a right child behind its left sibling."""

    feature: Any  # int32, -1: leaf
    child: Any  # int32
    threshold: Any  # float32
    outcome: Any  # int32, a class, negative if mixed
    roots: Any  # int32, shape (n_trees + 1,), the last one is the number of nodes


def masks(trees: Flat, n_classes: int) -> Sections:
    """Return the sections of the masks; none if they would be too large, too slow or of no use."""
    import numpy as np

    leaves = trees.feature < 0
    if (trees.outcome[leaves] < 0).mean() > MAX_MIXED:
        return {}
    for count in GROUPS:
        cuts = np.linspace(0, len(trees.roots) - 1, count + 1).round().astype(int)
        groups = [_group(trees, int(a), int(b)) for a, b in pairwise(cuts) if a < b]
        if sum(_steps(group) for group in groups) > MAX_STEPS:
            return {}
        if sum(_size(group) for group in groups) <= MAX_MASK_BYTES:
            return _sections(groups, n_classes)
    return {}


def _group(trees: Flat, first: int, last: int) -> Flat:
    """Return trees first..last-1 with indices from 0."""
    start, stop = int(trees.roots[first]), int(trees.roots[last])
    cut = slice(start, stop)
    roots = trees.roots[first : last + 1] - start
    return Flat(trees.feature[cut], trees.child[cut] - start, trees.threshold[cut], trees.outcome[cut], roots)


def _cells(group: Flat) -> Any:
    """Return the distinct (feature, threshold) of the splits, sorted, as a structured array."""
    import numpy as np

    inner = group.feature >= 0
    cells = np.empty(int(inner.sum()), [("feature", "<i4"), ("threshold", "<f4")])
    cells["feature"], cells["threshold"] = group.feature[inner], group.threshold[inner]
    return np.unique(cells)


def _steps(group: Flat) -> int:
    return len(set(group.feature.tolist()) - {-1})


def _size(group: Flat) -> int:
    return (len(_cells(group)) + _steps(group)) * (-(-int((group.feature < 0).sum()) // 8))


def _sections(groups: Sequence[Flat], n_classes: int) -> Sections:
    import numpy as np

    index: list[tuple[int, ...]] = []
    bits, thresholds, blobs = [], [], []
    at = 0
    for number, group in enumerate(groups):
        cells = _cells(group)
        first, last = _ranges(group)
        order, counts = _bit_order(group, first, n_classes)
        bits.append([*counts, len(group.roots) - 1])
        thresholds.append(_bounds(cells["threshold"]))
        for feature in np.unique(cells["feature"]):
            cuts = cells["threshold"][cells["feature"] == feature]
            blob = _deflated(_alive(group, int(feature), cuts, (first, last))[:, order])
            index.append((number, int(feature), len(cuts), at, len(blob)))
            blobs.append(blob)
            at += len(blob)
    return {
        "mask_index": np.array(index, np.int32).reshape(-1, 5),
        "mask_bits": np.array(bits, np.int32),
        "mask_cuts": np.concatenate(thresholds),
        "masks": b"".join(blobs),
    }


def _bounds(threshold: Any) -> Any:
    """Return the largest float64 that is <= threshold once it is rounded to float32: rows need no rounding."""
    import numpy as np

    exact = threshold.astype(np.float64)
    with np.errstate(over="ignore"):
        after = np.nextafter(threshold, np.float32(np.inf)).astype(np.float64)
        after[np.isinf(after)] = 2.0**128  # what would follow the largest float32
        middle = (exact + after) / 2
        stays = middle.astype(np.float32) == threshold  # a tie goes to the even one of the two
    return np.where(np.isinf(exact) | stays, np.maximum(exact, middle), np.nextafter(middle, -np.inf))


def _ranges(group: Flat) -> tuple[Any, Any]:
    """Return for each node the first leaf below it and the one behind its last, leaves in depth-first order."""
    import numpy as np

    n = len(group.feature)
    count, first = np.ones(n, np.int64), np.zeros(n, np.int64)
    inner = np.flatnonzero(group.feature >= 0)
    for node in inner[::-1]:
        count[node] = count[group.child[node]] + count[group.child[node] + 1]
    first[group.roots[:-1]] = np.concatenate([[0], np.cumsum(count[group.roots[:-1]])[:-1]])
    for node in inner:
        left = group.child[node]
        first[left], first[left + 1] = first[node], first[node] + count[left]
    return first, first + count


def _alive(group: Flat, feature: int, cuts: Any, ranges: tuple[Any, Any]) -> Any:
    """Return whether a value in a bucket leaves a leaf possible, bool of shape (n_cuts + 1, n_leaves)."""
    import numpy as np

    first, last = ranges
    alive = np.ones((len(cuts) + 1, int((group.feature < 0).sum())), bool)
    for node in np.flatnonzero(group.feature == feature):
        left, bucket = group.child[node], int(np.searchsorted(cuts, group.threshold[node])) + 1
        alive[:bucket, first[left + 1] : last[left + 1]] = False
        alive[bucket:, first[left] : last[left]] = False
    return alive


def _bit_order(group: Flat, first: Any, n_classes: int) -> tuple[Any, list[int]]:
    """Return the leaves that have a bit, by class, and the bits of each class, -1 if it has none; mixed last."""
    import numpy as np

    leaves = np.flatnonzero(group.feature < 0)
    kinds = np.empty(len(leaves), np.int64)
    outcome = group.outcome[leaves]
    kinds[first[leaves]] = np.where(outcome < 0, n_classes, outcome)
    counts = np.bincount(kinds, minlength=n_classes + 1).tolist()
    largest = int(np.argmax(counts[:-1]))
    counts[largest] = -1
    order = np.argsort(kinds, kind="stable")
    return order[kinds[order] != largest], counts


def _deflated(alive: Any) -> bytes:
    import numpy as np

    packed = np.packbits(alive, axis=1, bitorder="little")
    packed[1:] ^= packed[:-1].copy()
    return zlib.compress(packed.tobytes(), 6)


class Group(NamedTuple):
    """The masks of some trees. `steps` holds feature, values seen with their mask, cuts, and a mask a bucket."""

    n_trees: int
    bits: tuple[int, ...]  # of each class, -1: the votes that no other class got; at last the mixed leaves
    every: int  # the mask of all bits
    steps: list[tuple[int, dict[float, int], Sequence[float], list[int]]]

    def counts(self, x: Sequence[float]) -> list[int] | None:
        """Return the votes for each class, None if a leaf of mixed classes is reached or a value is missing."""
        left = self.every
        for feature, seen, cuts, buckets in self.steps:
            value = x[feature]
            mask = seen.get(value)
            if mask is None:
                if value != value:  # noqa: PLR0124
                    return None
                mask = buckets[bisect_left(cuts, value)]
                if len(seen) < SEEN_VALUES:
                    seen[value] = mask
            left &= mask
        counts, votes, rest = [], 0, 0
        for index, bits in enumerate(self.bits[:-1]):
            if bits < 0:
                rest = index
                counts.append(0)
                continue
            count = (left & ((1 << bits) - 1)).bit_count()
            left >>= bits
            votes += count
            counts.append(count)
        counts[rest] = self.n_trees - votes
        return None if left else counts


class Ballot:
    """Counts the votes of one row, once all masks are in memory."""

    def __init__(self, file: FlatFile, prefix: str) -> None:
        self._file, self._prefix = file, prefix
        self._groups: list[Group] = []
        self._pieces = self._prepare()

    def advance(self) -> bool:
        """Read a piece of the masks; return whether all are there."""
        return next(self._pieces, True)

    def counts(self, x: Sequence[float]) -> list[int] | None:
        """Return the votes for each class; None for a row that the trees themselves must judge.

        That is one with NaN, or one that reaches a leaf of mixed classes. x need not be rounded to float32.
        """
        first, *others = self._groups
        total = first.counts(x)
        for group in others:
            counts = group.counts(x)
            if total is None or counts is None:
                return None
            total = [a + b for a, b in zip(total, counts, strict=True)]
        return total

    def _prepare(self) -> Iterator[bool]:
        file, prefix = self._file, self._prefix
        bits, index = file.rows(prefix + "mask_bits"), file.rows(prefix + "mask_index")
        cuts, blobs = file.slice_reader(prefix + "mask_cuts"), file.slice_reader(prefix + "masks")
        for number in range(file.section(prefix + "mask_bits").shape[0]):
            *counts, n_trees = bits(number)
            every = (1 << sum(max(0, count) for count in counts)) - 1
            self._groups.append(Group(n_trees, tuple(counts), every, []))
        cut = done = 0
        for entry in range(file.section(prefix + "mask_index").shape[0]):
            number, feature, count, at, size = index(entry)
            group = self._groups[number]
            thresholds = struct.unpack(f"<{count}d", cuts(cut * 8, (cut + count) * 8))
            masks = _inflated(blobs(at, at + size), count + 1, (group.every.bit_length() + 7) // 8)
            group.steps.append((feature, {}, thresholds, masks))
            cut += count
            done += (count + 1) * group.every.bit_length() // 8
            if done >= PIECE_BYTES:
                done = 0
                yield False


def _inflated(blob: bytes, count: int, size: int) -> list[int]:
    """Return `count` masks of `size` bytes each."""
    raw = zlib.decompressobj().decompress(blob, count * size)
    if len(raw) != count * size:
        raise IntegrityError("the masks of a forest are not as long as they should be")
    found, mask = [], 0
    for low in range(0, len(raw), size):
        mask ^= int.from_bytes(raw[low : low + size], "little")
        found.append(mask)
    return found
