"""Estimators as ONNX graphs: scikit-learn's answers from onnxruntime; foreign graphs checked before they run."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.sparse import csr_matrix
from sklearn.base import is_classifier
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import GradientBoostingClassifier, VotingClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from core import graphs
from core.errors import ConfigError, FitFailed, IntegrityError
from core.estimators import onnx as kind
from core.kinds import Csr
from tests.core.carried import scorer, stored

X, Y = make_classification(160, 8, n_informative=6, n_redundant=0, n_classes=3, random_state=0)
XR, YR = make_regression(160, 8, noise=5, random_state=0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """OpenMP threads that wait for a busy core wait by spinning."""
    with threadpool_limits(1):
        yield


def params_for(name: str) -> dict[str, Any]:
    if name.endswith("PLSRegression"):
        return {"n_components": 1}
    return {"n_estimators": 4} if ".ensemble." in name else {}


def data_for(name: str, task: str) -> tuple[Any, Any]:
    x, y = (X, Y) if task == "classification" else (XR, YR)
    if name.endswith(("ComplementNB", "MultinomialNB")):
        x = np.abs(x).round()
    if name.endswith(("GammaRegressor", "PoissonRegressor")):
        y = np.exp(y / 200)
    return x, y


@pytest.mark.parametrize("name", kind.ALGORITHMS)
def test_every_algorithm_answers_as_scikit_learn_does(name: str) -> None:
    (task,) = kind.ALGORITHMS[name]
    x, y = data_for(name, task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # defaults that do not converge are not the point
        fitted = kind.build(name, task, params_for(name), 0).fit(x[:120], y[:120])
    carried = scorer("onnx", fitted, task, 8)
    expected = fitted.predict_proba(x) if task == "classification" else fitted.predict(x).reshape(-1, 1)
    found = carried.score_matrix([x])
    assert found.shape == expected.shape
    scale = 1 if task == "classification" else np.maximum(1, np.abs(expected))
    assert (np.abs(found - expected) / scale).max() < carried.bound


def test_every_algorithm_is_a_public_scikit_learn_estimator_of_its_task() -> None:
    known = {cls.__name__: cls for _, cls in all_estimators()}
    for name, tasks in kind.ALGORITHMS.items():
        estimator = kind.build(name, tasks[0], {}, 0)
        assert name.rpartition(".")[2] in known
        assert is_classifier(estimator) == (tasks == ("classification",))


@pytest.mark.parametrize("name", ["os.system", "sklearn.utils.all_estimators", "builtins.eval"])
def test_no_other_name_is_imported(name: str) -> None:
    with pytest.raises(ConfigError, match="not one that can be carried"):
        kind.build(name, "classification", {}, 0)


def test_a_bad_parameter_is_named_and_a_seed_given_where_it_is_taken() -> None:
    with pytest.raises(ConfigError, match="wings"):
        kind.build("sklearn.neighbors.KNeighborsClassifier", "classification", {"wings": 2}, 0)
    assert kind.build("sklearn.neural_network.MLPClassifier", "classification", {}, 7).random_state == 7
    calibrated = kind.build("sklearn.svm.SVC", "classification", {"C": 2.0, "calibration_folds": 5}, 0)
    assert (calibrated.estimator.C, calibrated.cv, calibrated.ensemble) == (2.0, 5, False)


def test_the_same_estimator_gives_the_same_bytes() -> None:
    fitted = KNeighborsClassifier().fit(X, Y)
    one, two = (kind.export(fitted, "classification", 8)[1]["onnx"] for _ in range(2))
    assert one == two


def test_sparse_rows_and_runs_of_rows_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = LogisticRegression().fit(X, Y)
    carried = scorer("onnx", fitted, "classification", 8)
    monkeypatch.setattr(kind, "DENSE_CELLS", 70)
    indptr = np.arange(0, X.size + 1, 8)
    sparse = Csr(indptr, np.tile(np.arange(8, dtype=np.int32), len(X)), X.ravel(), 8)
    expected = fitted.predict_proba(X)
    assert np.abs(carried.score_matrix([X]) - expected).max() < 1e-12
    assert np.abs(carried.score_matrix([sparse]) - expected).max() < 1e-12
    assert carried.score_matrix([X[:0]]).shape == (0, 3)
    with pytest.raises(NotImplementedError):
        carried.score_row([], 8)


@pytest.mark.parametrize("name", ["neighbors.KNeighborsClassifier", "svm.SVC", "neural_network.MLPClassifier"])
def test_an_estimator_fitted_on_sparse_rows_is_carried(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = csr_matrix(np.where(np.abs(X) > 1, X, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = kind.build(f"sklearn.{name}", "classification", {}, 0).fit(sparse, Y)
    expected = fitted.predict_proba(sparse)
    assert (
        np.abs(scorer("onnx", fitted, "classification", 8).score_matrix([sparse.toarray()]) - expected).max()
        < 1e-6
    )
    assert np.array_equal(fitted.predict_proba(sparse), expected)
    monkeypatch.setattr(graphs, "MAX_DENSE_CELLS", 100)
    if name == "neighbors.KNeighborsClassifier":
        with pytest.raises(FitFailed, match="too many sparse rows"):
            kind.export(fitted, "classification", 8)


def test_onnxruntime_is_loaded_when_it_first_scores() -> None:
    code = (
        "import sys; from core.estimators import onnx\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_onnxruntime_the_model_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    carried = scorer("onnx", LogisticRegression().fit(X, Y), "classification", 8)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="needs onnxruntime"):
        carried.score_matrix([X])


def test_what_skl2onnx_cannot_convert_says_why() -> None:
    with pytest.raises(FitFailed, match="LinearSVC has no probabilities"):
        kind.export(LinearSVC().fit(X, Y), "classification", 8)
    ridge = KernelRidge().fit(XR, YR)
    with pytest.raises(FitFailed, match="no ONNX converter"):
        kind.export(ridge, "regression", 8)
    odd = make_pipeline(FunctionTransformer(np.abs), LogisticRegression()).fit(X, Y)
    with pytest.raises(FitFailed, match="skl2onnx raised"):
        kind.export(odd, "classification", 8)


def test_a_vote_is_carried_and_left_as_it_was() -> None:
    vote = VotingClassifier([("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))], voting="soft").fit(
        X, Y
    )
    found = scorer("onnx", vote, "classification", 8).score_matrix([X])
    assert np.abs(found - vote.predict_proba(X)).max() < 1e-6
    assert vote.flatten_transform


# ---- graphs of other libraries


def graph(
    nodes: list[Any],
    outputs: list[tuple[str, int, list[Any]]],
    *,
    width: Any = 3,
    rows: Any = "n",
    weights: dict[str, Any] | None = None,
    element: int = TensorProto.FLOAT,
    functions: list[Any] | None = None,
) -> bytes:
    """A graph of one input x (rows, width)."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, [rows, width])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    domains = {node.domain for node in nodes}
    opsets = [helper.make_opsetid(domain, 21 if domain in ("", "ai.onnx") else 1) for domain in {"", *domains}]
    model = helper.make_model(made, opset_imports=opsets, functions=functions or [])
    model.ir_version = 10
    return bytes(model.SerializeToString())


