"""One text column times one matrix of weights, for single texts: a bounded memo of product rows.

A row is (idf², idf × w…) of one term. Summed over the occurrences of the terms and divided by the root of the
first sum, that is (tf × idf) @ w with rows of length 1, as long as no term stands twice. For a term that
stands n > 1 times the weight is tf(n), not n, and its square tf(n)², not n: what is missing is added after.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from core.kinds import RowReader
from core.terms import Analyzer

MEMO_BYTES = 16 << 20  # kept in memory by one model at the most
SHORT = 256  # words of a text that are searched for repeats one by one
Row = tuple[float, ...]


class Weighted(Protocol):
    """What a text block gives: how it cuts a text, and a term's weight."""

    columns: tuple[str, ...]
    analyzer: Analyzer
    options: dict[str, Any]

    def tf(self, count: float) -> float:
        """Return the weight of a term that stands `count` times, before idf."""
        ...

    def fused_row(self, term: str, weights: RowReader) -> Row:
        """Return (idf², idf × w…) of a term, or () if it is unknown."""
        ...


class Fused:
    """Any n-grams: one memo entry a term."""

    def __init__(self, block: Weighted, weights: RowReader, n_out: int) -> None:
        self._block, self._weights = block, weights
        self._column = block.columns[0]
        self._memo: dict[str, Row] = {}
        self._limit = max(1024, MEMO_BYTES // (200 + 32 * n_out))
        self._unknown = (0.0,) * (n_out + 1)
        self._stride = n_out + 1
        self._normal = block.options["norm"] == "l2"
        self._linear = block.options["weighting"] != "binary" and not block.options["sublinear_tf"]

    def share(self, values: Mapping[str, Any]) -> list[float]:
        """Return this column's part of the scores of one row, shape (n_out,)."""
        groups = self._block.analyzer.groups(values[self._column])
        rows = [row for group in groups for row in self._rows(group)]
        missing = math.fsum(self._missing(repeats(group), rows) for group in groups)
        return self._scores(rows, missing)

    def _rows(self, terms: Sequence[str]) -> list[Row]:
        rows = list(map(self._memo.get, terms))
        if all(rows):
            return rows  # type: ignore[return-value]
        return [row or self._row(term) for term, row in zip(terms, rows, strict=True)]

    def _scores(self, rows: list[Row], missing: float) -> list[float]:
        """Return the sum of the rows, divided by the root of the squares (+ `missing`) if the norm is on."""
        if not rows:
            return [0.0] * (self._stride - 1)
        sums: list[float] = list(map(sum, zip(*rows, strict=True)))
        square, scores = sums[0] + missing, sums[1:]
        if not self._normal or square <= 0.0:
            return scores
        length = math.sqrt(square)
        return [score / length for score in scores]

    def _missing(self, counts: Mapping[str, int], rows: list[Row]) -> float:
        """Return what repeats leave out of the sum of squares; append to `rows` what they leave out of scores."""
        missing, known = 0.0, self._memo.get
        for term, count in counts.items():
            row = known(term) or self._row(term)
            if self._linear:
                missing += row[0] * (count * count - count)
                continue
            tf = self._block.tf(count)
            missing += row[0] * (tf * tf - count)
            rows.append((0.0, *[score * (tf - count) for score in row[1:]]))
        return missing

    def _row(self, term: str) -> Row:
        """Return a term's row, learnt now if the memo has none."""
        row = self._memo.get(term)
        if row is None:
            if len(self._memo) >= self._limit:
                self._memo.clear()
            row = self._memo[term] = self._block.fused_row(term, self._weights) or self._unknown
        return row


class FusedPairs(Fused):
    """Unigrams and bigrams: besides, a memo of pairs of words, each the row of the second + of the bigram.

    A warm text then costs two look-ups a word by strings whose hash is known, and no bigram is spelt out.
    """

    def __init__(self, block: Weighted, weights: RowReader, n_out: int) -> None:
        super().__init__(block, weights, n_out)
        self._after: defaultdict[str, dict[str, Row]] = defaultdict(dict)  # first word → second word → row
        self._pairs = 0
        assert block.analyzer.words is not None
        self._words = block.analyzer.words

    def share(self, values: Mapping[str, Any]) -> list[float]:
        """Return this column's part of the scores of one row, shape (n_out,)."""
        words = self._words(values[self._column])
        if not words:
            return self._scores([], 0.0)
        found = list(map(dict.get, map(self._after.__getitem__, words[:-1]), words[1:]))
        if not all(found):
            found = [row or self._pair(*pair) for pair, row in zip(pairwise(words), found, strict=True)]
        rows: list[Row] = found  # type: ignore[assignment]
        rows.append(self._row(words[0]))
        return self._scores(rows, self._missing(_repeated_terms(words), rows))

    def _pair(self, first: str, second: str) -> Row:
        alone, bigram = self._row(second), self._row(f"{first} {second}")
        if self._pairs >= self._limit:
            self._after.clear()
            self._pairs = 0
        self._pairs += 1
        row = self._after[first][second] = tuple(map(sum, zip(alone, bigram, strict=True)))
        return row


def repeats(terms: Iterable[str]) -> dict[str, int]:
    """Return the count of each term that stands more than once."""
    seen: set[str] = set()
    add = seen.add
    again = [term for term in terms if term in seen or add(term)]
    counts: dict[str, int] = {}
    for term in again:
        counts[term] = counts.get(term, 1) + 1
    return counts


def _repeated_terms(words: Sequence[str]) -> dict[str, int]:
    """Return the counts of words and of bigrams that stand more than once (a repeated bigram has such words)."""
    seen: set[str] = set()
    add = seen.add
    counts: dict[str, int] = {}
    firsts: list[int] = []  # of two neighbours that both stood before
    before = -1
    for index in [index for index, word in enumerate(words) if word in seen or add(word)]:
        word = words[index]
        counts[word] = counts[word] + 1 if word in counts else 2
        if index - before == 1:
            firsts.append(before)
        before = index
    if firsts:
        counts |= _repeated_bigrams(words, firsts)
    return counts


def _repeated_bigrams(words: Sequence[str], firsts: Sequence[int]) -> dict[str, int]:
    """Return the counts of bigrams that stand more than once, each later time at one of `firsts`."""
    if len(words) > SHORT:  # linear, while the search below is quadratic at worst
        return repeats([f"{first} {second}" for first, second in pairwise(words)])
    counts: dict[str, int] = {}
    for index in firsts:
        first, second = words[index], words[index + 1]
        at = words.index(first)
        while at < index and words[at + 1] != second:
            at = words.index(first, at + 1)
        if at < index:
            bigram = f"{first} {second}"
            counts[bigram] = counts.get(bigram, 1) + 1
    return counts
