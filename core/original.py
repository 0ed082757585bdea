"""An imported pipeline as it is, answering rows of a Batch: what its portable form is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from core.dissection import VECTOR, VECTORIZERS, Dissected, Known, chosen_columns, steps_of
from core.estimators.onnx import run, session
from core.graphs import Foreign
from core.model import Predictions
from core.schema import Batch
from core.transformers import is_word


class Original:
    """The fitted pipeline with its own transformers."""

    def __init__(self, model: Any, parts: Dissected, task: str, classes: Sequence[str]) -> None:
        self._steps = [step for _, step in steps_of(model)]
        self._parts, self._task, self._classes = parts, task, classes

    def predict(self, batch: Batch) -> Predictions:
        """Return the pipeline's answers."""
        with warnings.catch_warnings():  # arrays without names, unknown categories: both are meant here
            warnings.simplefilter("ignore")
            x = self._transformed(batch)
            if self._task == "regression":
                values = np.ravel(self._steps[-1].predict(x))
                return Predictions(None, None, [float(value) for value in values])
            proba = np.asarray(self._steps[-1].predict_proba(x), np.float64)
        return Predictions([self._classes[i] for i in proba.argmax(axis=1)], proba.tolist(), None)

    def _transformed(self, batch: Batch) -> Any:
        first, *others = self._steps
        if type(first).__name__ == "ColumnTransformer":
            x, others = self._by_columns(first, batch), others[:-1]
        else:
            x, others = self._input(batch), self._steps[:-1]
        for step in others:
            x = step.transform(x)
        return x

    def _input(self, batch: Batch) -> Any:
        if type(self._steps[0]).__name__ in VECTORIZERS:
            return list(batch.columns[self._parts.inputs[0]])
        if VECTOR in batch.columns and VECTOR not in self._parts.inputs:
            return np.asarray(batch.columns[VECTOR], np.float64).reshape(batch.n_rows, -1)
        return self._table(batch, self._parts.inputs)

    def _by_columns(self, transformer: Any, batch: Batch) -> Any:
        """Return what a ColumnTransformer yields, whatever kind of table it was fitted on."""
        parts = []
        for _, step, chosen in transformer.transformers_:
            columns = chosen_columns(chosen, self._parts.inputs)
            if is_word(step, "drop") or not columns:
                continue
            first = steps_of(step)[0][1] if hasattr(step, "steps") else step
            if type(first).__name__ in VECTORIZERS:
                parts.append(step.transform(list(batch.columns[columns[0]])))
            else:
                table = self._table(batch, columns)
                parts.append(table if is_word(step, "passthrough") else step.transform(table))
        return sparse.hstack(parts, format="csr") if any(map(sparse.issparse, parts)) else np.hstack(parts)

    def _table(self, batch: Batch, columns: Sequence[str]) -> Any:
        cells = [self._cells(batch.columns[name], self._parts.known.get(name)) for name in columns]
        plain = all(isinstance(value, float | int) for column in cells for value in column)
        table = np.empty((batch.n_rows, len(columns)), np.float64 if plain else object)
        for position, column in enumerate(cells):
            table[:, position] = column
        return table

    def _cells(self, entries: Sequence[Any], known: Known | None) -> list[Any]:
        return list(entries) if known is None else [_native(entry, known) for entry in entries]


def _native(entry: str | None, known: Known) -> Any:
    """Return a category as the encoder was fitted on it: a number, a text, None or NaN."""
    if entry in known.values:
        return known.values[entry]
    if entry is None:
        return np.nan
    if all(isinstance(value, int | float) for value in known.values.values()):
        try:
            return float(entry)
        except ValueError:
            return -9.0e99  # a number that no level is
    return entry


def graph_answers(graph: Foreign, classes: Sequence[str], x: Any) -> Predictions:
    """Return what the graph itself answers for x, shape (n_rows, width)."""
    p = graph.params
    data = graph.sections["onnx"]
    raw = run(session(bytes(data)), p["input"], p["output"], np.ascontiguousarray(x, p["dtype"]))
    z = np.asarray(raw, np.float64).reshape(len(x), -1)
    if p["form"] == "value":
        return Predictions(None, None, z[:, 0].tolist())
    if p["form"] in ("logit", "positive"):
        positive = 1.0 / (1.0 + np.exp(-z)) if p["form"] == "logit" else z
        z = np.hstack([1.0 - positive, positive])
    elif p["form"] == "logits":
        z = np.exp(z - z.max(axis=1, keepdims=True))
        z /= z.sum(axis=1, keepdims=True)
    return Predictions([classes[i] for i in z.argmax(axis=1)], z.tolist(), None)
