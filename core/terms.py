"""From a text to its terms: cleaning, tokens, stop words, stems, n-grams. One implementation for fit and serving.

With the defaults the terms are those of scikit-learn's TfidfVectorizer: lower case, tokens of two or more word
characters, n-grams joined by one space; character n-grams follow its "char" and "char_wb" analyzers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from core.tuples import NamedTuple

TOKEN = r"(?u)\b\w\w+\b"  # noqa: S105 - scikit-learn's default token_pattern
# compiled by the models that ask for it, not at each cold start
_URL = r"(?:https?://|www\.)\S+"
_NUMBER = r"\d+(?:[.,]\d+)*"
_PUNCTUATION = r"[^\w\s]+"
_SPACES = r"\s\s+"

_WORDS = re.compile(r"\w\w+")  # the same tokens as TOKEN: a greedy run of word characters ends at boundaries
_ASCII = bytes(c if chr(c).isalnum() or c == ord("_") else 32 for c in range(128)) + bytes([32] * 128)

Tokens = Callable[[str], list[str]]


class Analyzer(NamedTuple):
    """How a text becomes terms, with repeats.

    `groups` yields one list per n-gram length; `words` the tokens that word n-grams are made of (None for
    character n-grams); `span` is the lowest and the highest n.
    """

    groups: Callable[[str], list[list[str]]]
    words: Tokens | None
    span: tuple[int, int]


MAX_NGRAM = 100
DEFAULTS: dict[str, Any] = {
    "analyzer": "word",
    "ngrams": [1, 1],
    "lowercase": True,
    "accents": False,
    "urls": "keep",
    "numbers": "keep",
    "punctuation": "keep",
    "stop_words": "none",
    "normalize": "none",
    "language": "english",
    "token_pattern": TOKEN,
}


def analyzer(options: Mapping[str, Any]) -> Analyzer:
    """Return the analyzer for the options (missing ones as in DEFAULTS). Raises ValueError for absurd ngrams."""
    o = {**DEFAULTS, **options}
    clean, (low, high) = _cleaner(o), o["ngrams"]
    if not 1 <= low <= high <= MAX_NGRAM:
        raise ValueError("ngrams")
    if o["analyzer"] != "word":
        ngrams = _char_ngrams if o["analyzer"] == "char" else _char_wb_ngrams
        return Analyzer(lambda text: [ngrams(re.sub(_SPACES, " ", clean(text)), low, high)], None, (low, high))
    tokens = _tokenizer(o)

    def words(text: str) -> list[str]:
        return tokens(clean(text))

    if (low, high) == (1, 2):  # by far the most used: no slicing
        return Analyzer(lambda text: _unigrams_and_bigrams(words(text)), words, (1, 2))
    return Analyzer(lambda text: _word_ngrams(words(text), low, high), words, (low, high))


def _unigrams_and_bigrams(words: list[str]) -> list[list[str]]:
    return [words, [f"{first} {second}" for first, second in pairwise(words)]]


def _word_ngrams(words: list[str], low: int, high: int) -> list[list[str]]:
    return [
        words if n == 1 else [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        for n in range(low, high + 1)
    ]


def _char_ngrams(text: str, low: int, high: int) -> list[str]:
    return [text[i : i + n] for n in range(low, high + 1) for i in range(len(text) - n + 1)]


def _char_wb_ngrams(text: str, low: int, high: int) -> list[str]:
    """Return n-grams inside words padded with a space; a word shorter than n counts once."""
    terms: list[str] = []
    for word in text.split():
        padded = f" {word} "
        for n in range(low, high + 1):
            terms.append(padded[:n])
            terms += [padded[i : i + n] for i in range(1, len(padded) - n + 1)]
            if len(padded) <= n:
                break
    return terms


def _cleaner(o: Mapping[str, Any]) -> Callable[[str], str]:
    """Return the function that applies the cleaning steps which are on, in a fixed order."""
    steps: list[Callable[[str], str]] = []
    if o["lowercase"]:
        steps.append(str.lower)
    if o["accents"]:
        steps.append(_strip_accents)
    if o["urls"] != "keep":
        url = " urltoken " if o["urls"] == "token" else " "
        steps.append(lambda text: re.sub(_URL, url, text))
    if o["numbers"] != "keep":
        number = " numbertoken " if o["numbers"] == "token" else " "
        steps.append(lambda text: re.sub(_NUMBER, number, text))
    if o["punctuation"] == "remove":
        steps.append(lambda text: re.sub(_PUNCTUATION, " ", text))
    if len(steps) == 1:
        return steps[0]

    def clean(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return clean


def _strip_accents(text: str) -> str:
    """Return the text without combining marks (Unicode NFKD), as scikit-learn's strip_accents="unicode"."""
    if text.isascii():
        return text
    import unicodedata

    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _tokenizer(o: Mapping[str, Any]) -> Tokens:
    find = _default_tokens if o["token_pattern"] == TOKEN else re.compile(o["token_pattern"]).findall
    stop = stop_words(o["stop_words"])
    normal = _normalizer(o["normalize"], o["language"])
    if not stop and normal is None:
        return find

    def tokens(text: str) -> list[str]:
        words = [word for word in find(text) if word not in stop]
        return words if normal is None else list(map(normal, words))

    return tokens


