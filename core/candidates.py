"""What has proved to suit which data: the estimators and options that `init` writes, best guess first.

Measured on the project's data sets, each against plain scikit-learn pipelines (README, Decisions):
texts do best with words and pairs of words, sublinear TF-IDF and little regularisation (C = 30); tables of many
rows with boosting; small tables differ, so several candidates are compared; images with gradients (HOG).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from core.profiling import Profile

TINY_ROWS = 500  # too few to boost
SMALL_ROWS = 6000  # tables up to here are compared, larger ones are boosted
MANY_ROWS = 20_000  # texts from here on: terms of a single text are not kept
MAX_TERMS = 200_000
MAX_SIDE = 48
MANY_LEVELS = 30
RARE_LEVEL = 5

Options = Mapping[str, Any]


class Facts(NamedTuple):
    """What the choice hangs on. `images` maps an image column of an array to its (h, w, is_colour)."""

    task: str
    n_rows: int
    n_classes: int
    kinds: Mapping[str, str]
    with_missing: frozenset[str]
    levels: Mapping[str, int]
    images: Mapping[str, tuple[int, int, bool]]

    @classmethod
    def of(cls, task: str, kinds: Mapping[str, str], profiles: Mapping[str, Profile], target: Profile) -> Facts:
        """Return the facts of the columns that are kept."""
        kept = {name: profiles[name] for name in kinds}
        shapes = {name: p.shape for name, p in kept.items() if p.shape is not None and kinds[name] == "image"}
        return cls(
            task=task,
            n_rows=target.count,
            n_classes=target.n_distinct() if task == "classification" else 0,
            kinds=kinds,
            with_missing=frozenset(name for name, p in kept.items() if p.missing or p.words_for_missing()),
            levels={name: p.n_distinct() for name, p in kept.items() if kinds[name] == "category"},
            images={name: (s[0], s[1], len(s) == 3 and s[2] == 3) for name, s in shapes.items()},
        )


class Candidate(NamedTuple):
    """An estimator with the options that go with it, by column."""

    title: str
    estimator: Mapping[str, Any]
    by_column: Mapping[str, Options]

    def options(self, column: str) -> Options:
        """Return the options of a column."""
        return self.by_column[column]


def of(facts: Facts) -> list[Candidate]:
    """Return the candidates for the data, the best guess first."""
    kinds = set(facts.kinds.values())
    if "text" in kinds:
        return [_linear(facts, 30.0)]
    if kinds & {"image", "vector"}:
        return [_linear(facts, 0.02 if "image" in kinds else 1.0)]
    if facts.n_rows > SMALL_ROWS:
        return [_boosting(facts)]
    small = [_linear(facts, 10.0), _forest(facts, "random_forest"), _forest(facts, "extra_trees")]
    return small if facts.n_rows < TINY_ROWS else [*small, _boosting(facts)]


def _estimator(kind: str, algorithm: str, **params: Any) -> dict[str, Any]:
    return {"kind": kind, "algorithm": algorithm, "params": params}


def _linear(facts: Facts, strength: float) -> Candidate:
    """Return logistic regression or ridge; `strength` is C, or 1 / alpha."""
    if facts.task == "regression":
        return Candidate("ridge", _estimator("linear", "ridge", alpha=1 / strength), _columns(facts, _scaled))
    params = {"C": strength, "max_iter": 2000}
    estimator = _estimator("linear", "logistic_regression", **params)
    return Candidate("logistic regression", estimator, _columns(facts, _scaled))


def _forest(facts: Facts, algorithm: str) -> Candidate:
    leaf = 1 if facts.task == "regression" else 3 if algorithm == "random_forest" else 2
    trees = 100 if facts.n_rows < TINY_ROWS else 300
    estimator = _estimator("trees", algorithm, n_estimators=trees, min_samples_leaf=leaf)
    return Candidate(algorithm.replace("_", " "), estimator, _columns(facts, _imputed))


def _boosting(facts: Facts) -> Candidate:
    params: dict[str, Any] = {"max_iter": 300, "learning_rate": 0.05, "early_stopping": False}
    estimator = _estimator("trees", "hist_gradient_boosting", **params)
    return Candidate("boosting", estimator, _columns(facts, _as_they_are))


def _columns(facts: Facts, number: Any) -> dict[str, Options]:
    found: dict[str, Options] = {}
    for name, kind in facts.kinds.items():
        if kind == "number":
            found[name] = number(name in facts.with_missing)
        elif kind == "category":
            found[name] = {"min_frequency": RARE_LEVEL} if facts.levels[name] > MANY_LEVELS else {}
        elif kind == "text":
            found[name] = _text(facts)
        elif kind == "image":
            found[name] = _image(facts.images.get(name))
        else:
            found[name] = {"scale": "standard"}
    return found


def _scaled(with_missing: bool) -> Options:
    base = {"impute": "median", "scale": "standard"}
    return {**base, "indicator": True} if with_missing else base


def _imputed(with_missing: bool) -> Options:
    base = {"impute": "median", "scale": "none"}
    return {**base, "indicator": True} if with_missing else base


def _as_they_are(with_missing: bool) -> Options:
    return {"impute": "none", "scale": "none"}


def _text(facts: Facts) -> Options:
    base: dict[str, Any] = {"ngrams": [1, 2], "sublinear_tf": True}
    return {**base, "min_df": 2, "max_features": MAX_TERMS} if facts.n_rows >= MANY_ROWS else base


def _image(shape: tuple[int, int, bool] | None) -> Options:
    height, width, colour = shape or (MAX_SIDE, MAX_SIDE, True)
    size = [min(height, MAX_SIDE), min(width, MAX_SIDE)]
    return {"size": size, "grey": True, "pixels": True, "hog": True, "histogram": 16 if colour else 0}
