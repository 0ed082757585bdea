"""What has proved to suit which data: the estimators and options that `init` writes, best guess first.

Measured by cross-validation on the project's data sets, beside plain scikit-learn pipelines:

- Texts alone: words and pairs of words, sublinear TF-IDF, logistic regression with little regularisation (C = 30).
- Texts with other columns: the same without the norm, so that the terms weigh against hundreds of image features.
- Images: gradients (HOG), with pixels if they are grey, with a colour histogram if not; strong regularisation.
- Tables of many rows: boosting. Small ones differ so much that a few candidates are compared on the data itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.profiling import Profile
from core.tuples import NamedTuple

TINY_ROWS = 500  # too few to boost
SMALL_ROWS = 6000  # tables and mixtures up to here are compared
MANY_ROWS = 20_000  # texts from here on: terms of a single text are not kept
MAX_TERMS = 200_000
MAX_SIDE = 48  # of an image by itself
MIXED_SIDE = 16  # of an image beside texts
BINS = 16
MANY_LEVELS = 30
RARE_LEVEL = 5

Options = Mapping[str, Any]


class Facts(NamedTuple):
    """What the choice hangs on. `images` maps an image column of an array to its (h, w, is_colour)."""

    task: str
    n_rows: int
    kinds: Mapping[str, str]
    with_missing: frozenset[str]
    levels: Mapping[str, int]
    images: Mapping[str, tuple[int, int, bool]]

    @classmethod
    def of(cls, task: str, n_rows: int, kinds: Mapping[str, str], profiles: Mapping[str, Profile]) -> Facts:
        """Return the facts of the columns that are kept."""
        kept = {name: profiles[name] for name in kinds}
        shapes = {name: p.shape for name, p in kept.items() if p.shape is not None and kinds[name] == "image"}
        return cls(
            task=task,
            n_rows=n_rows,
            kinds=kinds,
            with_missing=frozenset(name for name, p in kept.items() if p.missing or p.words_for_missing()),
            levels={name: p.n_distinct() for name, p in kept.items() if kinds[name] == "category"},
            images={name: (s[0], s[1], len(s) == 3 and s[2] == 3) for name, s in shapes.items()},
        )

    def has(self, kind: str) -> bool:
        """Whether a column of that kind is kept."""
        return kind in self.kinds.values()


class Candidate(NamedTuple):
    """An estimator with the options that go with it, by column, and a search if it needs one."""

    title: str
    estimator: Mapping[str, Any]
    by_column: Mapping[str, Options]
    search: Mapping[str, Any] | None = None


def of(facts: Facts) -> list[Candidate]:
    """Return the candidates for the data, the best guess first."""
    if facts.has("text"):
        return _texts(facts)
    if facts.has("image") or facts.has("vector"):
        return [_linear(facts, 0.01 if facts.has("image") else 1.0)]
    if facts.n_rows > SMALL_ROWS:
        return [_boosting(facts, max_iter=300)]
    small = [_linear(facts, 10.0), _forest(facts, "random_forest"), _forest(facts, "extra_trees")]
    return small if facts.n_rows < TINY_ROWS else [*small, _boosting(facts, max_iter=150, max_leaf_nodes=15)]


def _texts(facts: Facts) -> list[Candidate]:
    if set(facts.kinds.values()) == {"text"}:
        return [_linear(facts, 30.0)]
    if not facts.has("image"):
        return [_linear(facts, 0.03, text={"norm": "none"})]
    size = {"size": [MIXED_SIDE, MIXED_SIDE], "pixels": False, "histogram": BINS}
    shared: dict[str, Any] = {"text": {"norm": "none"}}
    return [
        _linear(facts, 0.03, "with gradients and colours", image={**size, "hog": True}, **shared),
        _linear(facts, 0.3, "with colours", image={**size, "hog": False}, **shared),
    ]


def _estimator(kind: str, algorithm: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "algorithm": algorithm, "params": dict(params)}


def _linear(facts: Facts, strength: float, suffix: str = "", **more: Options) -> Candidate:
    """Return logistic regression with C = `strength`, or ridge with a search for its alpha."""
    columns = _columns(facts, _scaled, more)
    if facts.task == "regression":
        search = {"method": "grid", "folds": 3, "params": {"alpha": [0.1, 1.0, 10.0, 100.0, 1000.0]}}
        return Candidate(f"ridge {suffix}".strip(), _estimator("linear", "ridge", {}), columns, search)
    estimator = _estimator("linear", "logistic_regression", {"C": strength, "max_iter": 2000})
    return Candidate(f"logistic regression {suffix}".strip(), estimator, columns)


def _forest(facts: Facts, algorithm: str) -> Candidate:
    params: dict[str, Any] = {"n_estimators": 100 if facts.n_rows < TINY_ROWS else 300}
    if algorithm == "extra_trees" and facts.n_rows >= TINY_ROWS:
        params["max_features"] = 0.5
    elif facts.task == "classification":
        params["min_samples_leaf"] = 2
    return Candidate(
        algorithm.replace("_", " "), _estimator("trees", algorithm, params), _columns(facts, _imputed)
    )


def _boosting(facts: Facts, **params: Any) -> Candidate:
    params = {**params, "learning_rate": 0.05, "early_stopping": False}
    encode = "ordinal" if sum(facts.levels.values()) > MANY_LEVELS else "onehot"
    columns = _columns(facts, _as_they_are, {"category": {"encode": encode}})
    return Candidate("boosting", _estimator("trees", "hist_gradient_boosting", params), columns)


def _columns(
    facts: Facts, number: Callable[[bool], Options], more: Mapping[str, Options] | None = None
) -> dict[str, Options]:
    """Return the options of every column; `more` are those that a candidate adds by kind."""
    made: dict[str, Callable[[str], Options]] = {
        "number": lambda name: number(name in facts.with_missing),
        "category": lambda name: {"min_frequency": RARE_LEVEL} if facts.levels[name] > MANY_LEVELS else {},
        "text": lambda name: _text(facts),
        "image": lambda name: _image(facts.images.get(name)),
        "vector": lambda name: {"scale": "standard"},
    }
    more = more or {}
    return {name: {**made[kind](name), **more.get(kind, {})} for name, kind in facts.kinds.items()}


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
    return {"size": size, "hog": True, "pixels": not colour, "histogram": BINS if colour else 0}