def _default_tokens(text: str) -> list[str]:
    """Return the runs of two or more word characters; ASCII takes a way without a regex, twice as fast."""
    if text.isascii():
        return [word for word in text.encode().translate(_ASCII).decode().split() if len(word) > 1]
    return _WORDS.findall(text)


def stop_words(choice: str | list[str]) -> frozenset[str]:
    """Return the words to leave out: none, a list of one's own, or the English function words."""
    if isinstance(choice, list):
        return frozenset(choice)
    return frozenset() if choice == "none" else frozenset(ENGLISH.split())


def _normalizer(choice: str, language: str) -> Callable[[str], str] | None:
    """Return the memoised function word → stem (Snowball) or lemma (simplemma's dictionary), or None."""
    if choice == "none":
        return None
    word_to_base = _stem(language) if choice == "stem" else _lemma(language)
    known: dict[str, str] = {}

    def normal(word: str) -> str:
        base = known.get(word)
        if base is None:
            if len(known) >= 1 << 16:
                known.clear()
            base = known[word] = word_to_base(word)
        return base

    return normal


def _stem(language: str) -> Callable[[str], str]:
    import threading

    import snowballstemmer

    stemmer, lock = snowballstemmer.stemmer(language), threading.Lock()

    def stem(word: str) -> str:
        with lock:  # a stemmer keeps the word it works on in itself
            return str(stemmer.stemWord(word))

    return stem


def _lemma(language: str) -> Callable[[str], str]:
    import simplemma

    code = LANGUAGE_CODES[language]
    return lambda word: str(simplemma.lemmatize(word, lang=code))


LANGUAGE_CODES = {
    "english": "en", "french": "fr", "german": "de", "spanish": "es", "italian": "it", "portuguese": "pt",
    "dutch": "nl", "swedish": "sv", "danish": "da", "norwegian": "nb", "finnish": "fi", "russian": "ru",
}  # fmt: skip

# Function words only (articles, pronouns, auxiliaries, prepositions, conjunctions); "not" and "no" stay, for
# they carry the sentiment.
ENGLISH = """
a about above after again against all am an and any are as at be because been before being below between both
but by can could did do does doing down during each few for from further had has have having he her here hers
herself him himself his how i if in into is it its itself just me more most my myself now of off on once only or
other our ours ourselves out over own same she should so some such than that the their theirs them themselves
then there these they this those through to too under until up very was we were what when where which while who
whom why will with would you your yours yourself yourselves
"""
