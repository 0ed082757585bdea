"""The models that the benchmarks compare: one scikit-learn pipeline each, and the artifact made of it."""

from __future__ import annotations

import random
import time
from typing import Any

from core.artifact import Draft, export
from core.estimators import linear
from core.features import text
from core.local_store import LocalStore
from core.registry import Registry
from core.schema import Batch, Column, Schema

COLUMN = "text"


def text_pipeline(texts: list[str], labels: list[str], features: int, *, quick: bool = False) -> Any:
    """Return a fitted TF-IDF (1-2 grams, `features` terms) + logistic regression pipeline."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), max_features=features)
    logistic = LogisticRegression(C=10, max_iter=300)
    estimator = SGDClassifier(loss="log_loss", max_iter=5, tol=None) if quick else logistic
    return make_pipeline(vectorizer, estimator).fit(texts, labels)


def text_artifact(pipeline: Any, texts: list[str]) -> bytes:
    """Return the artifact of a text pipeline."""
    vectorizer, estimator = pipeline[0], pipeline[-1]
    block = text.from_vectorizer(COLUMN, vectorizer)
    params, sections = linear.export(estimator, "classification", block.width)
    schema = Schema((Column(COLUMN, "text", block.options),))
    golden = Batch(4, {COLUMN: texts[:4]})
    classes = tuple(map(str, estimator.classes_))
    blocks = (("text", block),)
    return export(
        Draft("bench", "classification", schema, classes, blocks, "linear", params, sections, {}, golden)
    )


def publish(root: str, artifact: bytes, header_sha256: str, model: str = "bench") -> None:
    """Put the artifact into a LocalStore as the production version of `model`."""
    store = LocalStore(root)
    registry = Registry(store, clock=time.time, sleep=time.sleep, rng=random.SystemRandom(), actor="bench")
    src, version = "0" * 32, "v-000000000000"
    ledger_claim = {"op": "claim", "src": src, "attempt": 1, "until": 0, "key": "bench", "kind": "file"}
    registry.append(model, lambda _: ledger_claim, op_id="bench-claim")
    key, _ = registry.put_artifact(model, src, 1, artifact)
    registry.publish(
        model, src=src, attempt=1, version=version, manifest_sha256=header_sha256, artifact_key=key,
        size=len(artifact), metrics={}, op_id="bench-publish",
    )  # fmt: skip
    registry.move(model, "production", version, op_id="bench-move")
