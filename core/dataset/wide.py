"""Builders of the columns whose cells are large: images and vectors."""

from __future__ import annotations

import binascii
import math
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset.limits import Limits, too_large
from core.dataset.problems import Problems, rejected
from core.dataset.source import ABSENT, Images, Run
from core.errors import DataRejected, Problem
from core.extras import require
from core.schema import Refused

MAGICS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def _whole(name: str, message: str) -> DataRejected:
    """Return the rejection of a whole array."""
    return rejected([Problem(message, name)], 1)


class Pictures:
    """Collects images: PNG or JPEG bytes (as such, as base64, or named by a cell), or one uint8 array."""

    def __init__(self, name: str, problems: Problems, images: Images | None, limits: Limits) -> None:
        require("PIL", "image", "learning from pictures")
        self._name = name
        self._problems = problems
        self._images = images
        self._limits = limits
        self._files: list[Any] = []
        self._arrays: list[NDArray[np.uint8]] = []
        self._size = 0

    def add(self, cells: Run, row: int) -> None:
        """Append cells. Raises DataRejected if the images together are over the limit of a data file."""
        if isinstance(cells, np.ndarray):
            self._add_array(cells)
            return
        for index, cell in enumerate(cells):
            try:
                data = self._image(cell)
            except Refused as refused:
                self._problems.add(str(refused), self._name, row + index)
                data = b""
            self._size += len(data)
            self._files.append(data)
        if self._size > self._limits.bytes:
            raise too_large("the images together", self._limits.bytes, "bytes")

    def _add_array(self, cells: NDArray[Any]) -> None:
        if cells.dtype != np.uint8:
            raise _whole(self._name, "must be an array of uint8 (0 to 255)")
        if cells.ndim == 4 and cells.shape[3] == 1:
            cells = cells[..., 0]
        if cells.ndim != 3 and not (cells.ndim == 4 and cells.shape[3] == 3):
            raise _whole(self._name, "must have the shape (rows, h, w) or (rows, h, w, 3)")
        self._arrays.append(cells)

    def _image(self, cell: Any) -> bytes:
        if cell is ABSENT or cell is None or cell == "":
            raise Refused("is missing")
        if isinstance(cell, str):
            cell = self._named(cell)
        if not isinstance(cell, bytes):
            raise Refused("must be the name of an image file, or a PNG or JPEG file")
        if len(cell) > self._limits.image_bytes:
            raise Refused(f"must have at most {self._limits.image_bytes} bytes")
        if not cell.startswith(MAGICS):
            raise Refused("must be a PNG or JPEG file")
        return cell

    def _named(self, cell: str) -> bytes:
        found = self._images.find(cell) if self._images is not None else None
        if found is not None:
            return found
        try:
            return binascii.a2b_base64(cell.encode("ascii"), strict_mode=True)
        except ValueError:
            raise Refused("names no image that stands beside or in the data file") from None

    def finish(self) -> Any:
        """Return the images: a list of bytes, or one array of shape (n_rows, h, w[, 3])."""
        if self._arrays:
            return self._arrays[0] if len(self._arrays) == 1 else np.concatenate(self._arrays)
        return self._files


class Vectors:
    """Collects vectors of one width into a float array of shape (n_rows, width), float32 if the file has that."""

    def __init__(self, name: str, problems: Problems, width: int) -> None:
        self._name = name
        self._problems = problems
        self._width = width
        self._parts: list[NDArray[Any]] = []

    def add(self, cells: Run, row: int) -> None:
        """Append cells: lists of numbers, or one array of shape (n, width)."""
        if isinstance(cells, np.ndarray) and cells.ndim == 2:
            self._parts.append(self._checked(cells, row))
            return
        numbers = array("d")
        for index, cell in enumerate(cells):
            try:
                numbers.extend(self._vector(cell))
            except Refused as refused:
                self._problems.add(str(refused), self._name, row + index)
                numbers.extend([0.0] * self._width)
        part = np.frombuffer(numbers.tobytes(), np.float64).reshape(len(cells), self._width)
        self._parts.append(part)

    def _checked(self, cells: NDArray[Any], row: int) -> NDArray[Any]:
        if cells.shape[1] != self._width or cells.dtype.kind not in "iufb":
            raise _whole(self._name, f"must have {self._width} numbers in every row")
        small = cells.dtype.itemsize <= (4 if cells.dtype.kind == "f" else 2)
        part = cells.astype(np.float32 if small else np.float64, order="C", copy=False)
        for index in np.flatnonzero(~np.isfinite(part).all(axis=1)):
            self._problems.add("must hold finite numbers only", self._name, row + int(index))
        return part

    def _vector(self, cell: Any) -> list[float]:
        if cell is ABSENT:
            raise Refused("is missing")
        if isinstance(cell, np.ndarray):
            cell = cell.tolist()
        if not isinstance(cell, list | tuple) or len(cell) != self._width:
            raise Refused(f"must be a list of {self._width} numbers")
        if any(isinstance(item, bool) or not isinstance(item, int | float) for item in cell):
            raise Refused("must hold numbers only")
        try:
            numbers = [float(item) for item in cell]
        except OverflowError:
            raise Refused("must hold finite numbers only") from None
        if not all(map(math.isfinite, numbers)):
            raise Refused("must hold finite numbers only")
        return numbers

    def finish(self) -> NDArray[Any]:
        """Return the vectors."""
        if not self._parts:
            return np.zeros((0, self._width))
        return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
