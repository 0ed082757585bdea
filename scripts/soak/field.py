"""The model of the soak: its spec, endless rows, the questions asked, and what each version must answer."""

from __future__ import annotations

import random
import time
from pathlib import Path

from core import artifact
from core.dialects import native
from core.local_store import open_store
from core.registry import Registry

MODEL = "soak"
SPEC = f"""
name = "{MODEL}"
task = "classification"
label = "label"
[columns.text]
kind = "text"
[estimator]
kind = "linear"
algorithm = "logistic_regression"
[gate]
max_drop = 0.2
"""
_WORDS = {
    "glad": ("sunny", "cake", "friend", "laugh", "gift", "song"),
    "sad": ("rain", "lost", "alone", "tears", "late", "cold"),
}
_EVERY = tuple(word for words in _WORDS.values() for word in words)
_MARK = b'"predictions":'


def rows(seed: int, count: int) -> str:
    """Return CSV rows that no other seed has: each text tells its class, and is a little noisy."""
    rng = random.Random(seed)  # noqa: S311
    lines = ["text,label"]
    for index in range(count):
        label = rng.choice(tuple(_WORDS))
        words = rng.choices(_WORDS[label], k=4) + rng.choices(_EVERY, k=1) + [f"n{seed}x{index}"]
        lines.append(f"{' '.join(words)},{label}")
    return "\n".join(lines) + "\n"


def questions(count: int = 8) -> list[str]:
    """Return texts of both classes and between them."""
    rng = random.Random(7)  # noqa: S311
    return [" ".join(rng.choices(_EVERY, k=rng.randint(2, 9))) for _ in range(count)]


def numbers_of(body: bytes) -> bytes:
    """Return the part of an answer that the model decides."""
    return body.partition(_MARK)[2]


def open_registry(store: Path) -> Registry:
    """Return the registry of a folder, read without the bad disk."""
    target = open_store(str(store))
    rng = random.Random(0)  # noqa: S311
    return Registry(target, clock=time.time, sleep=time.sleep, rng=rng, actor="soak")


def truth(store: Path, version: str) -> list[bytes]:
    """Return what `version` must answer to each question, from its own artifact, without any server."""
    found = open_registry(store).state(MODEL).versions[version]
    model = artifact.load(open_store(str(store)).get(found.artifact_key).data, found.manifest_sha256)
    model.file.verify_all()
    answers = []
    for text in questions():
        predictions = model.predict(model.schema.batch([{"text": text}]))
        answers.append(numbers_of(native.encode(MODEL, version, "", model.classes, predictions)))
    return answers
