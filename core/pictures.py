"""Pictures as arrays: decoding with limits, resizing, brightness, gradients, colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.kinds import Floats

MAX_PIXELS = 16_000_000
ORIENTATIONS = 9
CLIP = 0.2  # of the normalised block, Dalal & Triggs 2005


class Unreadable(Exception):
    """An entry is not a PNG or JPEG picture (or an array of one) within the limits; the text says which rule."""


def pixels(entry: Any) -> Any:
    """Return the pixels of an entry, uint8 of shape (h, w) or (h, w, 3). Raises Unreadable.

    The size in the header of a file is checked before any pixel is decoded.
    """
    if not hasattr(entry, "dtype"):
        return _decoded(entry)
    shape = entry.shape
    if entry.dtype.str != "|u1" or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise Unreadable("must be an array of bytes of shape (height, width) or (height, width, 3)")
    _check_size(shape[1], shape[0])
    return entry


def size_of(entry: Any) -> tuple[int, int] | None:
    """Return (height, width) without decoding, None if the entry cannot be read."""
    try:
        height, width = entry.shape[:2] if hasattr(entry, "dtype") else _opened(entry).size[::-1]
    except (Unreadable, ValueError):
        return None
    return height, width


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"must have at most {MAX_PIXELS} pixels")
    if width * height == 0:
        raise Unreadable("must have at least one pixel")


def _opened(data: bytes) -> Any:
    """Return the Pillow image whose header was read and found within the limits."""
    import io

    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"must have at most {MAX_PIXELS} pixels") from error
    except _broken() as error:
        raise Unreadable("must be a PNG or JPEG file") from error
    _check_size(*picture.size)
    return picture


def _decoded(data: bytes) -> Any:
    import numpy as np

    picture = _opened(data)
    try:
        if picture.mode.startswith("I;16"):  # 16 bits a pixel: the upper 8
            return (np.asarray(picture) >> 8).astype(np.uint8)
        if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
            return _on_black(picture.convert("RGBA"))
        return np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
    except _broken() as error:
        raise Unreadable("must be a PNG or JPEG file that can be decoded") from error


def _on_black(picture: Any) -> Any:
    import numpy as np
    from PIL import Image

    black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, picture).convert("RGB"))


def _broken() -> tuple[type[Exception], ...]:
    """Return what Pillow raises for damaged files, by experience."""
    import struct
    import zlib

    return (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, struct.error, zlib.error)


def fitted(picture: Any, height: int, width: int) -> Any:
    """Return the picture scaled into (height, width), proportions kept, centred on black; bilinear."""
    import numpy as np

    if picture.shape[:2] == (height, width):
        return picture
    from PIL import Image

    factor = min(height / picture.shape[0], width / picture.shape[1])
    inner = (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor)))
    small = Image.fromarray(np.ascontiguousarray(picture)).resize(inner[::-1], Image.Resampling.BILINEAR)
    canvas = np.zeros((height, width, *picture.shape[2:]), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = np.asarray(small)
    return canvas


def stacked(pictures: list[Any], height: int, width: int) -> Any:
    """Return pictures of one size as uint8 of shape (n, h, w, 1), or (n, h, w, 3) if any has colours."""
    import numpy as np

    channels = max((3 if picture.ndim == 3 else 1 for picture in pictures), default=1)
    stack = np.empty((len(pictures), height, width, channels), np.uint8)
    for index, picture in enumerate(pictures):
        stack[index] = picture if picture.ndim == 3 else picture[..., None]
    return stack


def luma(colour: Any) -> Any:
    """Return the brightness, uint8 of shape (n, h, w): ITU-R BT.601 in the fixed-point arithmetic of Pillow."""
    import numpy as np

    if colour.shape[-1] == 1:
        return colour[..., 0]
    weighted = colour @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
    return (weighted >> 16).astype(np.uint8)


def _cell(height: int, width: int) -> int:
    """Return the side of a HOG cell: 7 where it divides the picture (28 x 28), else 8; 4 or 2 for small ones."""
    least = min(height, width)
    if height % 7 == 0 and width % 7 == 0 and least >= 21:
        return 7
    return 8 if least >= 24 else 4 if least >= 8 else 2


def _cells(height: int, width: int) -> tuple[int, int, int]:
    cell = _cell(height, width)
    return cell, height // cell, width // cell


def hog_width(height: int, width: int) -> int:
    """Return the number of features that `hog` yields for pictures of this size."""
    _, rows, columns = _cells(height, width)
    return max(0, rows - 1) * max(0, columns - 1) * 4 * ORIENTATIONS


def hog(grey: Any) -> Floats:
    """Return histograms of oriented gradients, float64 of shape (n, hog_width).

    Dalal & Triggs 2005: centred differences, 9 unsigned orientations with votes shared by the two nearest,
    cells of _cell() pixels, overlapping blocks of 2 x 2 cells, L2-Hys. On brightness instead of the strongest
    colour channel, and without smoothing across cells.
    """
    import numpy as np

    count, height, width = grey.shape
    cell, rows, columns = _cells(height, width)
    if rows < 2 or columns < 2:
        return np.zeros((count, 0))
    plane = grey[:, : rows * cell, : columns * cell].astype(np.float32) / np.float32(255)
    gy, gx = np.gradient(plane, axis=(1, 2))
    strength = np.hypot(gx, gy)
    angle = np.arctan2(gy, gx) * np.float32(ORIENTATIONS / np.pi)
    low = np.floor(angle)
    share = strength * (angle - low)
    # the place of each pixel's votes: picture, row and column of its cell, then the orientation
    place = np.arange(count)[:, None, None] * rows * columns
    place = place + np.repeat(np.arange(rows), cell)[:, None] * columns + np.repeat(np.arange(columns), cell)
    place, bins = place * ORIENTATIONS, low.astype(np.intp)
    size = count * rows * columns * ORIENTATIONS
    weight = (strength - share).ravel()
    histogram: Floats = np.bincount((place + bins % ORIENTATIONS).ravel(), weight, size).astype(np.float64)
    histogram += np.bincount((place + (bins + 1) % ORIENTATIONS).ravel(), share.ravel(), size)
    return _blocks(histogram.reshape(count, rows, columns, ORIENTATIONS)).reshape(count, -1)


def _blocks(cells: Floats) -> Floats:
    import numpy as np

    blocks = np.concatenate([cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], axis=-1)
    return _unit(np.minimum(_unit(blocks), CLIP))


def _unit(blocks: Floats) -> Floats:
    import numpy as np

    unit: Floats = blocks / np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + 1e-10)
    return unit


def histogram(colour: Any, bins: int) -> Floats:
    """Return the share of pixels in each of `bins` steps, for red, green and blue; shape (n, 3 bins)."""
    import numpy as np

    count, height, width, _ = colour.shape
    wide = np.broadcast_to(colour, (count, height, width, 3))
    place = np.arange(count)[:, None, None, None] * 3 + np.arange(3)
    at = place * bins + wide.astype(np.intp) * bins // 256
    shares: Floats = np.bincount(at.ravel(), minlength=count * 3 * bins).reshape(count, 3 * bins) / (
        height * width
    )
    return shares
