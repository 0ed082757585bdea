"""Linear models: logistic regression, SGD, linear SVC with calibrated probabilities, ridge, least squares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core import affine
from core.affine import Affine
from core.errors import ConfigError, FitFailed

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Sections

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "logistic_regression": ("classification",),
    "sgd": ("classification", "regression"),
    "linear_svc": ("classification",),
    "ridge": ("regression",),
    "linear_regression": ("regression",),
}
MAX_ITER = 1000


def build(algorithm: str, task: str, params: Mapping[str, Any], seed: int) -> Any:
    """Return the unfitted scikit-learn estimator. Raises ConfigError naming a bad parameter."""
    from sklearn import linear_model

    try:
        if algorithm == "logistic_regression":
            return linear_model.LogisticRegression(**{"max_iter": MAX_ITER, "random_state": seed, **params})
        if algorithm == "linear_svc":
            return _calibrated_svc({"random_state": seed, **params})
        if algorithm == "ridge":
            return linear_model.Ridge(**{"random_state": seed, **params})
        if algorithm == "linear_regression":
            return linear_model.LinearRegression(**params)
        if task == "regression":
            return linear_model.SGDRegressor(**{"random_state": seed, **params})
        return linear_model.SGDClassifier(**{"loss": "log_loss", "random_state": seed, **params})
    except TypeError as error:
        raise ConfigError(f"estimator.params of {algorithm}: {error}") from error


def _calibrated_svc(params: Mapping[str, Any]) -> Any:
    """Return LinearSVC behind one sigmoid a class (ensemble=False keeps a single linear model to carry)."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import LinearSVC

    folds = params.get("calibration_folds", 3)
    rest = {name: value for name, value in params.items() if name != "calibration_folds"}
    return CalibratedClassifierCV(LinearSVC(**rest), method="sigmoid", cv=folds, ensemble=False)


def export(fitted: Any, task: str, width: int) -> tuple[dict[str, Any], Sections]:
    """Return the portable form of a fitted linear model: its link and the arrays w and b.

    Raises FitFailed if it is not one that this kind carries.
    """
    import numpy as np

    link, linear = _link(fitted, task)
    weights = np.atleast_2d(np.asarray(linear.coef_, np.float64)).T
    intercept = np.atleast_1d(np.asarray(linear.intercept_, np.float64))
    if intercept.size != weights.shape[1]:
        intercept = np.broadcast_to(intercept, (weights.shape[1],))
    if weights.shape[0] != width or not np.isfinite(weights).all():
        raise FitFailed("the linear model has weights that are not finite or not one a feature")
    return link, affine.sections(weights, intercept)


def _link(fitted: Any, task: str) -> tuple[dict[str, Any], Any]:
    """Return the link parameters and the object that holds coef_ and intercept_."""
    name = type(fitted).__name__
    if name == "CalibratedClassifierCV":
        return _calibrated_link(fitted)
    if not hasattr(fitted, "coef_"):
        raise FitFailed(f"{name} is not a linear model")
    if task == "regression":
        return {"link": "identity"}, fitted
    binary = len(fitted.classes_) == 2
    if name in ("LogisticRegression", "LogisticRegressionCV") and fitted.solver != "liblinear":
        return {"link": "sigmoid" if binary else "softmax"}, fitted
    if name == "SGDClassifier" and fitted.loss != "log_loss":
        raise FitFailed(f"SGDClassifier with loss {fitted.loss} has no portable probabilities; use log_loss")
    if name in ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier"):
        return {"link": "sigmoid" if binary else "ovr"}, fitted
    raise FitFailed(f"{name} has no probabilities; wrap it in CalibratedClassifierCV(ensemble=False)")


def _calibrated_link(fitted: Any) -> tuple[dict[str, Any], Any]:
    if len(fitted.calibrated_classifiers_) != 1:
        raise FitFailed("CalibratedClassifierCV must be fitted with ensemble=False to be carried")
    inner = fitted.calibrated_classifiers_[0]
    if inner.method != "sigmoid" or not hasattr(inner.estimator, "coef_"):
        raise FitFailed("CalibratedClassifierCV is carried with method=sigmoid over a linear model only")
    a = [float(calibrator.a_) for calibrator in inner.calibrators]
    b = [float(calibrator.b_) for calibrator in inner.calibrators]
    return {"link": "calibrated", "a": a, "b": b}, inner.estimator


def load(params: Mapping[str, Any], file: FlatFile, prefix: str) -> Affine:
    """Return the scorer whose sections stand in `file` under `prefix`."""
    return Affine(params, file, prefix)