W = {"w": np.array([[1, 0.5, -1], [2, 0, 1], [0, 1, 1]], np.float32)}
MATMUL = helper.make_node("MatMul", ["x", "w"], ["z"])
LOGITS = graph([MATMUL], [("z", 1, ["n", 3])], weights=W)
SOFT = graph([MATMUL, helper.make_node("Softmax", ["z"], ["p"])], [("p", 1, ["n", 3])], weights=W)
COLUMN = {"w": W["w"][:, :1]}
ONE = graph([MATMUL], [("z", 1, ["n", 1])], weights=COLUMN)
CHANCE = graph([MATMUL, helper.make_node("Sigmoid", ["z"], ["p"])], [("p", 1, ["n", 1])], weights=COLUMN)
DOUBLE = graph([MATMUL], [("z", 11, ["n", 3])], weights={"w": W["w"].astype(np.float64)}, element=11)


def softmax(z: Any) -> Any:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid_pair(z: Any) -> Any:
    positive = 1 / (1 + np.exp(-z))
    return np.hstack([1 - positive, positive])


@pytest.mark.parametrize(
    ("data", "form", "read"),
    [
        (LOGITS, "logits", softmax),
        (SOFT, "probabilities", softmax),
        (ONE, "logit", sigmoid_pair),
        (CHANCE, "positive", sigmoid_pair),
        (DOUBLE, "logits", softmax),
    ],
    ids=["logits", "probabilities", "logit", "positive", "double"],
)
def test_a_foreign_classifier_is_understood(data: bytes, form: str, read: Any) -> None:
    adopted = graphs.adopt(data, "classification")
    assert (adopted.params["form"], adopted.width) == (form, 3)
    file, params = stored(adopted.sections, adopted.params)
    x = np.random.default_rng(0).normal(size=(20, 3))
    weights = W["w"] if adopted.params["n_out"] == 3 else COLUMN["w"]
    assert np.allclose(kind.load(params, file, "p/").score_matrix([x]), read(x @ weights), atol=1e-6)


