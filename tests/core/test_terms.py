"""Terms: the same as scikit-learn's analyzers, and the cleaning steps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from core.terms import ENGLISH, analyzer, stop_words


def terms(text: str, **options: Any) -> list[str]:
    return [term for group in analyzer(options).groups(text) for term in group]


TEXT = st.text(
    st.one_of(
        st.sampled_from("aB1_ .,!-\n\t\x1c\x85\u2028éÀßöçİıſ中文\u0301🙂'"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=80,
)


@given(TEXT, st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3)]), st.booleans())
@settings(max_examples=400, deadline=None)
def test_word_ngrams_are_those_of_scikit_learn(text: str, span: tuple[int, int], accents: bool) -> None:
    theirs = CountVectorizer(ngram_range=span, strip_accents="unicode" if accents else None).build_analyzer()
    assert sorted(terms(text, ngrams=list(span), accents=accents)) == sorted(theirs(text))


@given(TEXT, st.sampled_from(["char", "char_wb"]), st.sampled_from([(1, 1), (2, 4), (3, 3)]))
@settings(max_examples=300, deadline=None)
def test_character_ngrams_are_those_of_scikit_learn(text: str, kind: str, span: tuple[int, int]) -> None:
    theirs = CountVectorizer(analyzer=kind, ngram_range=span).build_analyzer()
    assert sorted(terms(text, analyzer=kind, ngrams=list(span))) == sorted(theirs(text))


def test_case_stays_where_it_is_asked_to() -> None:
    assert terms("Hello World", lowercase=False) == ["Hello", "World"]


def test_urls_numbers_and_punctuation_are_removed_or_replaced() -> None:
    text = "See https://a.example/x?y=1 or www.b.example: 1,299.50 off!"
    assert terms(text, urls="remove", numbers="remove") == ["see", "or", "off"]
    assert terms(text, urls="token", numbers="token") == [
        "see",
        "urltoken",
        "or",
        "urltoken",
        "numbertoken",
        "off",
    ]
    assert terms("can't", punctuation="remove", token_pattern=r"(?u)\b\w+\b") == ["can", "t"]


def test_stop_words_are_left_out_but_negation_stays() -> None:
    assert terms("this is not the end", stop_words="english") == ["not", "end"]
    assert terms("alpha beta", stop_words=["beta"]) == ["alpha"]
    assert {"not", "no", "nor"} & set(ENGLISH.split()) == set()
    assert stop_words("none") == frozenset()


def test_words_are_stemmed_by_snowball_and_lemmatised_by_a_dictionary() -> None:
    assert terms("running runs easily", normalize="stem") == ["run", "run", "easili"]
    assert terms("mice were running", normalize="lemma") == ["mouse", "be", "run"]
    assert terms("les chevaux", normalize="lemma", language="french") == ["le", "cheval"]


def test_the_memo_of_stems_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    find = analyzer({"normalize": "stem"})
    many = " ".join(f"w{i}" for i in range((1 << 16) + 10))
    assert len(find.groups(many)[0]) == (1 << 16) + 10
    assert find.groups("running w1")[0] == ["run", "w1"]


@pytest.mark.parametrize("text", ["a" * 50_000 + "!", "www." * 20_000, "1," * 30_000, " " * 50_000, "é" * 50_000])
def test_no_pattern_backtracks_on_hostile_text(text: str) -> None:
    # linear patterns: the work is bounded by the text, so that this test simply ends
    terms(text, urls="token", numbers="token", punctuation="remove", accents=True)
    terms(text, analyzer="char_wb", ngrams=[2, 3])
