"""One text column times one matrix of weights, for single texts: a bounded memo of product rows.

A row is (idf², idf × w…) of one term. Summed over the occurrences of the terms and divided by the root of the
first sum, that is (tf × idf) @ w with rows of length 1, as long as no term stands twice. For a term that
stands n > 1 times the weight is tf(n), not n, and its square tf(n)², not n: what is missing is added after.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, Protocol

from core.kinds import RowReader
from core.terms import Analyzer

MEMO_BYTES = 16 << 20  # kept in memory by one model at the most
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
        self._memo: dict[Any, Row] = {}
        self._limit = max(1024, MEMO_BYTES // (200 + 32 * n_out))
        self._unknown = (0.0,) * (n_out + 1)
        self._stride = n_out + 1
        self._normal = block.options["norm"] == "l2"
        self._linear = block.options["weighting"] != "binary" and not block.options["sublinear_tf"]

    def share(self, values: Mapping[str, Any]) -> list[float]:
        """Return this column's part of the scores of one row, shape (n_out,)."""
        groups = self._block.analyzer.groups(values[self._column])
        rows = [row for group in groups for row in self._rows(group)]
        return self._scores(rows, groups)

    def _rows(self, terms: Sequence[str]) -> list[Row]:
        rows = list(map(self._memo.get, terms))
        if all(rows):
            return rows  # type: ignore[return-value]
        return [row or self._row(term) for term, row in zip(terms, rows, strict=True)]

    def _scores(self, rows: list[Row], groups: Iterable[Sequence[str]]) -> list[float]:
        square = 0.0
        for group in groups:
            if len(set(group)) != len(group):
                square += self._repeated(group, rows)
        if not rows:
            return [0.0] * (self._stride - 1)
        cells, stride = list(chain.from_iterable(rows)), self._stride
        square += sum(cells[::stride])
        scores: list[float] = [sum(cells[k::stride]) for k in range(1, stride)]
        if not self._normal or square <= 0.0:
            return scores
        length = math.sqrt(square)
        return [score / length for score in scores]

    def _repeated(self, terms: Sequence[str], rows: list[Row]) -> float:
        """Return what is missing from the sum of squares; append to `rows` what is missing from the scores."""
        missing = 0.0
        for term, count in Counter(terms).items():
            if count > 1:
                row, tf = self._row(term), self._block.tf(count)
                missing += row[0] * (tf * tf - count)
                if not self._linear:
                    rows.append((0.0, *[score * (tf - count) for score in row[1:]]))
        return missing

    def _row(self, term: str) -> Row:
        """Return a term's row, learnt now if the memo has none."""
        return self._memo.get(term) or self._keep(
            term, self._block.fused_row(term, self._weights) or self._unknown
        )

    def _keep(self, key: Any, row: Row) -> Row:
        if len(self._memo) >= self._limit:
            self._memo.clear()
        self._memo[key] = row
        return row


class FusedPairs(Fused):
    """Unigrams and bigrams: besides, one memo entry a pair of words, the row of the second word + the bigram's.

    A warm text then costs one look-up a word, and no bigram is spelt out.
    """

    def share(self, values: Mapping[str, Any]) -> list[float]:
        """Return this column's part of the scores of one row, shape (n_out,)."""
        words = self._block.analyzer.words(values[self._column])  # type: ignore[misc]
        pairs = list(pairwise(words))
        found = list(map(self._memo.get, pairs))
        rows: list[Row]
        rows = (
            found
            if all(found)
            else [  # type: ignore[assignment]
                row or self._pair(pair) for pair, row in zip(pairs, found, strict=True)
            ]
        )
        if words:
            rows.append(self._row(words[0]))
        bigrams = [] if len(set(pairs)) == len(pairs) else [" ".join(pair) for pair in pairs]
        return self._scores(rows, (words, bigrams))

    def _pair(self, pair: tuple[str, str]) -> Row:
        second, bigram = self._row(pair[1]), self._row(" ".join(pair))
        return self._keep(pair, tuple(map(sum, zip(second, bigram, strict=True))))
