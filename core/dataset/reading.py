"""From a path to a checked Dataset: its columns against the spec, then every cell."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from core.dataset.cells import Builder, Categories, Classes, Numbers, Texts
from core.dataset.limits import Limits
from core.dataset.opening import open_source
from core.dataset.problems import Problems, rejected
from core.dataset.source import Chunk, Images, Source
from core.dataset.table import Dataset
from core.dataset.wide import Pictures, Vectors
from core.errors import DataRejected, Problem
from core.schema import Batch, Column
from core.spec import ModelSpec

Progress = Callable[[int], None]


def read_table(
    path: str,
    spec: ModelSpec,
    *,
    limits: Limits | None = None,
    need_label: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Return the rows of a data file or folder. With `need_label` False a label column is ignored.

    `progress` is called with the number of rows done. Raises NotFound, and DataRejected that carries the first
    ten problems of columns, else of cells (row from 1, column), and their number.
    """
    limits = limits or Limits()
    wanted = [column.name for column in spec.columns]
    with open_source(path, label=spec.label, limits=limits, wanted=wanted) as source:
        reading = _Reading(spec, source, limits, need_label=need_label)
        for chunk in source.chunks:
            reading.add(chunk)
            if progress is not None:
                progress(reading.n_rows)
        return reading.finish()


class _Reading:
    """Columns that fill up chunk by chunk."""

    def __init__(self, spec: ModelSpec, source: Source, limits: Limits, *, need_label: bool) -> None:
        _check_names(source.names, spec, need_label=need_label)
        self._spec = spec
        self._source = source
        self._problems = Problems()
        self.n_rows = 0
        missing = frozenset(spec.data.missing)
        files = (source.images, limits)
        columns = spec.columns if need_label else [column._replace(values=()) for column in spec.columns]
        self._builders: dict[str, Builder] = {
            column.name: _builder(column, self._problems, missing, files) for column in columns
        }
        self._labels: Classes | Numbers | None = None
        if need_label:
            self._labels = _label_builder(spec, self._problems)

    def add(self, chunk: Chunk) -> None:
        """Append the cells of a chunk."""
        for name, builder in self._builders.items():
            builder.add(chunk.columns[name], self.n_rows)
        if self._labels is not None:
            self._labels.add(chunk.columns[self._spec.label], self.n_rows)
        if self._spec.data.extra == "error":
            for name, row in chunk.extra.items():
                self._problems.add("is not a column of the spec", name, row)
        self.n_rows += chunk.n_rows

    def finish(self) -> Dataset:
        """Return the rows, without those that may be set aside. Raises DataRejected for the problems found."""
        problems, spec = self._problems, self._spec
        labels: Any = None if self._labels is None else list(self._labels.finish())
        if labels is not None and not self.n_rows:
            raise DataRejected("rows", "the file has no rows of data")
        if problems.total and not self._may_set_aside():
            raise problems.rejection()
        if self._source.open_end() and _is_cut(labels, spec):
            raise DataRejected("truncated", "the last line has no line end and the start of a class; it was cut")
        batch = Batch(self.n_rows, {name: builder.finish() for name, builder in self._builders.items()})
        dataset = Dataset(
            spec.columns, batch, labels, seed=spec.split.seed, quarantined=tuple(problems.shown),
            n_quarantined=len(problems.bad_rows),
        )  # fmt: skip
        if not problems.bad_rows:
            return dataset
        return dataset.take([row for row in range(self.n_rows) if row not in problems.bad_rows])

    def _may_set_aside(self) -> bool:
        problems, share = self._problems, self._spec.data.quarantine
        few = len(problems.bad_rows) <= share * self.n_rows
        return self._labels is not None and share > 0 and problems.kept_all_rows and few


def _is_cut(labels: Sequence[object] | None, spec: ModelSpec) -> bool:
    """Whether the class of the last row is found in no other row and is the start of another class."""
    if not labels or spec.task != "classification":
        return False
    others = set(labels[:-1])
    return labels[-1] not in others and any(str(other).startswith(str(labels[-1])) for other in others)


def _builder(
    column: Column, problems: Problems, missing: frozenset[str], files: tuple[Images | None, Limits]
) -> Builder:
    name = column.name
    if column.kind == "number":
        return Numbers(name, problems, missing=missing)
    if column.kind == "category":
        return Categories(name, problems, missing=missing, allowed=column.values)
    if column.kind == "image":
        return Pictures(name, problems, *files)
    if column.kind == "vector":
        return Vectors(name, problems, column.width)
    return Texts(name, problems)


def _label_builder(spec: ModelSpec, problems: Problems) -> Classes | Numbers:
    if spec.task == "classification":
        return Classes(spec.label, problems)
    return Numbers(spec.label, problems, missing=frozenset(), required=True)


def _check_names(names: Sequence[str], spec: ModelSpec, *, need_label: bool) -> None:
    """Raise DataRejected that names every missing, repeated and unknown column."""
    wanted = [column.name for column in spec.columns] + ([spec.label] if need_label else [])
    known = {*wanted, spec.label}
    extra = [name for name in dict.fromkeys(names) if name not in known]
    problems = [Problem("stands twice in the file", name[:64]) for name in _repeated(names) if name in known]
    for name in wanted:
        if name not in names:
            problems.append(Problem(f"is missing{_hint(name, extra)}", name))
    if spec.data.extra == "error":
        problems += [Problem("is not a column of the spec", name[:64]) for name in extra]
    if problems:
        raise rejected(problems, len(problems))


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []


def _hint(name: str, extra: Sequence[str]) -> str:
    """Return a hint at a column that may be the missing one under another name."""
    lower = {other.lower().replace(" ", "_"): other for other in extra[:1000]}
    close = difflib.get_close_matches(name.lower().replace(" ", "_"), lower, n=1, cutoff=0.6)
    return f"; is it the one called {lower[close[0]][:64]}?" if close else ""
