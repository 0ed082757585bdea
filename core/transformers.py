"""Fitted scikit-learn transformers of table columns → parts of a table block, told by plain values.

`carry` follows the columns through a transformer, or a pipeline of them, and says what each feature that comes
out is. It reads fitted attributes only; scikit-learn itself is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import FitFailed
from core.features.table import Level, Part, Step
from core.tuples import NamedTuple


class Raw(NamedTuple):
    """A category column that no encoder has turned into features yet; a missing entry counts as `fill`."""

    column: str
    fill: Level = None


Signal = Part | Raw


def raw(kind: str, column: str) -> Signal:
    """Return a column as it comes in; `kind` is number or category."""
    return Part("number", column) if kind == "number" else Raw(column)


def carry(transformer: Any, inputs: Sequence[Signal]) -> list[Any]:
    """Return what comes out when `inputs` go through a fitted transformer: one Part per run of features.

    Raises FitFailed naming the step that has no portable form, and why.
    """
    name = type(transformer).__name__
    if transformer is None or is_word(transformer, "passthrough"):
        return list(inputs)
    if name not in _CARRIERS:
        raise FitFailed(f"{name} has no portable form", reason="import")
    return _CARRIERS[name](transformer, inputs)


def is_word(step: Any, word: str) -> bool:
    """Return whether a step is only the word "passthrough" or "drop"."""
    return isinstance(step, str) and step == word


def _pipeline(pipeline: Any, inputs: Sequence[Signal]) -> list[Signal]:
    signals = list(inputs)
    for name, step in pipeline.steps:
        signals = named(name, step, signals)
    return signals


def named(name: str, step: Any, inputs: Sequence[Signal]) -> list[Signal]:
    """Return what `carry` does; its error tells the name of the step too."""
    try:
        return carry(step, inputs)
    except FitFailed as error:
        raise FitFailed(f"{name}: {error.message}", **error.fields) from error


def _union(union: Any, inputs: Sequence[Signal]) -> list[Signal]:
    if union.transformer_weights:
        raise FitFailed("FeatureUnion with transformer_weights cannot be carried")
    parts = [(name, step) for name, step in union.transformer_list if not is_word(step, "drop")]
    return [signal for name, step in parts for signal in named(name, step, inputs)]


def _imputer(imputer: Any, inputs: Sequence[Signal]) -> list[Signal]:
    """SimpleImputer: columns without a value in training may vanish; indicators come last."""
    if not _is_nan(imputer.missing_values) and imputer.missing_values is not None:
        raise FitFailed("SimpleImputer is carried for missing_values NaN or None only")
    signals = [_filled(s, v) for s, v in zip(inputs, imputer.statistics_, strict=True) if _kept(imputer, v)]
    if imputer.add_indicator:
        signals += _indicator(imputer.indicator_, inputs)
    return signals


def _kept(imputer: Any, statistic: Any) -> bool:
    return imputer.strategy == "constant" or imputer.keep_empty_features or not _is_nan(statistic)


def _filled(signal: Signal, value: Any) -> Signal:
    if isinstance(signal, Raw):
        return signal._replace(fill=level(value)) if signal.fill is None else signal
    if signal.kind != "number" or signal.steps:
        raise FitFailed("SimpleImputer is carried before scalers and encoders only")
    return signal._replace(fill=0.0 if _is_nan(value) else float(value)) if signal.fill is None else signal


def _indicator(indicator: Any, inputs: Sequence[Signal]) -> list[Signal]:
    chosen = [inputs[int(i)] for i in indicator.features_]
    if not all(isinstance(s, Part) and s.kind == "number" and s.fill is None for s in chosen):
        raise FitFailed("MissingIndicator is carried for number columns that no imputer filled only")
    return [Part("missing", signal.column) for signal in chosen]


def _standard(scaler: Any, inputs: Sequence[Signal]) -> list[Signal]:
    return _over(scaler, inputs, scaler.mean_ if scaler.with_mean else None, scaler.scale_)


def _robust(scaler: Any, inputs: Sequence[Signal]) -> list[Signal]:
    center = scaler.center_ if scaler.with_centering else None
    return _over(scaler, inputs, center, scaler.scale_ if scaler.with_scaling else None)


def _max_abs(scaler: Any, inputs: Sequence[Signal]) -> list[Signal]:
    return _over(scaler, inputs, None, scaler.scale_)


def _minmax(scaler: Any, inputs: Sequence[Signal]) -> list[Signal]:
    if scaler.clip:
        raise FitFailed("MinMaxScaler with clip=True cannot be carried")
    steps = [("times", float(a), float(b)) for a, b in zip(scaler.scale_, scaler.min_, strict=True)]
    return _stepped(scaler, inputs, steps)


def _over(scaler: Any, inputs: Sequence[Signal], center: Any, scale: Any) -> list[Signal]:
    n = len(inputs)
    centers = [0.0] * n if center is None else center
    scales = [1.0] * n if scale is None else scale
    return _stepped(scaler, inputs, [("over", float(a), float(b)) for a, b in zip(centers, scales, strict=True)])


def _stepped(scaler: Any, inputs: Sequence[Signal], steps: Sequence[Step]) -> list[Signal]:
    scaled: list[Signal] = []
    for signal, step in zip(inputs, steps, strict=True):
        if not isinstance(signal, Part) or signal.kind != "number":
            raise FitFailed(f"{type(scaler).__name__} is carried for number columns only, not after an encoder")
        scaled.append(signal._replace(steps=(*signal.steps, step)))
    return scaled


def _onehot(encoder: Any, inputs: Sequence[Signal]) -> list[Signal]:
    """OneHotEncoder: each known level is sent through it, which settles dropped and infrequent ones."""
    parts: list[Signal] = []
    start = 0
    for position, signal in enumerate(inputs):
        known, width = encoder.categories_[position], _onehot_width(encoder, position)
        cells = zip(*encoder.transform(_probe(encoder, position)).nonzero(), strict=True)
        hot = {int(row): int(at) - start for row, at in cells if start <= at < start + width}
        levels = _levels(signal, known, [hot.get(row) for row in range(len(known))])
        parts.append(Part("onehot", _column(signal, encoder), width, levels=levels))
        start += width
    return parts


def _onehot_width(encoder: Any, position: int) -> int:
    rare = (getattr(encoder, "infrequent_categories_", None) or [None] * (position + 1))[position]
    count = len(encoder.categories_[position]) - (0 if rare is None else len(rare) - 1)
    dropped = encoder.drop_idx_ is not None and encoder.drop_idx_[position] is not None
    return count - int(dropped)


def _ordinal(encoder: Any, inputs: Sequence[Signal]) -> list[Signal]:
    if encoder.handle_unknown == "use_encoded_value" and encoder.unknown_value != -1:
        raise FitFailed("OrdinalEncoder is carried with unknown_value=-1 only")
    parts: list[Signal] = []
    for position, signal in enumerate(inputs):
        codes = encoder.transform(_probe(encoder, position))[:, position]
        if any(code != int(code) for code in codes if not _is_nan(code)) or any(map(_is_nan, codes)):
            raise FitFailed("OrdinalEncoder is carried with a whole number as encoded_missing_value only")
        levels = _levels(signal, encoder.categories_[position], [int(code) for code in codes])
        parts.append(Part("ordinal", _column(signal, encoder), levels=levels))
    return parts


def _probe(encoder: Any, position: int) -> Any:
    """Return one row per known level of a column, the other columns at their first level."""
    import numpy as np

    known = encoder.categories_
    dtype = object if any(c.dtype.kind not in "biuf" for c in known) else np.result_type(*known)
    rows = np.empty((len(known[position]), len(known)), dtype)
    for other, levels in enumerate(known):
        rows[:, other] = levels if other == position else levels[0]
    return rows


def _column(signal: Signal, encoder: Any) -> str:
    if not isinstance(signal, Raw):
        raise FitFailed(f"{type(encoder).__name__} is carried for category columns only")
    return signal.column


def _levels(signal: Signal, known: Sequence[Any], codes: Sequence[int | None]) -> dict[Level, int]:
    """Return level → code, a missing entry taking the code of the level that it is filled with."""
    found: dict[Level, int] = {}
    for value, code in zip(known, codes, strict=True):
        if code is not None:
            for name in _spellings(value):
                found.setdefault(name, code)
    fill = signal.fill if isinstance(signal, Raw) else None
    if fill is not None:
        found.pop(None, None)
        if fill in found:
            found[None] = found[fill]
    return found


def _spellings(value: Any) -> tuple[Level, ...]:
    """Return how a level may stand in a row: 1.0 also as "1"."""
    name = level(value)
    if name is not None and isinstance(value, float) and value.is_integer():
        return name, str(int(value))
    return (name,)


def level(value: Any) -> Level:
    """Return a level as a category column holds it: text, "true" or "false", None if missing."""
    if value is None or _is_nan(value):
        return None
    plain = value.item() if hasattr(value, "item") else value
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _identity(transformer: Any, inputs: Sequence[Signal]) -> list[Signal]:
    if transformer.func is not None:
        raise FitFailed("FunctionTransformer holds a Python function and cannot be carried")
    return list(inputs)


_CARRIERS: Mapping[str, Callable[[Any, Sequence[Signal]], list[Signal]]] = {
    "Pipeline": _pipeline,
    "FeatureUnion": _union,
    "SimpleImputer": _imputer,
    "MissingIndicator": _indicator,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _minmax,
    "OneHotEncoder": _onehot,
    "OrdinalEncoder": _ordinal,
    "FunctionTransformer": _identity,
}
