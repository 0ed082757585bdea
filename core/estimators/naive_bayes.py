"""Naive Bayes: multinomial, complement and Bernoulli are affine in x; Gaussian keeps means and variances.

The joint log likelihoods are those of scikit-learn's user guide, section "Naive Bayes".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core import affine
from core.affine import Affine
from core.errors import ConfigError, FitFailed
from core.kinds import Csr, Pairs
from core.links import link_matrix, softmax
from core.sparse import side_by_side

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "multinomial": ("classification",),
    "complement": ("classification",),
    "bernoulli": ("classification",),
    "gaussian": ("classification",),
}


def build(algorithm: str, task: str, params: Mapping[str, Any], seed: int) -> Any:
    """Return the unfitted scikit-learn estimator. Raises ConfigError naming a bad parameter."""
    from sklearn import naive_bayes

    kinds = {
        "multinomial": naive_bayes.MultinomialNB,
        "complement": naive_bayes.ComplementNB,
        "bernoulli": naive_bayes.BernoulliNB,
        "gaussian": naive_bayes.GaussianNB,
    }
    try:
        return kinds[algorithm](**params)
    except TypeError as error:
        raise ConfigError(f"estimator.params of {algorithm}: {error}") from error


def export(fitted: Any, task: str, width: int) -> tuple[dict[str, Any], Sections]:
    """Return the portable form of a fitted naive Bayes model. Raises FitFailed for any other."""
    import numpy as np

    name = type(fitted).__name__
    if name == "GaussianNB":
        arrays = {"mean": fitted.theta_, "variance": fitted.var_, "prior": np.log(fitted.class_prior_)}
        return {"link": "gaussian"}, {key: np.asarray(value, np.float64) for key, value in arrays.items()}
    weights, intercept = _affine(fitted, name)
    params: dict[str, Any] = {"link": "softmax", "binarize": name == "BernoulliNB"}
    if weights.shape[1] != width:
        raise FitFailed(f"{name} was fitted on {weights.shape[1]} features, not {width}")
    return params, affine.sections(weights.T, intercept)


def _affine(fitted: Any, name: str) -> tuple[Any, Any]:
    """Return (w of shape (n_classes, n_features), b of shape (n_classes,)) of the joint log likelihood."""
    import numpy as np

    if name == "MultinomialNB":
        return fitted.feature_log_prob_, fitted.class_log_prior_
    if name == "ComplementNB":
        return fitted.feature_log_prob_, np.zeros(len(fitted.classes_))
    if name == "BernoulliNB" and fitted.binarize == 0.0:
        absent = np.log(1 - np.exp(fitted.feature_log_prob_))
        return fitted.feature_log_prob_ - absent, fitted.class_log_prior_ + absent.sum(axis=1)
    raise FitFailed(f"{name} is not a naive Bayes model that can be carried")


def load(params: Mapping[str, Any], file: FlatFile, prefix: str) -> Affine | Gaussian:
    """Return the scorer whose sections stand in `file` under `prefix`."""
    if params["link"] == "gaussian":
        return Gaussian(file, prefix)
    return Affine(params, file, prefix)


class Gaussian:
    """Gaussian naive Bayes: log prior - 0.5 sum(log(2 pi v) + (x - m)^2 / v), then softmax."""

    exact = True

    def __init__(self, file: FlatFile, prefix: str) -> None:
        self._file, self._prefix = file, prefix
        self.n_out = file.section(prefix + "mean").shape[0]
        self._mean, self._variance, self._prior = (file.rows(prefix + n) for n in ("mean", "variance", "prior"))

    def score_row(self, pairs: Pairs, width: int) -> list[float]:
        """Return the probabilities for one row of x, shape (n_out,)."""
        x = [0.0] * width
        for index, value in pairs:
            x[index] = value
        return softmax([self._likelihood(x, k) for k in range(self.n_out)])

    def _likelihood(self, x: Sequence[float], k: int) -> float:
        moments = zip(x, self._mean(k), self._variance(k), strict=True)
        spread = math.fsum(math.log(2.0 * math.pi * v) + (value - m) ** 2 / v for value, m, v in moments)
        return float(self._prior(k)[0]) - 0.5 * spread

    def score_matrix(self, parts: Sequence[Csr | Floats]) -> Floats:
        """Return the probabilities for the blocks' x side by side, shape (n_rows, n_out)."""
        import numpy as np

        x = side_by_side(parts)
        mean, variance, prior = (self._file.array(self._prefix + n) for n in ("mean", "variance", "prior"))
        z = np.empty((len(x), self.n_out))
        for k in range(self.n_out):
            spread = np.log(2.0 * np.pi * variance[k]).sum() + ((x - mean[k]) ** 2 / variance[k]).sum(axis=1)
            z[:, k] = prior[k] - 0.5 * spread
        return link_matrix({"link": "softmax"}, z)
