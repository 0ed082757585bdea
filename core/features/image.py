"""Pictures → pixels, histogram of oriented gradients and colour histogram, scaled by what was learnt in fit.

A picture is fitted into `size` keeping its proportions, centred on black; one that has the size already is not
touched. PNG and JPEG files and uint8 arrays of the same pixels give the same features. Transparent pixels count
as black; the orientation that a camera noted beside the pixels is not applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core import pictures
from core.errors import ConfigError, InvalidInput, Problem
from core.kinds import Pairs, RowReader
from core.schema import MAX_PROBLEMS

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections
    from core.schema import Batch, Column

DEFAULTS: dict[str, Any] = {"size": None, "grey": True, "pixels": True, "hog": True, "histogram": 0}
SIZE = (32, 32)  # unless all pictures of the training have one size of up to KEEP_SIDE pixels
KEEP_SIDE = 64
_RUN = 512  # pictures in memory as floats at once


class ImageBlock:
    """One image column."""

    def __init__(self, column: str, options: Mapping[str, Any], moments: Callable[[], tuple[Any, Any]]) -> None:
        """`moments` returns mean and scale of the raw features, float64 arrays of shape (width,)."""
        self.columns: tuple[str, ...] = (column,)
        self.options = {**DEFAULTS, **options}
        self._column, self._moments = column, moments
        self.width = sum(self._sizes().values())

    def params(self) -> dict[str, Any]:
        """Return the options."""
        return {"options": self.options}

    def sections(self) -> Sections:
        """Return `mean` and `scale`."""
        mean, scale = self._moments()
        return {"mean": mean, "scale": scale}

    def names(self) -> list[str]:
        """Return the column's name with the part and the position."""
        return [f"{self._column}:{part}[{i}]" for part, size in self._sizes().items() for i in range(size)]

    def _sizes(self) -> dict[str, int]:
        o, (height, width) = self.options, self.options["size"]
        return {
            "pixel": height * width * (1 if o["grey"] else 3) * bool(o["pixels"]),
            "gradient": pictures.hog_width(height, width) * bool(o["hog"]),
            "colour": 3 * int(o["histogram"]),
        }

    def floats(self, values: Mapping[str, Any]) -> list[float]:
        """Return the features of one picture. Raises InvalidInput if it cannot be read."""
        x: list[float] = self._x([values[self._column]], None)[0].tolist()
        return x

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return the features of one picture that are not zero. Raises InvalidInput if it cannot be read."""
        return [(index, value) for index, value in enumerate(self.floats(values)) if value]

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return a function that asks for the matrix: with so many features numpy is faster even for one row."""
        return _ask_for_matrix

    def matrix(self, batch: Batch) -> Floats:
        """Return the features, float64 of shape (n_rows, width).

        Raises InvalidInput that names the rows of pictures that cannot be read.
        """
        import numpy as np

        entries = batch.columns[self._column]
        x = np.empty((batch.n_rows, self.width))
        for start in range(0, batch.n_rows, _RUN):
            x[start : start + _RUN] = self._x(entries[start : start + _RUN], start)
        return x

    def _x(self, entries: Sequence[Any], first_row: int | None) -> Floats:
        mean, scale = self._moments()
        scaled: Floats = (self._raw(list(self._pixels(entries, first_row))) - mean) / scale
        return scaled

    def _raw(self, pixels: list[Any]) -> Floats:
        """Return the features before scaling."""
        import numpy as np

        o = self.options
        colour = pictures.stacked(pixels, *o["size"])
        grey = pictures.luma(colour)
        parts = [np.zeros((len(pixels), 0))]
        if o["pixels"]:
            chosen = grey if o["grey"] else np.broadcast_to(colour, (*colour.shape[:3], 3))
            parts.append(chosen.reshape(len(pixels), -1) / 255.0)
        if o["hog"]:
            parts.append(pictures.hog(grey))
        if o["histogram"]:
            parts.append(pictures.histogram(colour, int(o["histogram"])))
        return np.hstack(parts)

    def _pixels(self, entries: Sequence[Any], first_row: int | None) -> Iterator[Any]:
        """Yield each picture at `size`, uint8; raise InvalidInput for those that cannot be read."""
        height, width = self.options["size"]
        problems: list[Problem] = []
        for index, entry in enumerate(entries):
            try:
                yield pictures.fitted(pictures.pixels(entry), height, width)
            except pictures.Unreadable as error:
                row = None if first_row is None else first_row + index
                problems.append(Problem(str(error), self._column, row))
                if len(problems) == MAX_PROBLEMS:
                    break
        if problems:
            raise InvalidInput(f"{len(problems)} bad cell(s)", tuple(problems), total=len(problems))


def _ask_for_matrix(values: Mapping[str, Any]) -> list[float]:
    raise NotImplementedError


def fit(columns: Sequence[Column], batch: Batch) -> ImageBlock:
    """Return the block with mean and scale of each raw feature learnt (constant ones get scale 1).

    Raises ConfigError if the options leave no feature, InvalidInput for pictures that cannot be read.
    """
    import numpy as np

    (column,) = columns
    options = {**DEFAULTS, **column.options}
    if options.keys() - DEFAULTS.keys():
        raise ConfigError(f"columns.{column.name}: unknown option {min(options.keys() - DEFAULTS.keys())[:40]}")
    options["size"] = list(options["size"] or _size(batch.columns[column.name]))
    neutral = ImageBlock(column.name, options, lambda: (0.0, 1.0))
    if neutral.width == 0:
        raise ConfigError(f"columns.{column.name}: choose at least one of pixels, hog and histogram")
    raw = neutral.matrix(batch)
    mean, scale = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(scale < 1e-12, 1.0, scale)
    return ImageBlock(column.name, options, lambda: (mean, scale))


def _size(entries: Sequence[Any]) -> tuple[int, int]:
    """Return the size that all pictures have, if it is small, else SIZE."""
    found = {pictures.size_of(entry) for entry in entries}
    common = found.pop() if len(found) == 1 else None
    return common if common is not None and max(common) <= KEEP_SIDE else SIZE


def load(columns: Sequence[Column], params: Mapping[str, Any], file: FlatFile, prefix: str) -> ImageBlock:
    """Return the block whose `mean` and `scale` stand in `file` under `prefix`."""
    (column,) = columns
    return ImageBlock(
        column.name, params["options"], lambda: (file.array(prefix + "mean"), file.array(prefix + "scale"))
    )


def reference(block: ImageBlock) -> None:
    """Return None: scikit-learn has no counterpart; training and serving run this very code."""
