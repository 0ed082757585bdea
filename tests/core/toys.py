"""Small seeded data sets that a model can really learn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from core.schema import Batch
from core.spec import ModelSpec, from_dict

WORDS = {
    "billing": ["invoice", "charged", "refund", "card", "payment", "twice", "bill", "amount"],
    "delivery": ["parcel", "late", "courier", "box", "tracking", "address", "arrived", "shipping"],
    "login": ["password", "account", "reset", "locked", "email", "code", "sign", "username"],
}
TOPICS = tuple(WORDS)
FILLER = ["please", "hello", "my", "the", "is", "and", "help", "today", "again", "you", "we", "it"]


class Rows(NamedTuple):
    """Rows with labels: what training needs of a dataset."""

    batch: Batch
    labels: Any

    @property
    def n_rows(self) -> int:
        return self.batch.n_rows


def messages(n: int, seed: int = 0, *, noise: float = 0.0, topics: tuple[str, ...] = TOPICS) -> Rows:
    """Return n short messages of up to three topics; `noise` is the share of labels drawn at random."""
    rng = np.random.default_rng(seed)
    labels = [topics[i] for i in rng.integers(0, len(topics), n)]
    texts = []
    for label in labels:
        words = [*rng.choice(WORDS[label], 3), *rng.choice(FILLER, 5), f"ref{rng.integers(10**6)}"]
        rng.shuffle(words)
        texts.append(" ".join(words))
    told = [topics[rng.integers(len(topics))] if rng.random() < noise else label for label in labels]
    return Rows(Batch(n, {"text": texts}), told)


def text_spec(**sections: Any) -> ModelSpec:
    """Return the spec of a text model of `messages`, with sections replaced."""
    default: dict[str, Any] = {
        "name": "toy",
        "task": "classification",
        "label": "topic",
        "columns": {"text": {"kind": "text"}},
        "estimator": {"kind": "linear", "algorithm": "logistic_regression", "params": {"C": 10.0}},
    }
    return from_dict({**default, **sections})


def csv(rows: Rows, label: str = "topic") -> bytes:
    """Return the rows of `messages` as a CSV file."""
    lines = [f"text,{label}", *[f"{t},{y}" for t, y in zip(rows.batch.columns["text"], rows.labels, strict=True)]]
    return ("\n".join(lines) + "\n").encode()
