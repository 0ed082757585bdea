"""Training is scikit-learn's: same scores, same choices; and the same bytes on any number of threads."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.utils import compute_sample_weight

from core import artifact, search
from core.errors import ConfigError, DataRejected, FitFailed, Unavailable
from core.pipeline import Rows, assemble, beside, groups
from core.schema import Batch, Column
from core.spec import ModelSpec
from core.training import train
from tests.core import toys
from tests.core.toys import messages, text_spec

GRID = {"method": "grid", "params": {"C": [0.001, 0.1, 10.0]}, "folds": 4}
SEARCHED = {"kind": "linear", "algorithm": "logistic_regression", "params": {"max_iter": 300}}


def _plain(C: float = 10.0) -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=C, max_iter=1000))


def test_a_trained_model_answers_as_a_plain_scikit_learn_pipeline_does() -> None:
    data, test = messages(200, noise=0.1), messages(100, seed=5)
    model = train(text_spec(), data)
    expected = _plain().fit(data.batch.columns["text"], data.labels).predict_proba(test.batch.columns["text"])
    found = model.reference(test.batch)
    assert model.classes == ("billing", "delivery", "login")
    assert np.allclose(np.array(found.probabilities), expected, atol=1e-6)


def test_a_search_chooses_as_scikit_learn_does_on_the_same_folds() -> None:
    data = messages(200, noise=0.2)
    model = train(text_spec(estimator=SEARCHED, search=GRID), data)
    grid = {"logisticregression__C": GRID["params"]["C"]}  # type: ignore[index]
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    plain = GridSearchCV(_plain(), grid, cv=folds).fit(data.batch.columns["text"], data.labels)
    facts = model.facts["search"]
    assert facts["best"] == {"C": plain.best_params_["logisticregression__C"]}
    assert facts["best_score"] == pytest.approx(plain.best_score_, abs=1e-9)
    assert sorted(row["mean"] for row in facts["table"]) == pytest.approx(
        sorted(plain.cv_results_["mean_test_score"])
    )
    assert facts["best"] == {"C": model.estimator.C}


def _run(spec: ModelSpec, n: int = 60) -> tuple[search.Found, Rows]:
    data = messages(n)
    rows = Rows(data.batch, spec.columns)
    y = np.array([toys.TOPICS.index(label) for label in data.labels])
    return search.run(spec, assemble(spec, rows, 5), np.arange(n).reshape(-1, 1), y), rows


def test_a_search_over_estimator_parameters_fits_the_features_once_a_fold() -> None:
    found, rows = _run(text_spec(estimator=SEARCHED, search=GRID))
    assert found.facts is not None
    assert found.facts["candidates"] == 3
    assert rows.fits == 4


def test_a_search_over_a_feature_option_fits_the_features_once_an_option_and_fold() -> None:
    params = {"text.min_df": [1, 2], "C": [0.1, 1.0]}
    found, rows = _run(text_spec(estimator=SEARCHED, search={**GRID, "params": params}))
    assert rows.fits == 8
    assert {key for key, _ in found.overlay} == {"text.min_df"}
    assert set(found.params) == {"C"}


def test_the_option_that_a_search_chose_is_the_one_that_serves() -> None:
    params = {"text.ngrams": [[3, 3], [1, 1]]}
    model = train(text_spec(search={**GRID, "params": params}), messages(90))
    assert model.facts["options"] == {"text.ngrams": [1, 1]}
    assert model.schema.columns[0].options["ngrams"] == [1, 1]
    served = artifact.load(artifact.export(model.draft({}, messages(2).batch)))
    assert list(served.blocks[0].params()["options"]["ngrams"]) == [1, 1]


@pytest.mark.parametrize("method", ["randomized", "halving"])
def test_the_other_searches_find_the_useful_strength_too(method: str) -> None:
    sections = {"method": method, "params": {"C": [1e-6, 10.0]}, "folds": 3, "iterations": 99}
    model = train(text_spec(estimator=SEARCHED, search=sections), messages(150, noise=0.1))
    assert model.facts["search"]["best"] == {"C": 10.0}
    assert model.facts["search"]["method"] == method


def test_a_search_may_score_by_probabilities() -> None:
    model = train(text_spec(estimator=SEARCHED, search={**GRID, "scoring": "neg_log_loss"}), messages(90))
    assert model.facts["search"]["scoring"] == "neg_log_loss"
    assert model.facts["search"]["best_score"] < 0


def test_folds_shrink_to_the_rarest_class() -> None:
    data = messages(60)
    few = [i for i, label in enumerate(data.labels) if label != "login"][:30]
    few += [i for i, label in enumerate(data.labels) if label == "login"][:3]
    rows = toys.Rows(data.batch.take(few), [data.labels[i] for i in few])
    assert train(text_spec(estimator=SEARCHED, search=GRID), rows).facts["search"]["folds"] == 3


def _sha(spec: ModelSpec, n_jobs: int) -> str:
    model = train(spec, messages(120, noise=0.2), n_jobs=n_jobs)
    return hashlib.sha256(artifact.export(model.draft({}, messages(3).batch))).hexdigest()


@pytest.mark.parametrize("balance", ["none", "smote"])
def test_the_same_data_and_seed_give_the_same_bytes_on_one_and_on_two_threads(balance: str) -> None:
    spec = text_spec(estimator=SEARCHED, search=GRID, balance=balance)
    assert _sha(spec, 1) == _sha(spec, 2) == _sha(spec, 1)


def _unbalanced() -> toys.Rows:
    data = messages(200, noise=0.35)
    keep = [i for i, label in enumerate(data.labels) if label != "login"]
    keep += [i for i, label in enumerate(data.labels) if label == "login"][:8]
    return toys.Rows(data.batch.take(keep), [data.labels[i] for i in keep])


@pytest.mark.parametrize("balance", ["class_weight", "oversample", "undersample", "smote"])
def test_balancing_raises_the_share_of_the_rare_class(balance: str) -> None:
    data, test = _unbalanced(), messages(300, seed=7)
    plain = Counter(train(text_spec(), data).reference(test.batch).labels or ())
    balanced = Counter(train(text_spec(balance=balance), data).reference(test.batch).labels or ())
    assert balanced["login"] > plain["login"]


def test_class_weights_reach_an_estimator_that_only_takes_row_weights() -> None:
    data = _unbalanced()
    spec = text_spec(estimator={"kind": "naive_bayes", "algorithm": "multinomial"}, balance="class_weight")
    vectorizer = TfidfVectorizer()
    x = vectorizer.fit_transform(data.batch.columns["text"])
    expected = MultinomialNB().fit(x, data.labels, sample_weight=compute_sample_weight("balanced", data.labels))
    found = train(spec, data).reference(data.batch)
    assert np.allclose(np.array(found.probabilities), expected.predict_proba(x))


def test_rows_are_balanced_inside_the_folds_only() -> None:
    # if copies of a row could stand on both sides of a fold, noise would look learnable
    rng = np.random.default_rng(0)
    data = _unbalanced()
    noise = toys.Rows(
        Batch(data.n_rows, {"text": [f"w{i} w{j}" for i, j in rng.integers(0, 300, (data.n_rows, 2))]}),
        data.labels,
    )
    spec = text_spec(
        estimator=SEARCHED,
        balance="oversample",
        search={**GRID, "params": {"C": [1000.0]}, "scoring": "balanced_accuracy"},
    )
    assert train(spec, noise).facts["search"]["best_score"] < 0.45


def test_an_estimator_that_does_not_converge_is_kept_with_a_warning() -> None:
    spec = text_spec(estimator={**SEARCHED, "params": {"max_iter": 1}})
    (note,) = train(spec, messages(60)).facts["warnings"]
    assert (note["stage"], note["kind"]) == ("fit", "ConvergenceWarning")


def test_a_bad_parameter_is_named_with_its_rule_and_without_its_value() -> None:
    with pytest.raises(
        FitFailed, match=r"'C' parameter of LogisticRegression must be a float in the range"
    ) as failure:
        train(text_spec(estimator={**SEARCHED, "params": {"C": -31337.0}}), messages(60))
    assert failure.value.fields["reason"] == "fit"
    assert "31337" not in str(failure.value)


def test_values_below_zero_are_told_for_an_estimator_that_takes_none() -> None:
    estimator = {"kind": "naive_bayes", "algorithm": "multinomial"}
    spec = text_spec(columns={"size": {"kind": "number"}}, estimator=estimator)
    rows = toys.Rows(Batch(20, {"size": [float(n) for n in range(20)]}), ["low"] * 10 + ["high"] * 10)
    with pytest.raises(FitFailed, match="takes no negative values"):
        train(spec, rows)


def test_a_parameter_that_the_estimator_does_not_have_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="logistic_regression"):
        train(text_spec(estimator={**SEARCHED, "params": {"colour": 1}}), messages(60))


def test_class_weights_for_an_estimator_without_them_are_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setattr("core.estimators.linear.build", lambda *_: KNeighborsClassifier())
    with pytest.raises(ConfigError, match="class weights"):
        train(text_spec(balance="class_weight"), messages(60))


def test_a_scoring_that_scikit_learn_does_not_know_is_refused_before_any_fit() -> None:
    asked: list[int] = []
    with pytest.raises(ConfigError, match="scoring"):
        train(text_spec(search={**GRID, "scoring": "luck"}), messages(60), check=lambda: asked.append(1))
    assert not asked


def test_one_class_alone_is_rejected() -> None:
    with pytest.raises(DataRejected) as rejection:
        train(text_spec(), messages(30, topics=("login",)))
    assert rejection.value.reason == "classes"


def test_no_rows_are_rejected() -> None:
    with pytest.raises(DataRejected) as rejection:
        train(text_spec(), messages(0))
    assert rejection.value.reason == "rows"


def test_texts_without_any_term_are_rejected_not_failed() -> None:
    empty = toys.Rows(Batch(4, {"text": ["", "", "", ""]}), ["a", "b", "a", "b"])
    with pytest.raises(DataRejected):
        train(text_spec(), empty)


def test_smote_is_refused_when_a_fold_would_hold_a_single_row_of_a_class() -> None:
    rows = toys.Rows(Batch(5, {"text": ["a b", "b c", "c d", "e f", "g h"]}), ["x", "x", "x", "x", "y"])
    with pytest.raises(DataRejected, match="smote"):
        train(text_spec(balance="smote"), rows)


def test_a_check_that_raises_stops_a_search_between_two_fits() -> None:
    left = [3]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Unavailable("out of time")

    with pytest.raises(Unavailable):
        train(text_spec(estimator=SEARCHED, search=GRID), messages(60), check=check)


def test_progress_tells_the_stages() -> None:
    told: list[tuple[str, int, int]] = []
    train(text_spec(), messages(60), progress=lambda *step: told.append(step))
    assert told == [("fit", 0, 1), ("features", 1, 0), ("fit", 1, 1)]


def test_columns_are_grouped_into_one_block_a_column_and_one_for_the_table() -> None:
    columns = [Column("a", "number"), Column("t", "text"), Column("b", "category"), Column("v", "vector")]
    assert [(kind, [c.name for c in group]) for kind, group in groups(columns)] == [
        ("table", ["a", "b"]),
        ("text", ["t"]),
        ("vector", ["v"]),
    ]


def test_dense_x_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = messages(30)
    block = Rows(data.batch, text_spec().columns).blocks((), np.arange(30))[0][1]
    monkeypatch.setattr("core.pipeline.MAX_DENSE_BYTES", 100)
    with pytest.raises(FitFailed, match="dense"):
        beside([block.matrix(data.batch)], dense=True)
    assert beside([block.matrix(data.batch)]).shape == (30, block.width)


def test_what_does_not_fit_the_cache_is_made_again_and_is_the_same() -> None:
    data, spec = messages(60), text_spec()
    kept, dropped = Rows(data.batch, spec.columns), Rows(data.batch, spec.columns, cache_bytes=1)
    index = np.arange(40)
    for rows in (kept, dropped):
        rows.blocks((), index)
        rows.parts((), index, index)
        again = rows.parts((), index, index)
        assert beside(again).shape[0] == 40
    assert dropped.fits >= kept.fits == 1
