"""The gate's rules, one by one, on hand-written metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import ConfigError
from core.gate import Rival, decide, primary_metric
from core.spec import GateSpec

N = 10_000


def _metrics(accuracy: float, **more: Any) -> dict[str, Any]:
    return {"task": "classification", "n": N, "accuracy": accuracy, **more}


def test_a_first_version_without_minimums_passes() -> None:
    verdict = decide(GateSpec(), _metrics(0.1))
    assert verdict.passed
    assert verdict.reasons == ("first version: no minimum is set, accuracy is 0.1000",)


def test_a_first_version_must_reach_every_minimum() -> None:
    gate = GateSpec(minimum={"accuracy": 0.9, "macro_f1": 0.5, "log_loss": 0.2})
    verdict = decide(gate, _metrics(0.85, macro_f1=0.6, log_loss=0.3))
    assert not verdict.passed
    assert verdict.reasons == (
        "accuracy 0.8500 is below the minimum of 0.9",
        "log_loss 0.3000 is above the maximum of 0.2",
    )
    assert decide(gate, _metrics(0.9, macro_f1=0.5, log_loss=0.2)).reasons[0].startswith("first version: every")


def test_a_minimum_on_an_undefined_metric_fails() -> None:
    verdict = decide(GateSpec(minimum={"roc_auc": 0.5}), _metrics(0.9))
    assert verdict.reasons == ("roc_auc has a limit of 0.5 but is not defined on the holdout",)


@pytest.mark.parametrize(("accuracy", "passed"), [(0.91, True), (0.90, True), (0.895, True), (0.8949, False)])
def test_a_challenger_may_lose_max_drop_to_the_champion_and_no_more(accuracy: float, passed: bool) -> None:
    verdict = decide(GateSpec(max_drop=0.005), _metrics(accuracy), champion=Rival("v-1", _metrics(0.9)))
    assert verdict.passed is passed


def test_a_failure_names_the_rival_and_the_figures() -> None:
    verdict = decide(GateSpec(max_drop=0.01), _metrics(0.5), champion=Rival("v-1", _metrics(0.9)))
    assert verdict.reasons == ("accuracy 0.5000 is below 0.8900, the limit set by the champion v-1 with 0.9000",)
    assert verdict.compared["champion"] == {"version": "v-1", "value": 0.9, "limit": 0.89}


def test_on_a_small_holdout_one_row_of_accuracy_is_forgiven_and_two_are_not() -> None:
    champion = Rival("v-1", {**_metrics(0.90), "n": 50})
    assert decide(GateSpec(), {**_metrics(0.88), "n": 50}, champion=champion).passed
    assert not decide(GateSpec(), {**_metrics(0.86), "n": 50}, champion=champion).passed


def test_steps_that_each_stay_in_the_limit_are_stopped_by_the_best_recent_version() -> None:
    recent = [Rival("v-1", _metrics(0.90)), Rival("v-2", _metrics(0.896))]
    verdict = decide(GateSpec(), _metrics(0.892), champion=recent[-1], recent=recent)
    assert verdict.reasons == (
        "accuracy 0.8920 is below 0.8950, the limit set by the best recent version v-1 with 0.9000",
    )


def test_only_the_last_n_versions_count_as_recent() -> None:
    recent = [Rival("v-0", _metrics(0.99)), Rival("v-1", _metrics(0.9)), Rival("v-2", _metrics(0.9))]
    assert decide(GateSpec(last_n=2), _metrics(0.9), champion=recent[-1], recent=recent).passed
    assert not decide(GateSpec(last_n=3), _metrics(0.9), champion=recent[-1], recent=recent).passed


def test_the_first_champion_bounds_the_total_loss() -> None:
    champion = Rival("v-9", _metrics(0.892))
    anchor = Rival("v-1", _metrics(0.90))
    assert decide(GateSpec(), _metrics(0.890), champion=champion, anchor=anchor).passed
    verdict = decide(GateSpec(), _metrics(0.889), champion=champion, anchor=anchor)
    assert "first champion v-1" in verdict.reasons[0]


def test_twenty_slow_steps_never_fall_below_the_total_limit() -> None:
    gate = GateSpec(max_drop=0.02, last_n=3)
    history = [Rival("v-0", _metrics(0.9))]
    for step in range(1, 21):
        value = history[-1].metrics["accuracy"] - 0.006
        verdict = decide(gate, _metrics(value), champion=history[-1], recent=history, anchor=history[0])
        if verdict.passed:
            history.append(Rival(f"v-{step}", _metrics(value)))
    assert 1 < len(history) < 20
    assert history[-1].metrics["accuracy"] >= 0.9 - 2 * 0.02


def test_lower_is_better_for_errors() -> None:
    gate = GateSpec(metric="rmse", max_drop=0.1)
    champion = Rival("v-1", {"task": "regression", "n": 9, "rmse": 1.0})
    assert decide(gate, {"task": "regression", "n": 9, "rmse": 1.1}, champion=champion).passed
    verdict = decide(gate, {"task": "regression", "n": 9, "rmse": 1.2}, champion=champion)
    assert verdict.reasons == ("rmse 1.2000 is above 1.1000, the limit set by the champion v-1 with 1.0000",)


def test_the_best_recent_version_of_an_error_is_the_lowest() -> None:
    gate = GateSpec(metric="mae", max_drop=0.0)
    recent = [Rival("v-1", {"mae": 1.0}), Rival("v-2", {"mae": 0.5}), Rival("v-3", {})]
    verdict = decide(gate, {"mae": 0.7, "n": 5}, recent=recent)
    assert verdict.compared["recent"]["version"] == "v-2"
    assert not verdict.passed


def test_a_class_that_collapses_stops_a_challenger_of_better_accuracy() -> None:
    def classes(recall: float, support: int) -> dict[str, Any]:
        return {"rare": {"precision": 0.5, "recall": recall, "support": support}}

    champion = Rival("v-1", _metrics(0.9, classes=classes(0.5, 12)))
    verdict = decide(GateSpec(), _metrics(0.95, classes=classes(0.0, 12)), champion=champion)
    assert verdict.reasons == (
        "class 'rare' is never predicted right (12 holdout rows; the champion's recall is 0.50)",
    )
    few = Rival("v-1", _metrics(0.9, classes=classes(0.5, 9)))
    assert decide(GateSpec(), _metrics(0.95, classes=classes(0.0, 9)), champion=few).passed


def test_a_primary_metric_that_the_holdout_does_not_define_fails() -> None:
    verdict = decide(GateSpec(metric="roc_auc"), _metrics(0.9))
    assert not verdict.passed
    assert verdict.reasons == ("roc_auc is not defined on the 10000 holdout rows",)


def test_the_primary_metric_follows_the_task() -> None:
    assert primary_metric(GateSpec(), "classification") == "accuracy"
    assert primary_metric(GateSpec(), "regression") == "r2"
    assert primary_metric(GateSpec(metric="macro_f1"), "classification") == "macro_f1"


def test_an_unknown_metric_is_a_config_error_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"gate\.metric"):
        primary_metric(GateSpec(metric="f7"), "classification")
    with pytest.raises(ConfigError, match=r"gate\.minimum"):
        primary_metric(GateSpec(minimum={"f7": 1.0}), "classification")


def test_a_verdict_is_plain_json() -> None:
    verdict = decide(GateSpec(), _metrics(0.9), champion=Rival("v-1", _metrics(0.9)))
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["passed"] is True
