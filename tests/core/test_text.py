"""The text block: equal to scikit-learn in fit, row, fused row and matrix, before and after the file."""

from __future__ import annotations

import random
import struct
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer

from core import flatfile, fused
from core.artifact import load
from core.errors import DataRejected, FitFailed, IntegrityError
from core.features import text
from core.features.text import TextBlock
from core.flatfile import FlatFile
from core.schema import Batch, Column
from tests.core.models import TEXTS, text_artifact, text_batch, to_scipy

UNSEEN = [
    "my card my card my parcel",
    "",
    "zebra quagga",
    "Refund REFUND refund the parcel, the parcel",
    "é à l'été",
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"ngrams": [1, 2]},
    {"ngrams": [1, 2], "sublinear_tf": True},
    {"ngrams": [1, 3], "norm": "none"},
    {"weighting": "counts"},
    {"weighting": "counts", "norm": "none", "ngrams": [1, 2]},
    {"weighting": "binary", "ngrams": [1, 2]},
    {"analyzer": "char_wb", "ngrams": [2, 4]},
    {"min_df": 2, "max_features": 5},
    {"hashing": 16, "ngrams": [1, 2]},
    {"hashing": 1024, "weighting": "counts"},
    {"hashing": 64, "alternate_sign": False, "sublinear_tf": True},
]


def fitted(options: dict[str, Any]) -> TextBlock:
    return text.fit([Column("text", "text", options)], text_batch())


def reloaded(block: TextBlock) -> TextBlock:
    file = FlatFile(flatfile.write({}, {f"0/{name}": item for name, item in block.sections().items()}))
    return text.load([Column("text", "text", block.options)], block.params(), file, "0/")


def row_as_array(block: TextBlock, value: str) -> np.ndarray[Any, Any]:
    x = np.zeros(block.width)
    for index, weight in block.row({"text": value}):
        x[index] += weight
    return x


@pytest.mark.parametrize("options", OPTIONS)
def test_the_matrix_is_the_one_of_scikit_learn(options: dict[str, Any]) -> None:
    block = fitted(options)
    batch = text_batch(TEXTS + UNSEEN)
    expected = text.reference(block).transform(batch).toarray()
    assert np.allclose(to_scipy(block.matrix(batch)).toarray(), expected, atol=1e-12)
    assert np.allclose(to_scipy(reloaded(block).matrix(batch)).toarray(), expected, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_one_row_is_the_same_row_as_in_a_batch(options: dict[str, Any]) -> None:
    block = reloaded(fitted(options))
    batch = text_batch(TEXTS + UNSEEN)
    x = to_scipy(block.matrix(batch)).toarray()
    for value, expected in zip(TEXTS + UNSEEN, x, strict=True):
        assert np.allclose(row_as_array(block, value), expected, atol=1e-12)
        indices = [index for index, _ in block.row({"text": value})]
        assert indices == sorted(set(indices))


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fused_row_is_x_times_w(options: dict[str, Any]) -> None:
    block = reloaded(fitted(options))
    w = np.random.default_rng(0).normal(size=(block.width, 3))
    share = block.fuse(lambda index: tuple(w[index]), 3)
    for _ in range(2):  # cold and remembered
        for value in TEXTS + UNSEEN:
            assert np.allclose(share({"text": value}), row_as_array(block, value) @ w, atol=1e-12)


def test_the_memo_of_fused_rows_stays_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "MEMO_BYTES", 0)
    block = reloaded(fitted({"ngrams": [1, 2]}))
    pairs = fused.FusedPairs(block, lambda index: (1.0,), 1)
    for start in range(0, 6000, 50):
        pairs.share({"text": " ".join(f"word{i}" for i in range(start, start + 50))})
        pairs.share({"text": f"alone{start}"})
    assert len(pairs._memo) <= 1024
    assert sum(map(len, pairs._after.values())) <= 1024
    assert len(pairs._after) <= 1024 + 1


def test_the_memo_of_indices_stays_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_MEMO_TERMS", 10)
    block = reloaded(fitted({}))
    for start in range(0, 100, 10):
        x = block.matrix(text_batch([" ".join(f"w{i}" for i in range(start, start + 10)) + " card"]))
        assert len(x.indices) == 1
    assert len(block._known) <= 10 + 11


