"""Small real models for tests: trained with scikit-learn, exported as artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from core.artifact import Draft, export
from core.kinds import Csr, estimator_kind, feature_kind
from core.schema import Batch, Column, Schema

TEXTS = [
    "the card was declined at the shop", "refund my money now please", "where is my parcel today",
    "parcel arrived broken and late", "card payment failed twice", "my refund never came",
    "login does not work anymore", "cannot login with my password", "the app crashes on login",
    "delivery of the parcel is late", "charge on my card is wrong", "password reset mail never came",
]  # fmt: skip
LABELS = [
    "billing", "billing", "delivery", "delivery", "billing", "billing",
    "account", "account", "account", "delivery", "billing", "account",
]  # fmt: skip


def text_batch(texts: Sequence[str] = TEXTS) -> Batch:
    """Return a batch of one text column."""
    return Batch(len(texts), {"text": list(texts)})


def to_scipy(x: Any) -> Any:
    """Return x as scikit-learn takes it."""
    if isinstance(x, Csr):
        return scipy.sparse.csr_matrix((x.data, x.indices, x.indptr), shape=(len(x.indptr) - 1, x.width))
    return np.asarray(x)


def draft(
    columns: Sequence[Column],
    batch: Batch,
    y: Sequence[Any],
    *,
    kind: str = "linear",
    algorithm: str = "logistic_regression",
    task: str = "classification",
    params: Mapping[str, Any] | None = None,
    name: str = "demo",
) -> tuple[Draft, Any, Any]:
    """Return the draft of a model with one block, the fitted estimator and the scikit-learn x of `batch`."""
    feature = {"text": "text", "image": "image", "vector": "vector"}.get(columns[0].kind, "table")
    block = feature_kind(feature).fit(columns, batch)
    x = to_scipy(block.matrix(batch))
    estimator = estimator_kind(kind)
    fitted = estimator.build(algorithm, task, dict(params or {}), 0).fit(x, y)
    exported, sections = estimator.export(fitted, task, block.width)
    classes = tuple(map(str, fitted.classes_)) if task == "classification" else ()
    made = Draft(
        name, task, Schema(tuple(columns)), classes, ((feature, block),), kind, exported, sections, {}, batch
    )
    return made, fitted, x


def text_artifact(**options: Any) -> bytes:
    """Return the artifact of a small text model."""
    made, _, _ = draft([Column("text", "text", {"ngrams": [1, 2], **options})], text_batch(), LABELS)
    return export(made)
