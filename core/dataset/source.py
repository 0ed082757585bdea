"""What every format yields: the names of its columns, then chunks of cells by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from core.tuples import NamedTuple

CHUNK_ROWS = 4096
Run = Sequence[Any] | NDArray[Any]  # the cells of one column for some rows


class Absent:
    """The cell of a row that has no such key (JSON Lines only)."""


ABSENT = Absent()


class Chunk(NamedTuple):
    """Some rows: `columns[name]` holds `n_rows` cells (a list, tuple or array).

    `extra` maps keys that the first row did not have to the 0-based row that has them.
    """

    n_rows: int
    columns: Mapping[str, Run]
    extra: Mapping[str, int] = {}


class Images(Protocol):
    """The image files that cells of a column may name."""

    def find(self, name: str) -> bytes | None:
        """Return the file's bytes, or None if there is no such file. Raises DataRejected over a limit."""
        ...


@dataclass(slots=True)
class Source:
    """An opened file. `text`: cells are strings and an empty one is missing; else they have types.

    `open_end()` says, once all chunks are read, that the last line had no line end: it may have been cut.
    """

    names: tuple[str, ...]
    chunks: Iterator[Chunk]
    text: bool = False
    images: Images | None = None
    notes: list[str] = field(default_factory=list)
    open_end: Callable[[], bool] = field(default=lambda: False)
