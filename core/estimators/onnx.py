"""Any other scikit-learn estimator, and models of other libraries, as ONNX graphs run by onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, IntegrityError
from core.kinds import Csr, Pairs
from core.links import link_matrix
from core.sparse import row_count, side_by_side, take_rows

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections

_CLASSIFIERS = """
discriminant_analysis.LinearDiscriminantAnalysis discriminant_analysis.QuadraticDiscriminantAnalysis
ensemble.AdaBoostClassifier ensemble.BaggingClassifier ensemble.ExtraTreesClassifier
ensemble.GradientBoostingClassifier ensemble.RandomForestClassifier
linear_model.LogisticRegression linear_model.LogisticRegressionCV
naive_bayes.BernoulliNB naive_bayes.ComplementNB naive_bayes.GaussianNB
naive_bayes.MultinomialNB neighbors.KNeighborsClassifier neural_network.MLPClassifier
tree.DecisionTreeClassifier tree.ExtraTreeClassifier
"""
# these have no probabilities of their own: one sigmoid a class is fitted behind them (Platt 1999)
_CALIBRATED = """
linear_model.Perceptron linear_model.RidgeClassifier linear_model.RidgeClassifierCV linear_model.SGDClassifier
svm.LinearSVC svm.NuSVC svm.SVC
"""
_REGRESSORS = """
cross_decomposition.PLSRegression ensemble.AdaBoostRegressor ensemble.BaggingRegressor ensemble.ExtraTreesRegressor
ensemble.GradientBoostingRegressor ensemble.RandomForestRegressor gaussian_process.GaussianProcessRegressor
linear_model.ARDRegression linear_model.BayesianRidge linear_model.ElasticNet linear_model.ElasticNetCV
linear_model.GammaRegressor linear_model.HuberRegressor linear_model.Lars linear_model.LarsCV linear_model.Lasso
linear_model.LassoCV linear_model.LassoLars linear_model.LassoLarsCV linear_model.LassoLarsIC
linear_model.LinearRegression linear_model.OrthogonalMatchingPursuit linear_model.OrthogonalMatchingPursuitCV
linear_model.PoissonRegressor linear_model.QuantileRegressor linear_model.RANSACRegressor linear_model.Ridge
linear_model.RidgeCV linear_model.SGDRegressor linear_model.TheilSenRegressor linear_model.TweedieRegressor
neighbors.KNeighborsRegressor neural_network.MLPRegressor svm.LinearSVR svm.NuSVR svm.SVR
tree.DecisionTreeRegressor tree.ExtraTreeRegressor
"""
# the public scikit-learn estimators that skl2onnx converts and onnxruntime runs; nothing else is imported by name
ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    **{f"sklearn.{name}": ("classification",) for name in (_CLASSIFIERS + _CALIBRATED).split()},
    **{f"sklearn.{name}": ("regression",) for name in _REGRESSORS.split()},
}
DENSE_CELLS = 1 << 22  # of x in memory at once
BOUNDS = {"f8": 1e-6, "f4": 1e-4}  # how far onnxruntime may be from scikit-learn, by the precision of the graph


def build(algorithm: str, task: str, params: Mapping[str, Any], seed: int) -> Any:
    """Return the unfitted scikit-learn estimator. Raises ConfigError naming a bad parameter."""
    import importlib

    if algorithm not in ALGORITHMS:
        raise ConfigError(f"estimator.algorithm {algorithm!r:.80} is not one that can be carried as ONNX")
    module, _, name = algorithm.rpartition(".")
    estimator = getattr(importlib.import_module(module), name)
    folds = 3
    rest = dict(params)
    if algorithm.removeprefix("sklearn.") in _CALIBRATED.split():
        folds = rest.pop("calibration_folds", folds)
    try:
        if "random_state" in estimator().get_params():
            rest = {"random_state": seed, **rest}
        built = estimator(**rest)
    except TypeError as error:
        raise ConfigError(f"estimator.params of {algorithm}: {error}") from error
    if algorithm.removeprefix("sklearn.") not in _CALIBRATED.split():
        return built
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(built, method="sigmoid", cv=folds, ensemble=False)


def export(fitted: Any, task: str, width: int) -> tuple[dict[str, Any], Sections]:
    """Return the ONNX form of a fitted scikit-learn estimator. Raises FitFailed if there is none."""
    from core import graphs

    return graphs.convert(fitted, task, width)


def load(params: Mapping[str, Any], file: FlatFile, prefix: str) -> Onnx:
    """Return the scorer; onnxruntime is imported when it first scores."""
    return Onnx(params, file, prefix)


class Onnx:
    """A graph from one matrix of floats to probabilities, scores or values.

    `form` says what comes out: probabilities (n, k), positive (the probability of the second class), logits
    (n, k), logit (of the second class), or value.
    """

    exact = False

    def __init__(self, params: Mapping[str, Any], file: FlatFile, prefix: str) -> None:
        self._input, self._output = params["input"], params["output"]
        self._dtype, self._form, self._width = params["dtype"], params["form"], int(params["width"])
        self.n_out = int(params["n_out"])
        self.bound = BOUNDS[self._dtype]
        self._file, self._name = file, prefix + "onnx"
        self._lock = threading.Lock()
        self._session: Any = None

    def score_row(self, pairs: Pairs, width: int) -> list[float]:
        """Raise NotImplementedError: a batch of one is as fast."""
        raise NotImplementedError

    def score_matrix(self, parts: Sequence[Csr | Floats]) -> Floats:
        """Return the outputs for the blocks' x side by side, shape (n_rows, n_out)."""
        import numpy as np

        n_rows, rows = row_count(parts[0]), max(1, DENSE_CELLS // self._width)
        found = np.empty((n_rows, self.n_out))
        for low in range(0, n_rows, rows):
            x = side_by_side([take_rows(part, low, low + rows) for part in parts])
            found[low : low + rows] = self._run(x)
        return found

    def _run(self, x: Floats) -> Floats:
        import numpy as np

        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, np.dtype(self._dtype))
        out = run(self._started(), self._input, self._output, x)
        z = np.asarray(out, np.float64).reshape(len(x), -1)
        if z.shape[1] != (1 if self._form in ("positive", "logit") else self.n_out):
            raise IntegrityError("the ONNX graph answers in another shape than was recorded")
        if self._form == "positive":
            return np.hstack([1.0 - z, z])
        if self._form in ("logit", "logits"):
            return link_matrix({"link": "sigmoid" if self._form == "logit" else "softmax"}, z)
        return z

    def _started(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = session(bytes(self._file.raw(self._name)))
            return self._session


def session(data: bytes) -> Any:
    """Return an onnxruntime session on one thread. Raises IntegrityError if the graph cannot be run."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("this model needs onnxruntime, which is not installed") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _faults() as error:
        raise IntegrityError(f"onnxruntime refuses the graph: {type(error).__name__}") from error


def run(started: Any, source: str, target: str, x: Any) -> Any:
    """Return the output `target` for x at the input `source`. Raises IntegrityError if the graph fails."""
    faults: tuple[type[Exception], ...] = (*_faults(), ValueError)
    try:
        return started.run([target], {source: x})[0]
    except faults as error:
        raise IntegrityError(f"the ONNX graph fails: {type(error).__name__}") from error


def _faults() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises: classes that share no parent but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))
