"""The search over parameters with scikit-learn's Grid, Randomized and Halving searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError
from core.pipeline import Overlay
from core.spec import ModelSpec, SearchSpec

Array = NDArray[Any]
MAX_TABLE = 50


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: options of features, parameters of the estimator, and the facts for the manifest."""

    overlay: Overlay = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] | None = None


def run(spec: ModelSpec, pipeline: Any, x: Array, y: Array) -> Found:
    """Return the best candidate of the spec's search by cross-validation; nothing found without a search.

    The folds are stratified and seeded. Features are fitted inside each fold. Raises what a fit raises.
    """
    if spec.search is None:
        return Found()
    grid = {_step(key) + key: list(values) for key, values in spec.search.params.items()}
    splitter = _folds(spec, y)
    search = _search(spec, spec.search, pipeline, grid, splitter)
    search.fit(x, y)
    best = {_raw(key): value for key, value in search.best_params_.items()}
    return Found(
        overlay=tuple((key, value) for key, value in best.items() if "." in key),
        params={key: value for key, value in best.items() if "." not in key},
        facts={"method": spec.search.method, "scoring": _scoring(spec)}
        | _facts(search, best, splitter.get_n_splits()),
    )


def _step(key: str) -> str:
    return "features__" if "." in key else "estimator__"


def _raw(key: str) -> str:
    return key.partition("__")[2]


def fold_count(spec: ModelSpec, y: Array) -> int:
    """Return the folds of the spec, fewer if the smallest class (or the data) has not so many rows."""
    if spec.search is None:
        return 0
    rarest = min(Counter(y.tolist()).values()) if spec.task == "classification" else len(y)
    return max(2, min(spec.search.folds, rarest))


def _folds(spec: ModelSpec, y: Array) -> Any:
    from sklearn.model_selection import KFold, StratifiedKFold

    splitter = StratifiedKFold if spec.task == "classification" else KFold
    return splitter(n_splits=fold_count(spec, y), shuffle=True, random_state=spec.split.seed)


def _search(spec: ModelSpec, search: SearchSpec, pipeline: Any, grid: dict[str, list[Any]], folds: Any) -> Any:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, ParameterGrid, RandomizedSearchCV

    # refit=False: the caller fits the best candidate once more, through the same door as without a search
    shared: dict[str, Any] = {"cv": folds, "scoring": _scoring(spec), "refit": False, "error_score": "raise"}
    if search.method == "grid":
        return GridSearchCV(pipeline, grid, **shared)
    if search.method == "randomized":
        tries = min(search.iterations, len(ParameterGrid(grid)))
        return RandomizedSearchCV(pipeline, grid, n_iter=tries, random_state=spec.split.seed, **shared)
    return HalvingGridSearchCV(pipeline, grid, random_state=spec.split.seed, **shared)


def _scoring(spec: ModelSpec) -> str:
    default = "accuracy" if spec.task == "classification" else "r2"
    return (spec.search.scoring if spec.search else None) or default


def check_scoring(search: SearchSpec) -> None:
    """Raise ConfigError if scikit-learn knows no such scoring."""
    from sklearn.metrics import get_scorer_names

    if search.scoring is not None and search.scoring not in get_scorer_names():
        raise ConfigError("search.scoring is not a name that scikit-learn knows")


def _facts(done: Any, best: Mapping[str, Any], folds: int) -> dict[str, Any]:
    """Return the table of candidates, best first; without times, so that the artifact stays the same."""
    results = done.cv_results_
    order = np.argsort(results["rank_test_score"], kind="stable")
    if "iter" in results:  # halving: a candidate of a later round has seen more rows
        order = np.lexsort((results["rank_test_score"], -np.asarray(results["iter"])))
    table = [
        {
            "params": {_raw(key): value for key, value in results["params"][i].items()},
            "mean": float(results["mean_test_score"][i]),
            "std": float(results["std_test_score"][i]),
        }
        for i in order[:MAX_TABLE]
    ]
    return {
        "folds": folds,
        "candidates": len(results["params"]),
        "best": dict(best),
        "best_score": float(done.best_score_),
        "table": table,
    }
