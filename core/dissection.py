"""A fitted scikit-learn pipeline taken apart: columns, feature blocks, and the steps that are left for ONNX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from core.errors import FitFailed
from core.features import text, vector
from core.features.table import Level, Part, TableBlock
from core.kinds import Block
from core.schema import Column
from core.transformers import Raw, carry, is_word, level, named, raw
from core.tuples import NamedTuple

VECTORIZERS = ("TfidfVectorizer", "CountVectorizer", "HashingVectorizer")
ENCODERS = ("OneHotEncoder", "OrdinalEncoder")
VECTOR = "features"  # the column of a pipeline that was fitted on an array without names


class Known(NamedTuple):
    """What an encoder was fitted on: level as text → the value as the pipeline takes it."""

    values: Mapping[Level, Any]
    strict: bool  # an unknown level is an error there


class Dissected(NamedTuple):
    """The carried part of a pipeline, and what is left."""

    inputs: tuple[str, ...]  # the columns as the pipeline takes them, in order
    columns: tuple[Column, ...]  # those that matter to it
    blocks: tuple[tuple[str, Block], ...]
    rest: tuple[Any, ...]  # fitted steps behind the blocks that no block carries
    estimator: Any
    known: Mapping[str, Known]
    why: str = ""  # why no block carries the rest


class Text(NamedTuple):
    """A text column with its block."""

    column: str
    block: Block


Piece = Part | Raw | Text


def steps_of(model: Any) -> list[tuple[str, Any]]:
    """Return the fitted steps of a pipeline (or of the best one that a search found), the estimator last.

    Samplers do nothing at prediction and are left out.
    """
    model = getattr(model, "best_estimator_", model)
    if not hasattr(model, "steps"):
        return [("estimator", model)]
    steps = [(name, step) for name, step in model.steps if step is not None and not is_word(step, "passthrough")]
    return [(name, step) for name, step in steps if not hasattr(step, "fit_resample")]


def dissect(model: Any, *, text_column: str = "text", names: Sequence[str] = ()) -> Dissected:
    """Return the parts of a fitted pipeline; `names` are its columns, if it does not know them itself.

    Raises FitFailed naming the step that cannot be carried, and why.
    """
    steps = steps_of(model)
    if not steps or not hasattr(steps[-1][1], "predict"):
        raise FitFailed("the file holds no fitted scikit-learn estimator or pipeline", reason="import")
    first = steps[0][1]
    if type(first).__name__ in VECTORIZERS:
        return _of_text(steps, text_column)
    known_names = _names(first, names)
    inputs = known_names or tuple(f"x{i}" for i in range(int(first.n_features_in_)))
    if type(first).__name__ == "ColumnTransformer":
        pieces, known = _of_columns(first, inputs, steps[0][0])
        done = 1
    else:
        category = _encodes([step for _, step in steps])
        pieces = [raw("category" if category else "number", name) for name in inputs]
        known = _known([step for _, step in steps], inputs)
        done = 0
    pieces, done, why = _carried(pieces, steps, done)
    blocks = _blocks(pieces, as_vector=not known_names)
    columns = _schema_columns(blocks, inputs)
    rest = tuple(step for _, step in steps[done:-1])
    return Dissected(inputs, columns, blocks, rest, steps[-1][1], known, why)


def _names(first: Any, names: Sequence[str]) -> tuple[str, ...]:
    own = tuple(str(name) for name in getattr(first, "feature_names_in_", ()))
    wanted = getattr(first, "n_features_in_", None)
    if wanted is None:
        raise FitFailed(f"{type(first).__name__} is not fitted", reason="import")
    if names and len(names) != wanted:
        raise FitFailed(f"the pipeline takes {wanted} columns, not {len(names)}", reason="import")
    return tuple(names) or own


def _of_text(steps: list[tuple[str, Any]], column: str) -> Dissected:
    vectorizer, used = _vectorizer([step for _, step in steps[:-1]])
    block = text.from_vectorizer(column, vectorizer)
    rest = tuple(step for _, step in steps[used:-1])
    why = _behind_text(steps[used][0]) if rest else ""
    return Dissected((column,), (Column(column, "text"),), (("text", block),), rest, steps[-1][1], {}, why)


def _behind_text(name: str) -> str:
    return f"step {name}: no block carries what stands behind a text vectorizer"


def _vectorizer(steps: Sequence[Any]) -> tuple[Any, int]:
    """Return a vectorizer equal to the first steps, and how many they are: counts and their weights are one."""
    first, *others = steps
    if not others or type(others[0]).__name__ != "TfidfTransformer" or type(first).__name__ != "CountVectorizer":
        return first, 1
    from sklearn.feature_extraction.text import TfidfVectorizer

    both = TfidfVectorizer(**{**first.get_params(), **others[0].get_params()})
    both.vocabulary_ = first.vocabulary_
    both._tfidf = others[0]
    return both, 2


def _of_columns(transformer: Any, inputs: Sequence[str], title: str) -> tuple[list[Piece], dict[str, Known]]:
    """Return the pieces of a fitted ColumnTransformer, in the order of its output."""
    if transformer.transformer_weights:
        raise FitFailed(f"step {title}: transformer_weights cannot be carried", reason="import")
    pieces: list[Piece] = []
    known: dict[str, Known] = {}
    for name, step, chosen in transformer.transformers_:
        columns = chosen_columns(chosen, inputs)
        if is_word(step, "drop") or not columns:
            continue
        inner = [s for _, s in steps_of(step)] if hasattr(step, "steps") else [step]
        try:
            if type(inner[0]).__name__ in VECTORIZERS:
                pieces.append(_text_piece(inner, columns))
            else:
                kind = "category" if _encodes(inner) else "number"
                pieces += named(name, step, [raw(kind, column) for column in columns])
                known |= _known(inner, columns)
        except FitFailed as error:
            raise FitFailed(f"step {title}: {error.message}", reason="import") from error
    return pieces, known


def _text_piece(steps: Sequence[Any], columns: Sequence[str]) -> Text:
    vectorizer, used = _vectorizer(steps)
    if used != len(steps):
        raise FitFailed(f"{type(steps[used]).__name__} behind a text vectorizer has no portable form")
    return Text(columns[0], text.from_vectorizer(columns[0], vectorizer))


def chosen_columns(chosen: Any, inputs: Sequence[str]) -> list[str]:
    """Return the names of the columns that a ColumnTransformer gives to one of its transformers."""
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, slice) and not any(isinstance(end, str) for end in (chosen.start, chosen.stop)):
        return list(inputs[chosen])
    if isinstance(chosen, slice):
        low = 0 if chosen.start is None else list(inputs).index(chosen.start)
        high = len(inputs) if chosen.stop is None else list(inputs).index(chosen.stop) + 1
        return list(inputs[low:high])
    plain = np.atleast_1d(np.asarray(chosen)).tolist()
    if plain and all(isinstance(item, bool) for item in plain):
        return [name for name, kept in zip(inputs, plain, strict=True) if kept]
    return [item if isinstance(item, str) else inputs[item] for item in plain]


def _flat(steps: Iterable[Any]) -> Iterable[Any]:
    """Yield the transformers, those within pipelines and unions too."""
    for step in steps:
        inner = getattr(step, "steps", None) or getattr(step, "transformer_list", None)
        if inner:
            yield from _flat(item for _, item in inner)
        else:
            yield step


def _encodes(steps: Iterable[Any]) -> bool:
    return any(type(step).__name__ in ENCODERS for step in _flat(steps))


def _known(steps: Iterable[Any], columns: Sequence[str]) -> dict[str, Known]:
    """Return what the encoder among the steps was fitted on, by column."""
    for step in _flat(steps):
        if type(step).__name__ in ENCODERS:
            strict = step.handle_unknown == "error"
            return {
                column: Known({level(value): value for value in levels.tolist()}, strict)
                for column, levels in zip(columns, step.categories_, strict=True)
            }
    return {}


def _carried(pieces: list[Piece], steps: list[tuple[str, Any]], done: int) -> tuple[list[Piece], int, str]:
    """Carry the steps after `done` as far as it goes, and say why no further; what is left must take numbers."""
    why = ""
    while done < len(steps) - 1:
        name, step = steps[done]
        if any(isinstance(piece, Text) for piece in pieces):
            why = _behind_text(name)
            break
        try:
            pieces = carry(step, pieces)  # type: ignore[arg-type]
        except FitFailed as error:
            why = f"step {name}: {error.message}"
            if any(isinstance(piece, Raw) for piece in pieces):
                raise FitFailed(why, reason="import") from error
            break
        done += 1
    for piece in pieces:
        if isinstance(piece, Raw):
            raise FitFailed(f"column {piece.column} is a category without an encoder", reason="import")
    return pieces, done, why


def _blocks(pieces: Sequence[Piece], *, as_vector: bool) -> tuple[tuple[str, Block], ...]:
    blocks: list[tuple[str, Block]] = []
    for is_text, run in groupby(pieces, lambda piece: isinstance(piece, Text)):
        if is_text:
            blocks += [("text", piece.block) for piece in run if isinstance(piece, Text)]
            continue
        parts = [piece for piece in run if isinstance(piece, Part)]
        block = _vector(parts) if as_vector else None
        names = list(dict.fromkeys(part.column for part in parts))
        blocks.append(("vector", block) if block else ("table", TableBlock(names, parts)))
    return tuple(blocks)


def _vector(parts: Sequence[Part]) -> Block | None:
    """Return the block of one vector column, if x is a vector as it is or with (v - a) / b applied."""
    if any(part.kind != "number" or part.fill is not None or len(part.steps) > 1 for part in parts):
        return None
    steps = [part.steps[0] if part.steps else None for part in parts]
    if steps == [None] * len(parts):
        return vector.VectorBlock(VECTOR, len(parts), None)
    if any(step is None or step[0] != "over" for step in steps):
        return None
    center, spread = (np.array([step[k] for step in steps if step], np.float64) for k in (1, 2))
    return vector.VectorBlock(VECTOR, len(parts), lambda: (center, spread))


def _schema_columns(blocks: Sequence[tuple[str, Block]], inputs: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns that the blocks read, in the order of the pipeline's input."""
    found: dict[str, Column] = {}
    for kind, block in blocks:
        for column in _read_columns(kind, block):
            if found.setdefault(column.name, column) != column:
                raise FitFailed(f"column {column.name} is read in two ways", reason="import")
    return tuple(found[name] for name in dict.fromkeys((*inputs, VECTOR)) if name in found)


def _read_columns(kind: str, block: Block) -> list[Column]:
    if isinstance(block, TableBlock):
        encoded = ("onehot", "ordinal")
        return [Column(p.column, "category" if p.kind in encoded else "number") for p in block.parts]
    return [Column(name, kind, width=block.width if kind == "vector" else 0) for name in block.columns]
