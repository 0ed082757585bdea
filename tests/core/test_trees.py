"""Trees: the portable answers equal scikit-learn's, in a row (every way a row is walked) and in a batch."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import GradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped,unused-ignore]

from core import forest, lockstep, timber, votes
from core.artifact import export
from core.errors import ConfigError, FitFailed, IntegrityError
from core.estimators import trees
from core.kinds import Csr
from core.schema import Batch, Column
from tests.core.carried import pairs, scorer, stored
from tests.core.models import draft

LAST_BIT = 1e-15  # numpy's exp and libm's differ in the last bit: softmax and log links only
RNG = np.random.default_rng(0)
SMALL = {"n_estimators": 15}
CLASSIFIERS: list[tuple[str, dict[str, Any]]] = [
    ("decision_tree", {}),
    ("decision_tree", {"max_depth": 3}),
    ("random_forest", SMALL),
    ("random_forest", {**SMALL, "min_samples_leaf": 4, "class_weight": "balanced"}),
    ("random_forest", {**SMALL, "max_leaf_nodes": 9, "bootstrap": False}),
    ("extra_trees", SMALL),
    ("hist_gradient_boosting", {"max_iter": 12}),
]
REGRESSORS: list[tuple[str, dict[str, Any]]] = [
    ("decision_tree", {}),
    ("random_forest", SMALL),
    ("extra_trees", {**SMALL, "criterion": "squared_error", "max_depth": 5}),
    ("hist_gradient_boosting", {"max_iter": 12}),
    ("hist_gradient_boosting", {"max_iter": 12, "loss": "poisson"}),
    ("hist_gradient_boosting", {"max_iter": 12, "loss": "absolute_error"}),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """OpenMP threads that wait for a busy core wait by spinning."""
    with threadpool_limits(1):
        yield


def answers(fitted: Any, x: Any) -> Any:
    if hasattr(fitted, "predict_proba"):
        return fitted.predict_proba(x)
    return fitted.predict(x).reshape(-1, 1)


def task_of(fitted: Any) -> str:
    return "classification" if hasattr(fitted, "predict_proba") else "regression"


def with_gaps(x: Any, share: float = 0.1) -> Any:
    return np.where(RNG.random(x.shape) < share, np.nan, x)


def check(fitted: Any, x: Any, *, bound: float = 0.0, without: str = "-") -> Any:
    """Assert equal answers for a batch, its first row as a batch, and each row before and after preparation."""
    width = x.shape[1]
    carried = scorer("trees", fitted, task_of(fitted), width, without=without)
    expected = answers(fitted, x)
    assert np.array_equal(carried.score_matrix([x]), expected)
    assert np.array_equal(carried.score_matrix([x[:1]]), answers(fitted, x[:1]))
    cold = scorer("trees", fitted, task_of(fitted), width, without=without)
    for zeros in (False, True):
        rows = np.array([cold.score_row(pairs(row, zeros=zeros), width) for row in x.tolist()])
        scale = np.maximum(1, np.abs(expected))
        assert (np.abs(rows - expected) / scale).max() <= bound
        assert np.array_equal(rows.argmax(axis=1), expected.argmax(axis=1))
    assert cold._ready
    return cold


@pytest.mark.parametrize(("algorithm", "params"), CLASSIFIERS)
@pytest.mark.parametrize("data", [load_iris, load_breast_cancer, load_digits], ids=lambda d: d.__name__)
def test_probabilities_equal_scikit_learn(data: Any, algorithm: str, params: dict[str, Any]) -> None:
    x, y = data(return_X_y=True)
    fitted = trees.build(algorithm, "classification", params, 0).fit(x[::2], y[::2])
    softmax = algorithm == "hist_gradient_boosting" and len(fitted.classes_) > 2
    check(fitted, x[1::2][:300], bound=LAST_BIT if softmax else 0.0)


@pytest.mark.parametrize(("algorithm", "params"), REGRESSORS)
def test_values_equal_scikit_learn(algorithm: str, params: dict[str, Any]) -> None:
    x, y = load_diabetes(return_X_y=True)
    fitted = trees.build(algorithm, "regression", params, 0).fit(x, y)
    check(fitted, x[:200], bound=LAST_BIT if params.get("loss") == "poisson" else 0.0)


@pytest.mark.parametrize("trained_with_gaps", [True, False])
@pytest.mark.parametrize(("algorithm", "params"), CLASSIFIERS[:5] + CLASSIFIERS[6:])
def test_missing_values_go_where_scikit_learn_sends_them(
    algorithm: str, params: dict[str, Any], trained_with_gaps: bool
) -> None:
    x, y = load_wine(return_X_y=True)
    gaps = with_gaps(x)
    fitted = trees.build(algorithm, "classification", params, 0).fit(gaps if trained_with_gaps else x, y)
    check(fitted, np.vstack([gaps, x]), bound=LAST_BIT)


@pytest.mark.parametrize(("algorithm", "params"), REGRESSORS[:2] + REGRESSORS[3:4])
def test_missing_values_of_regressions_too(algorithm: str, params: dict[str, Any]) -> None:
    x, y = load_diabetes(return_X_y=True)
    gaps = with_gaps(x)
    check(trees.build(algorithm, "regression", params, 0).fit(gaps, y), gaps)


@pytest.mark.parametrize("classes", [2, 3])
def test_categorical_splits_equal_scikit_learn_for_known_unknown_and_missing_levels(classes: int) -> None:
    n = 1500
    x = np.column_stack(
        [RNG.normal(size=n), RNG.integers(0, 12, n), RNG.normal(size=n), RNG.integers(0, 5, n) * 1.5]
    ).astype(float)
    y = ((x[:, 1] % 3 == 0) ^ (x[:, 0] > 0)).astype(int) + (classes == 3) * (x[:, 3] == 3.0)
    x = with_gaps(x, 0.05)
    params = {"categorical_features": [3, 1], "max_iter": 15}
    fitted = trees.build("hist_gradient_boosting", "classification", params, 0).fit(x, y)
    odd = x[:300].copy()
    odd[:40, 1], odd[:40, 3], odd[40:60, 1] = 99, 0.7, -1
    carried = check(fitted, odd, bound=LAST_BIT)
    assert carried._layout.sides()


def test_a_forest_of_pure_leaves_is_counted_by_masks_and_walked_without_them() -> None:
    x, y = load_digits(return_X_y=True)
    fitted = trees.build("random_forest", "classification", SMALL, 0).fit(x, y)
    assert check(fitted, x[:200])._ballot is not None
    assert check(fitted, x[:200], without="mask")._ballot is None


def test_masks_are_split_into_groups_to_stay_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    fitted = trees.build("extra_trees", "classification", {"n_estimators": 40}, 0).fit(x, y)
    monkeypatch.setattr(votes, "PIECE_BYTES", 1000)
    whole = check(fitted, x[:100])
    monkeypatch.setattr(votes, "MAX_MASK_BYTES", 1 << 18)
    grouped = check(fitted, x[:100])
    assert [len(whole._ballot._groups), len(grouped._ballot._groups)] == [1, 4]
    monkeypatch.setattr(votes, "MAX_MASK_BYTES", 1000)
    assert check(fitted, x[:50])._ballot is None
    monkeypatch.setattr(votes, "MAX_STEPS", 3)
    assert check(fitted, x[:50])._ballot is None


def test_a_row_that_reaches_a_leaf_of_mixed_classes_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes, "MAX_MIXED", 1.0)
    x, y = load_iris(return_X_y=True)
    fitted = trees.build("random_forest", "classification", {**SMALL, "min_samples_leaf": 3}, 0).fit(x, y)
    carried = check(fitted, x)
    found = [carried._ballot.counts(forest.rounded(row)) for row in x.tolist()]
    assert any(counts is None for counts in found)
    assert any(counts is not None for counts in found)
    monkeypatch.setattr(votes, "GROUPS", (15,))
    grouped = check(fitted, x)._ballot
    assert len(grouped._groups) == 15
    assert [grouped.counts(forest.rounded(row)) for row in x.tolist()] == found


def test_a_large_forest_is_read_from_the_checked_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "MAX_NESTED_NODES", 10)
    x, y = load_diabetes(return_X_y=True)
    fitted = trees.build("random_forest", "regression", SMALL, 0).fit(x, y)
    carried = check(fitted, with_gaps(x))
    assert carried._walker._buffer is not None
    assert carried._walker._trees == []


def test_preparation_is_spread_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "PIECE_NODES", 50)
    x, y = load_diabetes(return_X_y=True)
    fitted = trees.build("random_forest", "regression", SMALL, 0).fit(x, y)
    carried = scorer("trees", fitted, "regression", 10)
    row = pairs(x[0])
    built = []
    for _ in range(20):
        assert carried.score_row(row, 10) == fitted.predict(x[:1]).tolist()
        built.append(len(carried._walker._trees))
    assert built[: trees.COLD_ROWS] == [0] * trees.COLD_ROWS
    assert sorted(set(built)) == list(range(16))


def test_many_threads_prepare_and_score_together() -> None:
    x, y = load_digits(return_X_y=True)
    fitted = trees.build("random_forest", "classification", SMALL, 0).fit(x, y)
    carried = scorer("trees", fitted, "classification", 64)
    expected = fitted.predict_proba(x[:60]).tolist()
    wrong: list[int] = []

    def work() -> None:
        found = [carried.score_row(pairs(row), 64) for row in x[:60].tolist()]
        wrong.extend(i for i in range(60) if found[i] != expected[i])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_while_one_thread_prepares_another_scores_without_it() -> None:
    x, y = load_iris(return_X_y=True)
    fitted = trees.build("random_forest", "classification", SMALL, 0).fit(x, y)
    carried = scorer("trees", fitted, "classification", 4)
    with carried._lock:
        for row in x[:10].tolist():
            assert carried.score_row(pairs(row), 4) == fitted.predict_proba([row])[0].tolist()
    assert not carried._ready


def test_batches_go_through_trees_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("KEEP_NODES", 100), ("GROUP_NODES", 300), ("CELLS", 64), ("DENSE_CELLS", 500)):
        monkeypatch.setattr(lockstep, name, value)
    x, y = load_breast_cancer(return_X_y=True)
    for algorithm, params in (CLASSIFIERS[2], CLASSIFIERS[3], CLASSIFIERS[6]):
        fitted = trees.build(algorithm, "classification", params, 0).fit(x, y)
        carried = scorer("trees", fitted, "classification", 30)
        for _ in range(2):
            assert np.array_equal(carried.score_matrix([x]), fitted.predict_proba(x))


def test_sparse_and_dense_parts_stand_side_by_side() -> None:
    x, y = load_digits(return_X_y=True)
    fitted = trees.build("random_forest", "classification", SMALL, 0).fit(x, y)
    carried = scorer("trees", fitted, "classification", 64)
    left = x[:, :40]
    rows, indices = np.nonzero(left)
    indptr = np.searchsorted(rows, np.arange(len(x) + 1))
    sparse = Csr(indptr, indices.astype(np.int32), left[rows, indices], 40)
    assert np.array_equal(carried.score_matrix([sparse, x[:, 40:]]), fitted.predict_proba(x))


def test_a_batch_without_rows_has_no_answers() -> None:
    x, y = load_iris(return_X_y=True)
    for algorithm in trees.ALGORITHMS:
        fitted = trees.build(algorithm, "classification", {}, 0).fit(x, y)
        assert scorer("trees", fitted, "classification", 4).score_matrix([x[:0]]).shape == (0, 3)


def test_values_beyond_float32_count_as_infinite() -> None:
    x, y = load_iris(return_X_y=True)
    fitted = trees.build("random_forest", "classification", SMALL, 0).fit(x, y)
    carried = scorer("trees", fitted, "classification", 4)
    huge, largest = [1e300, -1e300, 2.0, 1.0], [3.4e38, -3.4e38, 2.0, 1.0]
    expected = fitted.predict_proba([largest]).tolist()
    assert carried.score_matrix([np.array([huge])]).tolist() == expected
    assert [carried.score_row(pairs(huge), 4)] == expected


def test_a_threshold_is_rounded_towards_the_side_that_keeps_every_answer() -> None:
    exact = np.array([0.1, -0.1, 0.5, 1e-300, -3.5e38, 3.5e38, np.inf])
    single = timber._single(exact)
    assert np.all(single <= exact)
    assert np.all(np.nextafter(single[:5], np.float32(np.inf)) > exact[:5])
    assert [single[2], single[5], single[6]] == [0.5, np.finfo(np.float32).max, np.inf]


def test_masks_take_unrounded_values_and_cut_where_rounding_would() -> None:
    tiny = np.float32(1e-45)
    threshold = np.array([0.0, 0.1, 1.0, -1.0, -0.1, 1e30, tiny, np.finfo(np.float32).max, np.inf], np.float32)
    bound = votes._bounds(threshold)
    with np.errstate(over="ignore"):
        assert np.all(bound.astype(np.float32) <= threshold)
        assert np.all(np.nextafter(bound, np.inf).astype(np.float32)[:-1] > threshold[:-1])
    assert bound[-1] == np.inf


def test_values_at_and_around_every_threshold_are_told_apart_as_float32() -> None:
    x, y = load_iris(return_X_y=True)
    fitted = trees.build("extra_trees", "classification", SMALL, 0).fit(x, y)
    cuts = [tree.tree_.threshold[tree.tree_.feature >= 0] for tree in fitted.estimators_]
    exact = np.unique(np.concatenate(cuts))
    near = np.concatenate([exact, exact.astype(np.float32), *(np.nextafter(exact, end) for end in (-9, 9))])
    check(fitted, np.column_stack([near] * 4)[:600])


def test_a_stump_and_a_tree_without_splits_are_carried() -> None:
    x, y = load_iris(return_X_y=True)
    check(trees.build("decision_tree", "classification", {"max_depth": 1}, 0).fit(x, y), x)
    constant = np.zeros((20, 2))
    check(trees.build("decision_tree", "classification", {}, 0).fit(constant, [0, 1] * 10), constant)
    check(trees.build("random_forest", "regression", SMALL, 0).fit(constant, np.ones(20)), constant)


def test_softmax_of_many_classes_adds_in_the_order_of_numpy() -> None:
    for n in (1, 3, 7, 8, 9, 16, 19, 40, 127):
        values = RNG.random(n).tolist()
        assert trees._numpy_sum(values) == np.array(values).sum()


def test_extreme_scores_do_not_overflow() -> None:
    assert trees._linked("sigmoid", [-800.0]) == [1.0, 0.0]
    assert trees._linked("sigmoid", [800.0]) == [0.0, 1.0]
    assert trees._linked("log", [800.0]) == [math.inf]


def test_a_forest_that_is_not_in_level_order_is_damaged() -> None:
    x, y = load_iris(return_X_y=True)
    fitted = trees.build("decision_tree", "classification", {}, 0).fit(x, y)
    params, sections = trees.export(fitted, "classification", 4)
    nodes = np.array(sections["nodes"])
    nodes[0, 1] = 0
    kept = {k: v for k, v in sections.items() if not k.startswith("mask")}
    file, params = stored({**kept, "nodes": nodes}, params)
    walker = trees.load(params, file, "p/")._walking()
    with pytest.raises(IntegrityError, match="level order"):
        walker.advance()


def test_masks_of_a_wrong_length_are_damaged() -> None:
    with pytest.raises(IntegrityError, match="masks"):
        votes._inflated(votes._deflated(np.ones((2, 9), bool)), 3, 2)


def test_what_is_not_made_of_trees_is_refused() -> None:
    x, y = load_iris(return_X_y=True)
    boosted = GradientBoostingClassifier(n_estimators=2).fit(x, y)
    with pytest.raises(FitFailed, match="GradientBoostingClassifier"):
        trees.export(boosted, "classification", 4)
    forest_ = trees.build("random_forest", "classification", SMALL, 0).fit(x, y)
    with pytest.raises(FitFailed, match="4 features, not 5"):
        trees.export(forest_, "classification", 5)
    two = trees.build("decision_tree", "regression", {}, 0).fit(x, x[:, :2])
    with pytest.raises(FitFailed, match="more than one output"):
        trees.export(two, "regression", 4)
    boosting = trees.build("hist_gradient_boosting", "regression", {"max_iter": 1}, 0).fit(x, y)
    boosting._loss.link = object()
    with pytest.raises(FitFailed, match="object cannot be carried"):
        trees.export(boosting, "regression", 4)


def test_a_bad_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match=r"random_forest.*wings"):
        trees.build("random_forest", "regression", {"wings": 2}, 0)


def test_the_same_training_gives_the_same_bytes() -> None:
    x, y = load_iris(return_X_y=True)
    made = [
        export(draft([Column("v", "vector", {}, 4)], Batch(150, {"v": x}), y, kind="trees", algorithm=a)[0])
        for a in ("random_forest", "random_forest", "hist_gradient_boosting", "hist_gradient_boosting")
    ]
    assert made[0] == made[1]
    assert made[2] == made[3]


def test_a_row_of_a_table_through_a_forest_needs_no_numpy(tmp_path: Any) -> None:
    rng = np.random.default_rng(1)
    batch = Batch(80, {"n": rng.normal(size=80).tolist(), "c": [str(i) for i in rng.integers(0, 3, 80)]})
    columns = [Column("n", "number"), Column("c", "category")]
    y = [int(n > 0) for n in batch.columns["n"]]
    for algorithm in trees.ALGORITHMS:
        made, _, _ = draft(columns, batch, y, kind="trees", algorithm=algorithm)
        (tmp_path / "model").write_bytes(export(made))
        code = (
            "import sys; from core.artifact import load; from core.schema import Batch\n"
            f"model = load(open({str(tmp_path / 'model')!r}, 'rb').read())\n"
            "for n in range(6): model.predict(model.schema.batch([{'n': n, 'c': 'x'}]))\n"
            "print([m for m in ('numpy', 'sklearn', 'scipy', 'dataclasses') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
