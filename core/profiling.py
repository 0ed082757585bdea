"""What a data file is like, column by column, gathered in one pass in bounded memory. No spec is needed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset.archive import IMAGE_ENDS
from core.dataset.cells import NUMBER
from core.dataset.source import ABSENT, Run
from core.dataset.wide import MAGICS

MAX_DISTINCT = 20_000  # distinct cells counted per column; with more, `many` is set
MISSING_WORDS = frozenset(
    {"NA", "N/A", "na", "n/a", "NaN", "nan", "NAN", "null", "NULL", "Null", "None", "none", "?", "-", ".", "#N/A"}
)
_SAMPLE = 2000
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}( .*)?", re.ASCII)


class Profile:
    """One column. Counts are of cells; `distinct` maps a cell's text to how often it stands there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.missing = 0
        self.distinct: Counter[str] = Counter()
        self.many = False
        self.other = 0  # cells that are neither numbers nor missing, once `many` is set
        self.booleans = 0
        self.files = 0  # PNG or JPEG bytes
        self.lists: set[int] = set()  # lengths of lists of numbers
        self.shape: tuple[int, ...] | None = None  # of an array with more than one axis: of one row
        self.dtype = ""
        self.sample: list[str] = []

    def add(self, cells: Run) -> None:
        """Count the cells of a chunk."""
        self.count += len(cells)
        if isinstance(cells, np.ndarray) and cells.ndim > 1:
            self.shape, self.dtype = cells.shape[1:], cells.dtype.kind
            return
        texts = [text for cell in _plain(cells) if (text := self._text(cell)) is not None]
        room = _SAMPLE - len(self.sample)
        self.sample += texts[:room]
        if self.many:
            self.other += sum(not _is_numeric(text) for text in texts)
            return
        self.distinct.update(texts)
        if len(self.distinct) > MAX_DISTINCT:
            self.many = True
            self.other = sum(n for text, n in self.distinct.items() if not _is_numeric(text))

    def _text(self, cell: Any) -> str | None:
        """Return what to count of a cell, None if it is missing or nothing to count."""
        if isinstance(cell, str):
            self.missing += not cell
            return cell or None
        if cell is None or cell is ABSENT or (isinstance(cell, float) and math.isnan(cell)):
            self.missing += 1
        elif isinstance(cell, bool):
            self.booleans += 1
            return "true" if cell else "false"
        elif isinstance(cell, int | float):
            return repr(cell)
        elif isinstance(cell, list):
            self.lists.add(len(cell))
        elif isinstance(cell, bytes):
            self.files += cell.startswith(MAGICS)
        return None

    @property
    def present(self) -> int:
        """Return the number of cells that are not missing."""
        return self.count - self.missing

    def words_for_missing(self) -> set[str]:
        """Return the words that stand for "missing" in a column that else holds numbers."""
        words = {text for text in self.distinct if text in MISSING_WORDS}
        rest = [text for text in self.distinct if text not in MISSING_WORDS]
        return words if rest and all(map(_is_numeric, rest)) else set()

    def is_number(self) -> bool:
        """Whether every cell is a number, is missing or is a word for that; inf and nan are none."""
        if self.shape is not None or self.lists or self.files or self.booleans or not self.present:
            return False
        if self.many:
            return not self.other
        return all(_is_numeric(text) or text in MISSING_WORDS for text in self.distinct) and any(
            map(_is_numeric, self.distinct)
        )

    def n_distinct(self) -> int:
        """Return the number of distinct cells, at most a little over MAX_DISTINCT."""
        return len(self.distinct)

    def is_unique(self) -> bool:
        """Whether no value stands there twice, as far as was counted."""
        return bool(self.distinct) and max(self.distinct.values()) == 1

    def numbers(self) -> NDArray[np.float64]:
        """Return the distinct numbers, rising."""
        return np.unique([float(text) for text in self.distinct if _is_numeric(text)])

    def mean_words(self) -> float:
        """Return the mean number of words of a cell, from a sample."""
        return sum(len(text.split()) for text in self.sample) / len(self.sample) if self.sample else 0.0

    def share(self, test: Any) -> float:
        """Return the share of sampled cells that pass a test."""
        return sum(map(bool, map(test, self.sample))) / len(self.sample) if self.sample else 0.0

    def names_images(self) -> bool:
        """Whether the cells look like names of image files."""
        return self.share(lambda text: text.lower().endswith(IMAGE_ENDS)) > 0.95

    def looks_like_dates(self) -> bool:
        """Whether the cells look like dates."""
        return self.share(_DATE.fullmatch) > 0.95


def _is_numeric(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None


def _plain(cells: Run) -> Sequence[Any]:
    return cells.tolist() if isinstance(cells, np.ndarray) else cells
