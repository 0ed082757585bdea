"""Pictures → pixels, histogram of oriented gradients and colour histogram, scaled by what was learnt in fit.

A picture is fitted into `size` keeping its proportions, on black; one that has the size already is not touched.
PNG and JPEG files and uint8 arrays of the same pixels give the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import InvalidInput, Problem
from core.kinds import Pairs, RowReader

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections
    from core.schema import Batch, Column

DEFAULTS: dict[str, Any] = {"size": [32, 32], "grey": True, "pixels": True, "hog": True, "histogram": 0}
MAX_PIXELS = 16_000_000
ORIENTATIONS = 9
CLIP = 0.2  # of the normalised block, Dalal & Triggs 2005
_RUN = 512  # pictures in memory as floats at once


class ImageBlock:
    """One image column."""

    def __init__(self, column: str, options: Mapping[str, Any], moments: Callable[[], tuple[Any, Any]]) -> None:
        """`moments` returns mean and scale of the raw features, float64 arrays of shape (width,)."""
        self.columns: tuple[str, ...] = (column,)
        self.options = {**DEFAULTS, **options}
        self._column, self._moments = column, moments
        self.width = len(self.names())

    def params(self) -> dict[str, Any]:
        """Return the options."""
        return {"options": self.options}

    def sections(self) -> Sections:
        """Return `mean` and `scale`."""
        mean, scale = self._moments()
        return {"mean": mean, "scale": scale}

    def names(self) -> list[str]:
        """Return the column's name with the part and the position."""
        o, (height, width) = self.options, self.options["size"]
        sizes = {
            "pixel": height * width * (1 if o["grey"] else 3) * bool(o["pixels"]),
            "gradient": _hog_width(height, width) * bool(o["hog"]),
            "colour": 3 * int(o["histogram"]),
        }
        return [f"{self._column}:{part}[{i}]" for part, size in sizes.items() for i in range(size)]

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return the features of one picture that are not zero."""
        x = self._scaled(self._raw([values[self._column]], 0))[0].tolist()
        return [(index, value) for index, value in enumerate(x) if value]

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return a function that asks for the matrix: with so many features numpy is faster even for one row."""
        return _ask_for_matrix

    def matrix(self, batch: Batch) -> Floats:
        """Return the features, float64 of shape (n_rows, width).

        Raises InvalidInput that names the row of a picture that cannot be read.
        """
        import numpy as np

        pictures = batch.columns[self._column]
        x = np.empty((batch.n_rows, self.width))
        for start in range(0, batch.n_rows, _RUN):
            x[start : start + _RUN] = self._scaled(self._raw(pictures[start : start + _RUN], start))
        return x

    def _scaled(self, raw: Floats) -> Floats:
        mean, scale = self._moments()
        scaled: Floats = (raw - mean) / scale
        return scaled

    def _raw(self, pictures: Sequence[Any], first_row: int) -> Floats:
        import numpy as np

        o = self.options
        colour = self._colour(pictures, first_row)
        grey = _luma(colour)
        parts = [np.zeros((len(pictures), 0))]
        if o["pixels"]:
            parts.append((grey if o["grey"] else colour).reshape(len(pictures), -1) / 255.0)
        if o["hog"]:
            parts.append(_hog(grey / 255.0))
        if o["histogram"]:
            parts.append(_histogram(colour, int(o["histogram"])))
        return np.hstack(parts)

    def _colour(self, pictures: Sequence[Any], first_row: int) -> Floats:
        """Return the pictures at `size`, float64 of shape (n, h, w, 3), 0 to 255."""
        import numpy as np

        height, width = self.options["size"]
        rows = [
            _fitted(self._pixels(picture, first_row + index), height, width)
            for index, picture in enumerate(pictures)
        ]
        stacked = np.stack([np.broadcast_to(_channels(p), (height, width, 3)) for p in rows]) if rows else None
        return np.zeros((0, height, width, 3)) if stacked is None else stacked.astype(np.float64)

    def _pixels(self, picture: Any, row: int) -> Any:
        if hasattr(picture, "dtype"):
            return picture
        try:
            return decode(picture)
        except Unreadable as error:
            problem = Problem(str(error), self._column, row)
            raise InvalidInput("an image cannot be read", (problem,)) from error


class Unreadable(Exception):
    """The bytes are not a PNG or JPEG picture within the limits; the text says which rule."""


def decode(data: bytes) -> Any:
    """Return the pixels of a PNG or JPEG file, uint8 of shape (h, w) or (h, w, 3). Raises Unreadable.

    The size in the header is checked before any pixel is decoded.
    """
    import io
    import struct
    import zlib

    import numpy as np
    from PIL import Image

    broken = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Unreadable(f"must have at most {MAX_PIXELS} pixels")
            return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    except bombs as error:
        raise Unreadable(f"must have at most {MAX_PIXELS} pixels") from error
    except broken as error:
        raise Unreadable("must be a PNG or JPEG file that can be decoded") from error


