"""The parity proof passes what is equal and refuses what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from core import artifact
from core.errors import FitFailed
from core.model import ROW_LIMIT, Model, Predictions
from core.parity import EXACT, SINGLE, prove
from core.schema import Batch
from core.training import TrainedModel, train
from tests.core.toys import messages, text_spec


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train(text_spec(), messages(120))


@pytest.fixture(scope="module")
def model(trained: TrainedModel) -> Model:
    return artifact.load(artifact.export(trained.draft({}, messages(3).batch)))


def test_a_portable_model_is_proved_on_rows_it_never_saw(trained: TrainedModel, model: Model) -> None:
    facts = prove(model, trained.reference, messages(80, seed=9).batch, bound=EXACT)
    assert facts["rows"] == 80
    assert facts["single_rows"] == 80
    assert facts["max_abs_diff"] <= 1e-12
    assert facts["bound"] == EXACT
    json.dumps(facts, allow_nan=False)


class _Bent:
    """A model whose answers are changed by `bend`, and which counts the sizes of its batches."""

    def __init__(self, model: Any, bend: Callable[[int, Predictions], Predictions]) -> None:
        self._model, self._bend = model, bend
        self.classes = model.classes
        self.sizes: list[int] = []

    def predict(self, batch: Batch) -> Predictions:
        self.sizes.append(batch.n_rows)
        answers: Predictions = self._model.predict(batch)
        return self._bend(batch.n_rows, answers)


def _shifted(answers: Predictions, by: float) -> Predictions:
    assert answers.probabilities is not None
    return answers._replace(probabilities=[[p + by for p in row] for row in answers.probabilities])


def test_a_difference_over_the_bound_is_refused_and_told(trained: TrainedModel, model: Model) -> None:
    bent: Any = _Bent(model, lambda n, answers: _shifted(answers, 1e-7))
    batch = messages(40, seed=9).batch
    assert prove(bent, trained.reference, batch, bound=SINGLE)["max_abs_diff"] == pytest.approx(1e-7, rel=1e-3)
    with pytest.raises(FitFailed) as refusal:
        prove(bent, trained.reference, batch, bound=EXACT)
    assert refusal.value.fields["reason"] == "parity"
    assert refusal.value.fields["max_abs_diff"] == pytest.approx(1e-7, rel=1e-3)


@pytest.mark.parametrize("alone", [True, False])
def test_both_the_row_path_and_the_batch_path_are_proved(trained: TrainedModel, model: Model, alone: bool) -> None:
    bent: Any = _Bent(model, lambda n, answers: _shifted(answers, 1e-3) if (n == 1) is alone else answers)
    with pytest.raises(FitFailed):
        prove(bent, trained.reference, messages(10, seed=9).batch, bound=EXACT)
    assert max(bent.sizes) > ROW_LIMIT


def test_another_label_without_a_tie_is_refused(trained: TrainedModel, model: Model) -> None:
    def flip(n: int, answers: Predictions) -> Predictions:
        return answers._replace(labels=["billing"] * n)

    bent: Any = _Bent(model, flip)
    with pytest.raises(FitFailed) as refusal:
        prove(bent, trained.reference, messages(40, seed=9).batch, bound=EXACT)
    assert refusal.value.fields["max_abs_diff"] is None


class _Answers:
    def __init__(self, answers: Predictions) -> None:
        self._answers = answers
        self.classes = ("a", "b")

    def predict(self, batch: Batch) -> Predictions:
        labels, proba, values = self._answers
        n = batch.n_rows
        return Predictions(labels and labels * n, proba and proba * n, values and values * n)


def _prove(found: Predictions, wanted: Predictions, bound: float = EXACT) -> dict[str, Any]:
    model: Any = _Answers(found)
    return prove(model, _Answers(wanted).predict, Batch(2, {"x": [1.0, 2.0]}), bound=bound)


def test_another_label_of_an_exact_tie_is_accepted() -> None:
    tie = [[0.5, 0.5]]
    assert _prove(Predictions(["a"], tie, None), Predictions(["b"], tie, None))["max_abs_diff"] == 0.0


def test_values_are_compared_relative_to_their_size() -> None:
    assert _prove(Predictions(None, None, [1e6 + 1e-4]), Predictions(None, None, [1e6]))["max_abs_diff"] < EXACT
    with pytest.raises(FitFailed):
        _prove(Predictions(None, None, [0.5 + 1e-6]), Predictions(None, None, [0.5]))


def test_an_answer_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(FitFailed):
        _prove(Predictions(None, None, [float("nan")]), Predictions(None, None, [0.5]))


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(FitFailed, match="shape"):
        _prove(Predictions(["a"], [[1.0]], None), Predictions(["a"], [[0.5, 0.5]], None))


def test_nothing_is_proved_on_no_rows(trained: TrainedModel, model: Model) -> None:
    with pytest.raises(FitFailed, match="no rows"):
        prove(model, trained.reference, Batch(0, {"text": []}), bound=EXACT)


def test_a_large_batch_is_sampled_evenly(trained: TrainedModel, model: Model) -> None:
    bent: Any = _Bent(model, lambda n, answers: answers)
    facts = prove(bent, trained.reference, messages(5000, seed=4).batch, bound=EXACT)
    assert (facts["rows"], facts["single_rows"]) == (4096, 200)
    assert max(bent.sizes) == 4096
