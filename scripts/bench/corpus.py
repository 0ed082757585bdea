"""Texts for the benchmarks: real news where the data sets are present, else drawn from a Zipf vocabulary."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np

WORDS_PER_TEXT = 60


def data_folder() -> Path | None:
    """Return the folder of data sets: POLYSKY_DATA, or shared/data beside the repository; None without."""
    named = os.environ.get("POLYSKY_DATA")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    return folder if folder.is_dir() else None


def corpus(n_texts: int = 4560) -> tuple[str, list[str], list[str]]:
    """Return the source's name, texts and labels of 4 classes."""
    folder = data_folder()
    if folder is not None and (folder / "ag_news").is_dir():
        csv.field_size_limit(1 << 24)
        with gzip.open(folder / "ag_news" / "data.csv.gz", "rt", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        return "ag_news", [row["text"] for row in rows], [row["label"] for row in rows]
    texts, labels = synthetic(n_texts)
    return "synthetic", texts, labels


def synthetic(n_texts: int, words: int = 30_000, length: int = 40) -> tuple[list[str], list[str]]:
    """Return texts of 4 classes from a Zipf vocabulary; each class prefers its own quarter of the words."""
    rng = np.random.default_rng(0)
    vocabulary = np.array([_word(index) for index in range(words)])
    weight = 1.0 / np.arange(1, words + 1)
    kinds = rng.integers(0, 4, n_texts)
    texts = []
    for kind in kinds:
        mine = weight * np.where(np.arange(words) % 4 == kind, 4.0, 1.0)
        texts.append(" ".join(rng.choice(vocabulary, length, p=mine / mine.sum())))
    return texts, [f"class{kind}" for kind in kinds]


def _word(index: int) -> str:
    """Return a pronounceable word, another for each index."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    word = ""
    index += len(syllables)
    while index:
        index, rest = divmod(index, len(syllables))
        word += syllables[rest]
    return word


def queries(texts: list[str], count: int) -> list[str]:
    """Return `count` texts of WORDS_PER_TEXT words, each made of neighbouring texts of the corpus."""
    joined = " ".join(texts).split()
    return [" ".join(joined[i * WORDS_PER_TEXT : (i + 1) * WORDS_PER_TEXT]) for i in range(count)]
