"""Rows made up for an imported model: to compare it with its portable form where no real rows are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.dissection import Dissected, Known
from core.features.table import Part, TableBlock
from core.features.vector import VectorBlock
from core.kinds import Block
from core.schema import Batch, Column

ODD_SHARE = 0.1  # of the cells: missing values and unknown categories, where the model takes them
_WORDS = ("the", "And", "of", "42", "e-mail", "naïve", "zzyzx", "it's", "!!", "日本")


def rows(parts: Dissected, count: int) -> Batch:
    """Return `count` rows near what the blocks were fitted on. The same model gives the same rows."""
    rng = np.random.default_rng(0)
    return Batch(count, {column.name: _cells(column, parts, rng, count) for column in parts.columns})


def _cells(column: Column, parts: Dissected, rng: np.random.Generator, count: int) -> list[Any]:
    if column.kind == "text":
        block = next(block for kind, block in parts.blocks if kind == "text" and block.columns == (column.name,))
        return _texts(block, rng, count)
    if column.kind == "vector":
        return _vectors(parts.blocks[0][1], rng, count)
    if column.kind == "category":
        return _categories(parts.known[column.name], rng, count)
    tables = [block for _, block in parts.blocks if isinstance(block, TableBlock)]
    return _numbers([part for table in tables for part in table.parts if part.column == column.name], rng, count)


def _texts(block: Any, rng: np.random.Generator, count: int) -> list[str]:
    terms = sorted(block.vocabulary()) if not block.options["hashing"] else []
    words = [*_WORDS, *(terms[i] for i in rng.integers(0, len(terms), 2000))] if terms else list(_WORDS)
    lengths = rng.integers(0, 30, count)
    return [" ".join(words[i] for i in rng.integers(0, len(words), length)) for length in lengths]


def _vectors(block: Block, rng: np.random.Generator, count: int) -> list[list[float]]:
    x = rng.normal(size=(count, block.width)) * 2.0
    moments: Mapping[str, Any] = block.sections() if isinstance(block, VectorBlock) else {}
    if moments:
        x = x * moments["spread"] + moments["center"]
    found: list[list[float]] = x.tolist()
    return found


def _categories(known: Known, rng: np.random.Generator, count: int) -> list[str | None]:
    levels = list(known.values)
    cells: list[str | None] = [levels[i] for i in rng.integers(0, len(levels), count)]
    if not known.strict:
        for index in np.flatnonzero(rng.random(count) < ODD_SHARE):
            cells[index] = "no such level" if index % 2 else None
    return cells


def _numbers(parts: Sequence[Part], rng: np.random.Generator, count: int) -> list[float]:
    """Return values around the centre that a scaler or imputer learnt."""
    first = next((part for part in parts if part.steps), None)
    fills = [part.fill for part in parts if part.fill is not None]
    values = rng.normal(size=count)
    if first is not None and first.steps[0][0] == "over":
        _, center, spread = first.steps[0]
        values = values * 1.5 * spread + center
    elif first is not None:
        _, factor, shift = first.steps[0]
        values = (values * 0.5 + 0.5 - shift) / factor
    else:
        values = values * 10.0 ** rng.uniform(0, 3, count) + (fills[0] if fills else 0.0)
    if fills or any(part.kind == "missing" for part in parts):
        values[rng.random(count) < ODD_SHARE] = np.nan
    return [float(value) for value in values]
