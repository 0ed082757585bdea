"""The gate: may this version take the alias? A pure decision over metrics of one frozen holdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from core.evaluation import HIGHER_IS_BETTER, Metrics

if TYPE_CHECKING:
    from core.spec import GateSpec

# A version may lose `max_drop` to the best of the recent ones, and no more than this multiple of it in all.
ANCHOR_DROPS = 2.0
COLLAPSE_RECALL = 0.2
COLLAPSE_ROWS = 10
_SLACK = 1e-12  # so that a drop of exactly the limit passes in floating point


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """`reasons` are sentences with figures: why it failed, or what it was held against."""

    passed: bool
    reasons: tuple[str, ...]
    metric: str
    value: float | None
    compared: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "metric": self.metric,
            "value": self.value,
            "compared": dict(self.compared),
        }


@dataclass(frozen=True, slots=True)
class Rival:
    """A version that the challenger is held against; its `metrics` are of the same frozen holdout."""

    version: str
    metrics: Metrics


def primary_metric(gate: GateSpec, task: str) -> str:
    """Return the name of the metric that decides. Raises ConfigError if the spec names an unknown one."""
    metric = gate.metric or ("accuracy" if task == "classification" else "r2")
    for path, name in (("gate.metric", metric), *((f"gate.minimum.{key}", key) for key in gate.minimum)):
        if name not in HIGHER_IS_BETTER:
            raise ConfigError(f"{path} must be one of {', '.join(HIGHER_IS_BETTER)}")
    return metric


def decide(
    gate: GateSpec,
    challenger: Metrics,
    *,
    champion: Rival | None = None,
    recent: Sequence[Rival] = (),
    anchor: Rival | None = None,
) -> GateVerdict:
    """Return whether the challenger may take the alias.

    It must reach every minimum of the spec, and lose at most `max_drop` of the primary metric to the champion
    and to the best of the `recent` versions, at most ANCHOR_DROPS times that to the `anchor` (the first
    champion), and no class altogether. Without a champion only the minimums count. On a small holdout one row
    is the finest drop that can be seen, so one row of accuracy is always forgiven.
    """
    metric = primary_metric(gate, challenger.get("task", "classification"))
    value = challenger.get(metric)
    failures = _below_minimum(gate.minimum, challenger)
    if value is None:
        failures.append(f"{metric} is not defined on the {challenger.get('n', 0)} holdout rows")
        return GateVerdict(False, tuple(failures), metric, None)
    bars = _bars(gate, metric, champion, recent, anchor)
    drop = _allowance(gate, metric, int(challenger.get("n", 0)))
    limits = {bar.role: bar.limit(drop) for bar in bars}
    failures += [
        bar.sentence(value, limits[bar.role]) for bar in bars if not _reaches(metric, value, limits[bar.role])
    ]
    failures += _collapsed(challenger, champion)
    compared = {bar.role: {"version": bar.version, "value": bar.value, "limit": limits[bar.role]} for bar in bars}
    reasons = failures or _praise(metric, value, bars, gate)
    return GateVerdict(not failures, tuple(reasons), metric, value, {"max_drop": drop, **compared})


@dataclass(frozen=True, slots=True)
class _Bar:
    role: str
    version: str
    metric: str
    value: float
    drops: float

    def limit(self, drop: float) -> float:
        sign = -1.0 if HIGHER_IS_BETTER[self.metric] else 1.0
        return self.value + sign * drop * self.drops

    def sentence(self, value: float, limit: float) -> str:
        word = "below" if HIGHER_IS_BETTER[self.metric] else "above"
        return (
            f"{self.metric} {value:.4f} is {word} {limit:.4f}, the limit set by the {_ROLES[self.role]} "
            f"{self.version} with {self.value:.4f}"
        )


_ROLES = {"champion": "champion", "recent": "best recent version", "anchor": "first champion"}


def _bars(
    gate: GateSpec, metric: str, champion: Rival | None, recent: Sequence[Rival], anchor: Rival | None
) -> list[_Bar]:
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    known = [r for r in recent[-gate.last_n :] if metric in r.metrics] if gate.last_n else []
    best = max(known, key=lambda r: sign * r.metrics[metric], default=None)
    bars: list[_Bar] = []
    for role, rival, drops in (
        ("champion", champion, 1.0),
        ("recent", best, 1.0),
        ("anchor", anchor, ANCHOR_DROPS),
    ):
        seen = {bar.version for bar in bars}
        if rival is not None and metric in rival.metrics and rival.version not in seen:
            bars.append(_Bar(role, rival.version, metric, rival.metrics[metric], drops))
    return bars


def _allowance(gate: GateSpec, metric: str, n: int) -> float:
    return max(gate.max_drop, 1.0 / n) if metric == "accuracy" and n else gate.max_drop


def _reaches(metric: str, value: float, limit: float) -> bool:
    return value >= limit - _SLACK if HIGHER_IS_BETTER[metric] else value <= limit + _SLACK


def _below_minimum(minimum: Mapping[str, float], challenger: Metrics) -> list[str]:
    failures = []
    for metric, limit in minimum.items():
        value = challenger.get(metric)
        if value is None:
            failures.append(f"{metric} has a limit of {limit:g} but is not defined on the holdout")
        elif not _reaches(metric, value, limit):
            word, side = ("below", "minimum") if HIGHER_IS_BETTER[metric] else ("above", "maximum")
            failures.append(f"{metric} {value:.4f} is {word} the {side} of {limit:g}")
    return failures


def _collapsed(challenger: Metrics, champion: Rival | None) -> list[str]:
    """Return one sentence for each class that the champion knew and the challenger never gets right."""
    if champion is None:
        return []
    now = challenger.get("classes", {})
    return [
        f"class {name!r} is never predicted right ({row['support']} holdout rows; the champion's recall is "
        f"{row['recall']:.2f})"
        for name, row in champion.metrics.get("classes", {}).items()
        if row["recall"] > COLLAPSE_RECALL
        and row["support"] >= COLLAPSE_ROWS
        and now.get(name, {}).get("recall", 0.0) == 0.0
    ]


def _praise(metric: str, value: float, bars: Sequence[_Bar], gate: GateSpec) -> list[str]:
    if bars:
        return [
            f"{metric} {value:.4f} against {bar.value:.4f} of the {_ROLES[bar.role]} {bar.version}" for bar in bars
        ]
    if gate.minimum:
        return [f"first version: every minimum is reached, {metric} is {value:.4f}"]
    return [f"first version: no minimum is set, {metric} is {value:.4f}"]