@pytest.mark.parametrize("length", [0, 1, 2, 9, 60, fused.SHORT + 44])
@pytest.mark.parametrize("distinct", [1, 2, 8, 40])
def test_repeated_words_and_pairs_are_counted(length: int, distinct: int) -> None:
    draw = random.Random(length * distinct)
    for _ in range(50):
        words = [f"w{draw.randrange(distinct)}" for _ in range(length)]
        counts = Counter([*words, *map(" ".join, pairwise(words))])
        assert fused._repeated_terms(words) == {term: n for term, n in counts.items() if n > 1}


def test_names_are_the_terms() -> None:
    block = reloaded(fitted({}))
    vocabulary = TfidfVectorizer().fit(TEXTS).vocabulary_
    assert block.names() == [f"text:{term}" for term in sorted(vocabulary, key=lambda term: vocabulary[term])]
    assert fitted({"hashing": 4}).names()[3] == "text:#3"


def test_a_column_without_terms_is_rejected() -> None:
    with pytest.raises(DataRejected) as caught:
        text.fit([Column("text", "text")], Batch(2, {"text": ["!", "?"]}))
    assert caught.value.reason == "no_terms"


@pytest.mark.parametrize(
    "vectorizer",
    [
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(stop_words="english", strip_accents="unicode", norm=None),
        TfidfVectorizer(use_idf=False, binary=True),
        CountVectorizer(analyzer="char", ngram_range=(1, 3)),
        CountVectorizer(token_pattern=r"\b[a-z]+\b", lowercase=False),
        HashingVectorizer(n_features=64),
    ],
)
def test_a_fitted_vectorizer_is_carried_exactly(vectorizer: Any) -> None:
    vectorizer.fit(TEXTS)
    block = reloaded(text.from_vectorizer("text", vectorizer))
    found = to_scipy(block.matrix(text_batch(TEXTS + UNSEEN))).toarray()
    assert np.allclose(found, vectorizer.transform(TEXTS + UNSEEN).toarray(), atol=1e-12)


@pytest.mark.parametrize(
    ("vectorizer", "named"),
    [
        (TfidfVectorizer(tokenizer=str.split, token_pattern=None), "tokenizer"),
        (TfidfVectorizer(norm="l1"), "norm"),
        (TfidfVectorizer(binary=True), "binary"),
        (CountVectorizer(analyzer=str.split), "analyzer"),
        (CountVectorizer(input="filename"), "input"),
        (CountVectorizer(strip_accents="ascii"), "strip_accents"),
        ("not a vectorizer", "str"),
    ],
)
def test_a_vectorizer_that_cannot_be_carried_is_named(vectorizer: Any, named: str) -> None:
    with pytest.raises(FitFailed, match=named):
        text.from_vectorizer("text", vectorizer)


def test_colliding_terms_in_the_table_are_told_apart() -> None:
    from core import vocabulary

    terms = [f"t{i}" for i in range(5000)]
    weights = [index / 7 for index in range(5000)]
    file = FlatFile(flatfile.write({}, vocabulary.sections(terms, weights)))
    find = vocabulary.finder(file, "")
    asked = terms[::7] + [f"u{i}" for i in range(3000)]
    expected = [terms.index(term) if term.startswith("t") else -1 for term in asked]
    assert [find(term)[0] for term in asked] == expected
    assert [find(term)[1] for term in asked] == [weights[index] if index >= 0 else 0.0 for index in expected]
    assert vocabulary.find_all(file, "", asked) == expected
    assert vocabulary.terms(file, "") == terms
    assert vocabulary.weights(file, "").tolist() == weights


def test_a_vocabulary_with_a_forged_capacity_is_refused() -> None:
    from core import vocabulary

    for count in (0, 3):
        sections: dict[str, Any] = {"slots": bytes(24 * count), "keys": b""}
        with pytest.raises(IntegrityError):
            vocabulary.finder(FlatFile(flatfile.write({}, sections)), "")


def test_a_full_table_ends_the_search() -> None:
    from core import vocabulary

    slots = struct.pack("<IIIIdIIIId", 1, 0, 1, 1, 1.0, 2, 0, 1, 2, 1.0)
    sections: dict[str, Any] = {"slots": slots, "keys": b"x"}
    assert vocabulary.finder(FlatFile(flatfile.write({}, sections)), "")("absent") == vocabulary.UNKNOWN


def test_a_text_model_serves_lone_surrogates_without_failing() -> None:
    model = load(text_artifact())
    assert model.predict(text_batch(["card \ud800 word"])).labels
    assert model.predict(text_batch(["card \ud800\ud801 word"] * 40)).labels