def test_a_foreign_regression_is_one_value_a_row() -> None:
    adopted = graphs.adopt(ONE, "regression")
    file, params = stored(adopted.sections, adopted.params)
    assert kind.load(params, file, "p/").score_matrix([np.ones((2, 3))]).tolist() == [[3.0], [3.0]]
    assert adopted.classes == ()


def test_the_dicts_of_a_zip_map_become_a_matrix_again_and_its_labels_the_classes() -> None:
    from skl2onnx import to_onnx

    fitted = GradientBoostingClassifier(n_estimators=3).fit(X, np.array(["no", "perhaps", "yes"])[Y])
    zipped = to_onnx(fitted, X[:1].astype(np.float32), target_opset=17).SerializeToString()
    adopted = graphs.adopt(zipped, "classification")
    assert adopted.classes == ("no", "perhaps", "yes")
    file, params = stored(adopted.sections, adopted.params)
    found = kind.load(params, file, "p/").score_matrix([X])
    assert np.abs(found - fitted.predict_proba(X)).max() < 1e-6


def test_a_form_that_a_trial_would_misread_can_be_said() -> None:
    assert graphs.adopt(SOFT, "classification", form="logits").params["form"] == "logits"
    assert graphs.adopt(ONE, "classification", form="probabilities").params["form"] == "positive"
    for form, task in (("value", "classification"), ("logits", "regression"), ("magic", "classification")):
        with pytest.raises(ConfigError, match="form must be"):
            graphs.adopt(SOFT, task, form=form)


def outside() -> bytes:
    model = onnx.load_model_from_string(LOGITS)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/hostname")
    return bytes(model.SerializeToString())


def outside_in_a_branch() -> bytes:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(1, np.float32), "t"))
    constant.attribute[0].t.data_location = TensorProto.EXTERNAL
    constant.attribute[0].t.external_data.add(key="location", value="weights.bin")
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", 1, [1])])
    choice = helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    return graph([choice], [("z", 1, ["n"])], weights={"flag": np.array(True)})


def two_inputs() -> bytes:
    model = onnx.load_model_from_string(LOGITS)
    model.graph.input.append(helper.make_tensor_value_info("other", 1, ["n", 3]))
    return bytes(model.SerializeToString())