def _fitted(pixels: Any, height: int, width: int) -> Any:
    """Return the picture scaled into (height, width), proportions kept, centred on black."""
    import numpy as np

    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.shape[0] == 0 or pixels.shape[1] == 0:
        return np.zeros((height, width), np.uint8)
    from PIL import Image

    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    inner = (max(1, round(pixels.shape[0] * factor)), max(1, round(pixels.shape[1] * factor)))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scaled = np.asarray(picture.resize((inner[1], inner[0]), Image.Resampling.BILINEAR))
    canvas = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = scaled
    return canvas


def _channels(pixels: Any) -> Any:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _luma(colour: Floats) -> Floats:
    """Return the brightness by ITU-R BT.601, rounded as Pillow's mode L; equal channels stay as they are."""
    import numpy as np

    return np.rint((299.0 * colour[..., 0] + 587.0 * colour[..., 1] + 114.0 * colour[..., 2]) / 1000.0)


def _cell(height: int, width: int) -> int:
    """Return the side of a HOG cell: 7 where it divides the picture (28 x 28), else 8."""
    return 7 if height % 7 == 0 and width % 7 == 0 else 8


def _hog_width(height: int, width: int) -> int:
    cell = _cell(height, width)
    return max(0, height // cell - 1) * max(0, width // cell - 1) * 4 * ORIENTATIONS


def _hog(grey: Floats) -> Floats:
    """Return histograms of oriented gradients (Dalal & Triggs 2005): cells, blocks of 2 x 2 cells, L2-Hys."""
    import numpy as np

    count, height, width = grey.shape
    cell = _cell(height, width)
    gy, gx = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(gx, gy)
    angle = np.arctan2(gy, gx) % np.pi * (ORIENTATIONS / np.pi)
    cells = np.zeros((count, height // cell, width // cell, ORIENTATIONS))
    low = np.floor(angle).astype(np.intp)
    share = angle - low
    for bins, weight in (
        (low % ORIENTATIONS, strength * (1 - share)),
        ((low + 1) % ORIENTATIONS, strength * share),
    ):
        for k in range(ORIENTATIONS):
            cells[..., k] += _pooled(np.where(bins == k, weight, 0.0), cell)
    return _blocks(cells).reshape(count, -1)


def _pooled(values: Floats, cell: int) -> Floats:
    """Return the sum over each cell x cell square; a rest at the edge is left out."""
    count, height, width = values.shape
    rows, columns = height // cell, width // cell
    inner = values[:, : rows * cell, : columns * cell]
    pooled: Floats = inner.reshape(count, rows, cell, columns, cell).sum(axis=(2, 4))
    return pooled


def _blocks(cells: Floats) -> Floats:
    import numpy as np

    blocks = np.concatenate([cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], axis=-1)
    blocks = np.minimum(_unit(blocks), CLIP)
    return _unit(blocks)


def _unit(blocks: Floats) -> Floats:
    import numpy as np

    unit: Floats = blocks / np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + 1e-10)
    return unit


def _histogram(colour: Floats, bins: int) -> Floats:
    """Return the share of pixels in each of `bins` steps of brightness, for red, green and blue."""
    import numpy as np

    level = np.minimum((colour * (bins / 256.0)).astype(np.intp), bins - 1)
    shares = [(level == k).mean(axis=(1, 2)) for k in range(bins)]
    return np.stack(shares, axis=-1).reshape(len(colour), -1)


def _ask_for_matrix(values: Mapping[str, Any]) -> list[float]:
    raise NotImplementedError


def fit(columns: Sequence[Column], batch: Batch) -> ImageBlock:
    """Return the block with mean and scale of each raw feature learnt (constant ones get scale 1)."""
    import numpy as np

    (column,) = columns
    neutral = ImageBlock(column.name, column.options, lambda: (0.0, 1.0))
    raw = neutral.matrix(batch)
    mean, scale = raw.mean(axis=0), raw.std(axis=0)
    scale = np.where(scale < 1e-12, 1.0, scale)
    return ImageBlock(column.name, column.options, lambda: (mean, scale))


def load(columns: Sequence[Column], params: Mapping[str, Any], file: FlatFile, prefix: str) -> ImageBlock:
    """Return the block whose `mean` and `scale` stand in `file` under `prefix`."""
    (column,) = columns
    return ImageBlock(
        column.name, params["options"], lambda: (file.array(prefix + "mean"), file.array(prefix + "scale"))
    )


def reference(block: ImageBlock) -> None:
    """Return None: scikit-learn has no counterpart; training and serving run this very code."""
