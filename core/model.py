"""A loaded model: schema + features + estimator + classes; rows in, labels and probabilities (or values) out."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import IntegrityError, InvalidInput
from core.flatfile import decode
from core.kinds import Block, Pairs, Scorer
from core.schema import Batch, Schema
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.flatfile import FlatFile

ROW_LIMIT = 32  # up to so many rows are scored one by one, without numpy where the kinds can
# what a manifest that does not fit its sections, or itself, makes the code that runs it raise
MISSHAPEN = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    *(re.error, struct.error),
)
MAX_GOLDEN_BYTES = 64 << 20
GOLDEN_TOLERANCE = 1e-6  # between machines: summation order, libm and BLAS differ, a wrong model by far more


class Predictions(NamedTuple):
    """One entry a row: labels and probabilities (in the order of Model.classes), or values for regression."""

    labels: list[str] | None
    probabilities: list[list[float]] | None
    values: list[float] | None

    def outputs(self) -> list[list[float]]:
        """Return the numbers alone, shape (n_rows, n_classes) or (n_rows, 1)."""
        if self.values is not None:
            return [[value] for value in self.values]
        return self.probabilities or []


class Model:
    """An immutable model over one flat file; safe to share between threads."""

    def __init__(self, file: FlatFile, schema: Schema, blocks: Sequence[Block], scorer: Scorer) -> None:
        self.file = file
        self.manifest: dict[str, Any] = file.header
        self.name: str = file.header["name"]
        self.task: str = file.header["task"]
        self.classes: tuple[str, ...] = tuple(file.header["classes"])
        self.schema = schema
        self.blocks = tuple(blocks)
        self.scorer = scorer
        self._width = sum(block.width for block in blocks)
        fuse = getattr(scorer, "fused", None)
        self._score: Callable[[Mapping[str, Any]], list[float]] = (fuse and fuse(self.blocks)) or self._by_pairs
        self._row_limit = ROW_LIMIT

    def predict(self, batch: Batch) -> Predictions:
        """Return the predictions for a checked batch.

        Raises IntegrityError if a page of the artifact that was not read before is damaged, and InvalidInput
        for an entry that only the features can judge (say, an image that does not decode).
        """
        return self._predictions(self._outputs(batch))

    def _outputs(self, batch: Batch) -> list[list[float]]:
        n_rows, columns = batch
        if n_rows == 0:
            return []
        if n_rows <= self._row_limit:
            try:
                return [self._row_outputs(columns, index) for index in range(n_rows)]
            except NotImplementedError:
                self._row_limit = 0
        parts = [block.matrix(batch) for block in self.blocks]
        outputs: list[list[float]] = self.scorer.score_matrix(parts).tolist()
        return outputs

    def _row_outputs(self, columns: Mapping[str, Sequence[Any]], index: int) -> list[float]:
        try:
            return self._score({name: column[index] for name, column in columns.items()})
        except InvalidInput as error:  # a single row does not know its place
            problems = tuple(problem._replace(row=index) for problem in error.problems)
            raise InvalidInput(error.message, problems, **error.fields) from error

    def _by_pairs(self, values: Mapping[str, Any]) -> list[float]:
        if len(self.blocks) == 1:
            return self.scorer.score_row(self.blocks[0].row(values), self._width)
        pairs: Pairs = []
        offset = 0
        for block in self.blocks:
            pairs += [(index + offset, value) for index, value in block.row(values)]
            offset += block.width
        return self.scorer.score_row(pairs, self._width)

    def _predictions(self, outputs: list[list[float]]) -> Predictions:
        if self.task == "regression":
            return Predictions(None, None, [row[0] for row in outputs])
        labels = [self.classes[row.index(max(row))] for row in outputs]
        return Predictions(labels, outputs, None)

    def _golden(self) -> bytes:
        if self.file.section("golden").size > MAX_GOLDEN_BYTES:
            raise IntegrityError("golden replay: more inputs than an export ever keeps")
        return bytes(self.file.raw("golden"))

    def replay(self) -> None:
        """Predict the golden inputs and compare with the outputs recorded at export.

        Raises IntegrityError if any differs or the model does not run: it does not behave here as it did when it
        was proved.
        """
        try:
            golden = decode(self._golden())
            found = self.predict(self.schema.batch(golden["rows"])).outputs()
            _compare(golden["outputs"], found)
        except MISSHAPEN as error:
            raise IntegrityError("golden replay: the model does not run") from error


def _compare(outputs: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> None:
    if len(found) != len(outputs):
        raise IntegrityError("golden replay: wrong number of outputs")
    for row, (expected, actual) in enumerate(zip(outputs, found, strict=True)):
        if not _close(expected, actual):
            raise IntegrityError(f"golden replay: row {row} differs from the recorded output")


def _close(expected: Sequence[float], actual: Sequence[float]) -> bool:
    return len(expected) == len(actual) and all(
        math.isclose(e, a, rel_tol=GOLDEN_TOLERANCE, abs_tol=GOLDEN_TOLERANCE)
        for e, a in zip(expected, actual, strict=True)
    )
