"""From the cells of a file to typed columns: one builder a kind, filled chunk by chunk, compact in memory.

A builder reports every bad cell and stores a placeholder for it, so that rows stay aligned.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from core.dataset.problems import Problems
from core.dataset.source import ABSENT, Run
from core.schema import MAX_TEXT_CHARS, Refused

# RFC 8259's numbers plus a leading "+", "1." and ".5": what float() takes, less words, "_" and other digits
NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*", re.ASCII)
_NUMERIC = re.compile(r"[0-9+\-.eE \t,]*", re.ASCII)
NAN = math.nan


class Builder(Protocol):
    """Collects one column."""

    def add(self, cells: Run, row: int) -> None:
        """Append cells; `row` is the 0-based number of the first."""
        ...

    def finish(self) -> Any:
        """Return the column."""
        ...


class Cells:
    """Appends cell by cell with `convert`; the base of the builders of single values."""

    def __init__(self, name: str, problems: Problems, placeholder: Any) -> None:
        self._name = name
        self._problems = problems
        self._placeholder = placeholder

    def convert(self, cell: Any) -> Any:
        """Return the value of a cell. Raises Refused with the rule that it breaks."""
        raise NotImplementedError

    def converted(self, cells: Run, row: int) -> list[Any]:
        """Return the values of the cells, a placeholder for each bad one, which is reported."""
        values: list[Any] = []
        for index, cell in enumerate(cells):
            try:
                values.append(self.convert(cell))
            except Refused as refused:
                self._problems.add(str(refused), self._name, row + index)
                values.append(self._placeholder)
        return values


def parse_number(text: str) -> float:
    """Return the number that a text cell holds. Raises ValueError for anything else, inf and nan included."""
    if not NUMBER.fullmatch(text):
        raise ValueError("must be a number such as -12.5 or 3e-4")
    number = float(text)
    if math.isinf(number):
        raise ValueError("must fit a 64-bit float")
    return number


class Numbers(Cells):
    """Collects numbers into array('d'), NaN where missing."""

    def __init__(self, name: str, problems: Problems, *, missing: frozenset[str], required: bool = False) -> None:
        super().__init__(name, problems, NAN)
        self._values = array("d")
        self._missing = missing
        self._required = required

    def add(self, cells: Run, row: int) -> None:
        """Append cells: texts, numbers or one array of numbers."""
        fast = None if self._required else _fast_numbers(cells)
        self._values.extend(self.converted(cells, row) if fast is None else fast)

    def convert(self, cell: Any) -> float:
        """Return the number of a cell, NaN if it is missing."""
        if isinstance(cell, str):
            return self._of_text(cell)
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return self._absent()
        if cell is ABSENT:
            raise Refused("is missing")
        if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | np.integer | np.floating):
            raise Refused("must be a number or null")
        try:
            number = float(cell)
        except OverflowError:
            raise Refused("must fit a 64-bit float") from None
        if math.isinf(number):
            raise Refused("must be finite")
        return self._absent() if math.isnan(number) else number

    def _of_text(self, cell: str) -> float:
        if not cell or cell.strip(" \t") in self._missing:
            return self._absent()
        try:
            return parse_number(cell)
        except ValueError as error:
            raise Refused(str(error)) from None

    def _absent(self) -> float:
        if self._required:
            raise Refused("is missing")
        return NAN

    def finish(self) -> array[float]:
        """Return the numbers."""
        return self._values


def _fast_numbers(cells: Run) -> array[float] | None:
    """Return the numbers of a clean chunk, or None if any cell needs a closer look."""
    if isinstance(cells, np.ndarray):
        clean = cells.dtype.kind in "iuf" and not np.isinf(cells).any()
        return array("d", cells.astype(np.float64).tobytes()) if clean else None
    if not cells or not isinstance(cells[0], str):
        return None
    try:
        if not _NUMERIC.fullmatch(",".join(cells)):
            return None
        numbers = array("d", [float(cell) if cell else NAN for cell in cells])
    except (TypeError, ValueError):
        return None
    return None if math.inf in numbers or -math.inf in numbers else numbers


class Texts(Cells):
    """Collects texts; a missing one is the empty text."""

    def __init__(self, name: str, problems: Problems) -> None:
        super().__init__(name, problems, "")
        self._values: list[str] = []

    def add(self, cells: Run, row: int) -> None:
        """Append cells."""
        self._values.extend(self.converted(cells, row))

    def convert(self, cell: Any) -> str:
        """Return the text of a cell."""
        if cell is None:
            return ""
        if cell is ABSENT:
            raise Refused("is missing")
        if not isinstance(cell, str):
            raise Refused("must be a string")
        return _checked(cell)

    def finish(self) -> list[str]:
        """Return the texts."""
        return self._values


def _checked(text: str) -> str:
    if len(text) > MAX_TEXT_CHARS:
        raise Refused(f"must have at most {MAX_TEXT_CHARS} characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused("must be valid Unicode (it holds half of a surrogate pair)") from None
    return text


class Categories(Cells):
    """Collects categories, each distinct one stored once, None where missing."""

    def __init__(
        self, name: str, problems: Problems, *, missing: frozenset[str], allowed: Sequence[str] = ()
    ) -> None:
        super().__init__(name, problems, None)
        self._values: list[str | None] = []
        self._missing = missing
        self._known: dict[Any, str | None] = {}
        self._allowed = frozenset(allowed)

    def add(self, cells: Run, row: int) -> None:
        """Append cells: texts, or numbers and booleans in JSON's spelling."""
        known = self._known
        try:
            self._values.extend([known[cell] for cell in cells])
        except (KeyError, TypeError):  # a new one, or one that is no text
            self._values.extend(self.converted(cells, row))

    def convert(self, cell: Any) -> str | None:
        """Return the category of a cell."""
        if isinstance(cell, str) and cell in self._known:
            return self._known[cell]
        value = self.category(cell)
        if value is not None and self._allowed and value not in self._allowed:
            raise Refused(f"must be one of the {len(self._allowed)} values that the spec lists")
        if isinstance(cell, str):  # 1, 1.0 and True are one key of a dict, so only texts are remembered
            self._known[cell] = value
        return value

    def category(self, cell: Any) -> str | None:
        """Return the text of a cell, or None if it is missing."""
        if cell is ABSENT:
            raise Refused("is missing")
        if isinstance(cell, str):
            return None if not cell or cell in self._missing else _checked(cell)
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return None
        if isinstance(cell, bool | np.bool_):
            return "true" if cell else "false"
        if isinstance(cell, int | float | np.integer | np.floating):
            return str(cell.item() if isinstance(cell, np.generic) else cell)
        raise Refused("must be a string, a number, a boolean or null")

    def finish(self) -> list[str | None]:
        """Return the categories."""
        return self._values


class Classes(Categories):
    """Collects class labels: categories that may not be missing; whole numbers lose their ".0"."""

    def __init__(self, name: str, problems: Problems) -> None:
        super().__init__(name, problems, missing=frozenset())
        self._placeholder = ""

    def category(self, cell: Any) -> str:
        """Return the class of a cell."""
        if isinstance(cell, float | np.floating) and float(cell).is_integer():
            cell = int(cell)
        value = super().category(cell)
        if value is None:
            raise Refused("is missing")
        return value
