"""Dataset: checked rows in memory, by column, with their labels and digests."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.dataset import split
from core.errors import Problem
from core.schema import Batch, Column

Labels = list[str] | list[float] | None
Indices = Sequence[int] | NDArray[np.integer[Any]]


class Dataset:
    """Rows of a spec's columns. Cells are stored as core.schema.Batch says, compactly:

    number array('d') · category and text list of str · image list of bytes or a uint8 array (n, h, w[, 3]) ·
    vector a float array (n, width).
    """

    __slots__ = ("_keys", "batch", "columns", "labels", "n_quarantined", "notes", "quarantined", "seed")

    def __init__(
        self,
        columns: Sequence[Column],
        batch: Batch,
        labels: Labels,
        *,
        seed: int = 0,
        notes: tuple[str, ...] = (),
        quarantined: tuple[Problem, ...] = (),
        n_quarantined: int = 0,
        keys: NDArray[np.uint64] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.batch = batch
        self.labels = labels
        self.seed = seed
        self.notes = notes
        self.quarantined = quarantined
        self.n_quarantined = n_quarantined
        self._keys = keys

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return self.batch.n_rows

    def keys(self) -> NDArray[np.uint64]:
        """Return one 64-bit digest a row, of its features only, keyed with the seed: shape (n_rows,)."""
        if self._keys is None:
            self._keys = split.row_keys(self.columns, self.batch, self.seed)
        return self._keys

    def digests(self) -> list[str]:
        """Return the keys as 16 hexadecimal digits each."""
        return [f"{key:016x}" for key in self.keys().tolist()]

    def holdout_mask(self, fraction: float) -> list[bool]:
        """Return for each row whether it belongs to the holdout: its digest / 2**64 < fraction."""
        return split.holdout_mask(self.keys(), fraction)

    def take(self, indices: Indices) -> Dataset:
        """Return the rows at `indices`, in that order."""
        index = np.asarray(indices, np.intp)
        columns = {name: _taken(cells, index) for name, cells in self.batch.columns.items()}
        return Dataset(
            self.columns,
            Batch(len(index), columns),
            None if self.labels is None else _taken(self.labels, index),
            seed=self.seed,
            notes=self.notes,
            quarantined=self.quarantined,
            n_quarantined=self.n_quarantined,
            keys=None if self._keys is None else self._keys[index],
        )


def concat(datasets: Sequence[Dataset]) -> Dataset:
    """Return the rows of all datasets, in order. They must have the same columns and seed."""
    first = datasets[0]
    if any(_form(dataset) != _form(first) for dataset in datasets):
        raise ValueError("datasets of different columns or seeds cannot be joined")
    columns = {name: _joined([d.batch.columns[name] for d in datasets]) for name in first.batch.columns}
    return Dataset(
        first.columns,
        Batch(sum(d.n_rows for d in datasets), columns),
        None if first.labels is None else _joined([d.labels for d in datasets]),
        seed=first.seed,
        notes=tuple(note for d in datasets for note in d.notes),
        quarantined=tuple(problem for d in datasets for problem in d.quarantined),
        n_quarantined=sum(d.n_quarantined for d in datasets),
        keys=np.concatenate([d.keys() for d in datasets]),
    )


def _form(dataset: Dataset) -> tuple[Any, ...]:
    columns = [(column.name, column.kind, column.width) for column in dataset.columns]
    return columns, dataset.seed, dataset.labels is None


def _taken(cells: Any, index: NDArray[np.intp]) -> Any:
    if isinstance(cells, np.ndarray):
        return cells[index]
    if isinstance(cells, array):
        return array("d", np.frombuffer(cells, np.float64)[index].tobytes()) if len(cells) else cells
    return [cells[i] for i in index.tolist()]


def _joined(parts: Sequence[Any]) -> Any:
    if all(isinstance(part, array) for part in parts):
        return array("d", b"".join(part.tobytes() for part in parts))
    if all(isinstance(part, np.ndarray) and part.shape[1:] == parts[0].shape[1:] for part in parts):
        return np.concatenate(parts)
    return [cell for part in parts for cell in part]
