"""What may stand in a model spec: for every key its rule and the words that say it.

A section of the spec is a mapping of key → Rule; so are the feature options of each column kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from core.kinds import ESTIMATORS
from core.tuples import NamedTuple

MAX_NGRAM = 10
MAX_FEATURES = 1 << 24
MAX_IMAGE_SIDE = 512


class Rule(NamedTuple):
    """A test of one value, and the rule in words (to follow "must be")."""

    allows: Callable[[Any], bool]
    words: str


def choice(*allowed: str) -> Rule:
    """Return the rule of one of a few words."""
    return Rule(lambda value: isinstance(value, str) and value in allowed, "one of " + ", ".join(allowed))


def whole(low: int, high: int) -> Rule:
    """Return the rule of a whole number from low to high."""
    return Rule(lambda value: _is_whole(value) and low <= value <= high, f"a whole number from {low} to {high}")


def share(low: float, high: float) -> Rule:
    """Return the rule of a number from low to high."""
    return Rule(lambda value: _is_number(value) and low <= value <= high, f"a number from {low:g} to {high:g}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: Any, high: int) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 2 and all(_is_whole(v) and 1 <= v <= high for v in value)
    )


def _is_frequency(value: Any) -> bool:
    """Whether the value is a count of at least 1 or a share up to 1.0, as scikit-learn reads min_df."""
    return (_is_whole(value) and value >= 1) or (isinstance(value, float) and 0.0 <= value <= 1.0)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value).groups <= 1
    except re.error:
        return False


FLAG = Rule(lambda value: isinstance(value, bool), "true or false")
WORD = Rule(lambda value: isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable(), "a short text")
NUMBER = Rule(_is_number, "a number")
_FREQUENCY = Rule(_is_frequency, "a whole number of rows from 1, or a share from 0.0 to 1.0")
_SCALE = choice("standard", "minmax", "robust", "none")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or _is_number(value)


def _is_plain(value: Any) -> bool:
    return _is_scalar(value) or (isinstance(value, list) and all(map(_is_scalar, value)))


def _is_params(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_plain(v) for k, v in value.items())


def _is_search(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, list) and v and all(map(_is_plain, v)) for k, v in value.items()
    )


def _is_minimum(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in value.items())


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_NAME = Rule(lambda value: isinstance(value, str) and bool(NAME.fullmatch(value)), "a name such as my-model")
HEAD: Mapping[str, Rule] = {
    "name": _NAME,
    "task": choice("classification", "regression"),
    "label": WORD,
    "balance": choice("none", "class_weight", "oversample", "undersample", "smote"),
}
SECTIONS: Mapping[str, Mapping[str, Rule]] = {
    "data": {
        "extra": choice("error", "ignore"),
        "missing": Rule(_is_words, "a list of texts"),
        "quarantine": share(0, 0.5),
    },
    "labels": {"min_rows": whole(1, 1_000_000), "rare": choice("error", "drop"), "new": choice("error", "accept")},
    "estimator": {
        "kind": choice(*ESTIMATORS),
        "algorithm": WORD,
        "params": Rule(_is_params, "a table of numbers, texts, booleans or lists of them"),
    },
    "search": {
        "method": choice("grid", "randomized", "halving"),
        "params": Rule(_is_search, "a table of lists of values to try"),
        "folds": whole(2, 20),
        "iterations": whole(1, 10_000),
        "scoring": WORD,
    },
    "split": {"holdout": share(0.01, 0.5), "seed": whole(0, 2**32 - 1)},
    "gate": {
        "metric": WORD,
        "max_drop": share(0, 1),
        "minimum": Rule(_is_minimum, "a table of metric = number"),
        "last_n": whole(1, 1000),
        "allow_leakage": FLAG,
        "allow_suspicion": FLAG,
    },
    "retrain": {"data": choice("union", "upload"), "min_rows": whole(1, 1_000_000_000)},
}
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "head": ("name", "task", "label"),
    "estimator": ("kind", "algorithm"),
    "search": ("params",),
}
# what a column table may hold besides its options, by kind
SHAPES: Mapping[str, Mapping[str, Rule]] = {
    "vector": {"width": whole(1, MAX_FEATURES)},
    "category": {"values": Rule(_is_words, "a list of texts")},
}

OPTIONS: Mapping[str, Mapping[str, Rule]] = {
    "text": {
        "analyzer": choice("word", "char", "char_wb"),
        "ngrams": Rule(
            lambda value: _is_pair(value, MAX_NGRAM) and value[0] <= value[1],
            f"two whole numbers [low, high] from 1 to {MAX_NGRAM}",
        ),
        "lowercase": FLAG,
        "accents": FLAG,
        "urls": choice("keep", "remove", "token"),
        "numbers": choice("keep", "remove", "token"),
        "punctuation": choice("keep", "remove"),
        "stop_words": choice("none", "english"),
        "normalize": choice("none", "stem", "lemma"),
        "language": WORD,
        "token_pattern": Rule(_is_pattern, "a regular expression with at most one group"),
        "weighting": choice("tfidf", "counts", "binary"),
        "sublinear_tf": FLAG,
        "min_df": _FREQUENCY,
        "max_df": _FREQUENCY,
        "max_features": whole(0, MAX_FEATURES),
        "norm": choice("l2", "none"),
        "hashing": whole(0, MAX_FEATURES),
        "alternate_sign": FLAG,
    },
    "number": {
        "impute": choice("median", "mean", "zero", "none"),
        "indicator": FLAG,
        "scale": _SCALE,
    },
    "category": {"encode": choice("onehot", "ordinal"), "min_frequency": _FREQUENCY},
    "image": {
        "size": Rule(
            lambda value: _is_pair(value, MAX_IMAGE_SIDE),
            f"[height, width], whole numbers up to {MAX_IMAGE_SIDE}",
        ),
        "grey": FLAG,
        "pixels": FLAG,
        "hog": FLAG,
        "histogram": whole(0, 256),
    },
    "vector": {"scale": _SCALE},
}