CUSTOM = helper.make_node("Magic", ["x"], ["z"], domain="evil.ops")
HIDDEN = helper.make_function(
    "local", "Inner", ["x"], ["z"], [CUSTOM], [helper.make_opsetid("evil.ops", 1), helper.make_opsetid("", 21)]
)
INNER = helper.make_node("Inner", ["x"], ["z"], domain="local")
REFUSED: list[tuple[bytes, str, str]] = [
    (b"not a graph at all", "classification", "not an ONNX model"),
    (graph([CUSTOM], [("z", 1, ["n", 3])]), "classification", "domain evil.ops"),
    (graph([INNER], [("z", 1, ["n", 3])], functions=[HIDDEN]), "classification", "domain evil.ops"),
    (outside(), "classification", "other files"),
    (outside_in_a_branch(), "classification", "other files"),
    (two_inputs(), "classification", "2 inputs"),
    (graph([MATMUL], [("z", 1, ["n", 3])], weights=W, rows=1), "classification", "dynamic first axis"),
    (graph([MATMUL], [("z", 1, ["n", 3])], weights=W, width="k"), "classification", "number of features"),
    (graph([MATMUL], [("z", 7, ["n", 3])], element=7), "classification", "float tensor"),
    (
        graph([helper.make_node("ArgMax", ["x"], ["z"])], [("z", 7, [1, 3])]),
        "classification",
        "no output of floats",
    ),
    (graph([helper.make_node("Magic", ["x"], ["z"])], [("z", 1, ["n", 3])]), "classification", "cannot run"),
    (
        graph([helper.make_node("Transpose", ["x"], ["z"], perm=[1, 0])], [("z", 1, [3, "n"])]),
        "classification",
        "one row for each row",
    ),
    (LOGITS, "regression", "one value a row, not 3"),
]


@pytest.mark.parametrize(("data", "task", "why"), REFUSED, ids=[why for _, _, why in REFUSED])
def test_a_graph_that_is_not_safe_or_not_understood_is_refused(data: bytes, task: str, why: str) -> None:
    with pytest.raises(FitFailed, match=why):
        graphs.adopt(data, task)


def test_a_graph_over_the_limit_or_with_other_classes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FitFailed, match="3 classes apart, not 2"):
        graphs.adopt(LOGITS, "classification", n_classes=2)
    monkeypatch.setattr(graphs, "MAX_GRAPH_BYTES", 10)
    with pytest.raises(FitFailed, match="more than 10 bytes"):
        graphs.adopt(LOGITS, "classification")


def test_a_function_that_the_graph_itself_defines_is_allowed() -> None:
    double = helper.make_function(
        "local", "Twice", ["x"], ["z"], [helper.make_node("Add", ["x", "x"], ["z"])], [helper.make_opsetid("", 21)]
    )
    twice = helper.make_node("Twice", ["x"], ["z"], domain="local")
    adopted = graphs.adopt(graph([twice], [("z", 1, ["n", 3])], functions=[double]), "classification")
    assert adopted.params["form"] == "logits"
    assert adopted.classes == ("0", "1", "2")


def test_a_damaged_graph_is_an_integrity_failure_when_served() -> None:
    params = {"input": "x", "output": "z", "dtype": "f4", "form": "logits", "n_out": 3, "width": 3}
    file, kept = stored({"onnx": b"rubbish"}, params)
    with pytest.raises(IntegrityError, match="refuses the graph"):
        kind.load(kept, file, "p/").score_matrix([np.ones((1, 3))])
    file, kept = stored({"onnx": LOGITS}, {**params, "output": "nowhere"})
    with pytest.raises(IntegrityError, match="graph fails"):
        kind.load(kept, file, "p/").score_matrix([np.ones((1, 3))])
    file, kept = stored({"onnx": LOGITS}, {**params, "n_out": 4})
    with pytest.raises(IntegrityError, match="another shape"):
        kind.load(kept, file, "p/").score_matrix([np.ones((1, 3))])


def test_a_clusterer_is_not_a_regression() -> None:
    fitted = KMeans(2, n_init=1, random_state=0).fit(X)
    assert not hasattr(fitted, "predict_proba")
    with pytest.raises(FitFailed):
        kind.export(fitted, "classification", 8)
