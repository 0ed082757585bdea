"""The telemetry port, the one table of metric names, and the in-process implementation of both."""

from __future__ import annotations

import json
import os
from _thread import allocate_lock
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from core.tuples import NamedTuple

MAX_FIELD_CHARS = 256
MAX_TOLD = 10_000  # numbers kept for a drain
MAX_WAITING = 32  # requests whose numbers wait to be added to the series
MAX_SERIES = 1000  # per metric; what comes after is counted under OTHER
OTHER = "_other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[str, ...]
Update = tuple[str, Labels, float]  # metric, label values, number
quote = json.encoder.encode_basestring_ascii


class Metric(NamedTuple):
    """One row of the table: label values are given in the order of `labels`."""

    name: str
    type: str  # counter | gauge | histogram
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()


_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STEP_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
_WORDS = (1, 2, 5, 10, 20, 40, 60, 100, 200, 500, 1000, 5000)
_SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("app_request_count", "counter", "Requests answered.", ("method", "endpoint", "status")),
        Metric("app_request_latency_seconds", "histogram", "Time to answer.", ("endpoint",), _REQUEST_S),
        Metric("app_errors_by_endpoint", "counter", "Requests answered with an error.", ("endpoint", "code")),
        Metric("app_active_requests", "gauge", "Requests being answered now."),
        Metric(
            "app_preprocessing_latency_seconds",
            "histogram",
            "Time from the body to checked rows.",
            ("model",),
            _STEP_S,
        ),
        Metric(
            "app_inference_latency_seconds",
            "histogram",
            "Time from checked rows to answers.",
            ("model",),
            _STEP_S,
        ),
        Metric("app_input_length_words", "histogram", "Words in a row's text, by its spaces.", ("model",), _WORDS),
        Metric("app_uptime_seconds", "gauge", "Time since this process began to serve."),
        Metric("model_prediction_count", "counter", "Rows answered, by predicted class.", ("model", "class")),
        Metric("model_confidence", "histogram", "Probability of the answer given.", ("model",), _SHARE),
        Metric("model_accuracy", "gauge", "Accuracy of the served version on its holdout.", ("model",)),
        Metric("model_score", "gauge", "Holdout metrics of the served version.", ("model", "metric")),
        Metric("model_loaded", "gauge", "1 for each version that answers now.", ("model", "alias", "version")),
        Metric("model_load_latency_seconds", "histogram", "Time to load a version.", ("model",), _REQUEST_S),
        Metric("model_refresh_failures_count", "counter", "Alias checks that failed.", ("model",)),
        Metric("integrity_failures_count", "counter", "Artifacts and logs found broken.", ("model",)),
        Metric("auth_failures_count", "counter", "Requests refused for their credentials.", ("reason",)),
        Metric("retraining_events_count", "counter", "Training jobs, by outcome.", ("model", "outcome")),
        Metric("jobs_count", "gauge", "Training jobs, by status.", ("model", "status")),
        Metric("job_duration_seconds", "histogram", "Time of a training job.", ("model",), (1, 5, 30, 120, 900)),
        Metric("process_resident_memory_bytes", "gauge", "Memory of this process."),
    )
}


_BUCKETS = {name: metric.buckets for name, metric in METRICS.items()}
_KEYS = {name: f', "{name}": ' for name in ("request_id", "method", "status", "ms", "endpoint", "actor", "code")}
_KEYS |= {name: f', "{name}": ' for name in ("model", "version", "rows", "ref", "rev")}


class Telemetry(Protocol):
    """Where facts go. Metric names and the order of their labels are those of METRICS."""

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one line of facts. Never rows, tokens or bodies."""
        ...

    def count(self, name: str, labels: Labels = (), amount: float = 1.0) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float | None, labels: Labels = ()) -> None:
        """Set a gauge; None takes the series away."""
        ...

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        """Add one observation to a histogram."""
        ...

    def record(self, updates: Iterable[Update]) -> None:
        """Add each number to its counter or gauge, or as one observation to its histogram; all at once."""
        ...

    def exposition(self) -> bytes | None:
        """Return all metrics as Prometheus text, or None if they are kept elsewhere."""
        ...


class MemoryTelemetry:
    """Metrics in this process, log lines to `write`. Thread-safe; bounded in memory."""

    def __init__(self, write: Callable[[str], object], *, clock: Callable[[], float]) -> None:
        """`write` takes one whole line, ending in a line feed."""
        self._write = write
        self._clock = clock
        self._lock = allocate_lock()
        self._waiting: deque[Iterable[Update]] = deque()  # told, but not yet in the series
        # a series is a number, or for a histogram [count per bucket …, count above, sum]
        self._families: dict[str, dict[Labels, Any]] = {name: {} for name in METRICS}

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one line of JSON: ASCII only, each text cut at MAX_FIELD_CHARS."""
        self._write(log_line(self._clock(), level, event, fields))

    def count(self, name: str, labels: Labels = (), amount: float = 1.0) -> None:
        """Add to a counter."""
        self.record(((name, labels, amount),))

    def gauge(self, name: str, value: float | None, labels: Labels = ()) -> None:
        """Set a gauge; None takes the series away."""
        family = self._families[name]
        with self._lock:
            self._fold()
            if value is None:
                family.pop(labels, None)
            else:
                family[labels if labels in family else self._admit(name, labels)] = value

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        """Add one observation to a histogram."""
        self.record(((name, labels, value),))

    def record(self, updates: Iterable[Update]) -> None:
        """Add each number to its counter or gauge, or as one observation to its histogram; all at once.

        `updates` must not change afterwards. They wait for others and are then added together, under one lock:
        a request pays for one append.
        """
        self._waiting.append(updates)
        if len(self._waiting) >= MAX_WAITING:
            with self._lock:
                self._fold()

    def _fold(self) -> None:
        """Add what waits to the series. The caller holds the lock."""
        families, waiting = self._families, self._waiting
        for _ in range(len(waiting)):
            for name, labels, value in waiting.popleft():
                family = families[name]
                cells = family.get(labels)
                if cells is None:
                    labels = self._admit(name, labels)  # noqa: PLW2901
                    cells = family[labels]
                if cells.__class__ is list:
                    cells[bisect_left(_BUCKETS[name], value)] += 1
                    cells[-1] += value
                else:
                    family[labels] = cells + value

    def snapshot(self) -> list[tuple[str, Labels, Any]]:
        """Return a copy of all series, JSON-safe, for `render` with those of other processes."""
        memory = resident_bytes()
        if memory:
            self.gauge("process_resident_memory_bytes", memory)
        with self._lock:
            self._fold()
            return [
                (name, labels, list(value) if isinstance(value, list) else value)
                for name, family in self._families.items()
                for labels, value in family.items()
            ]

    def exposition(self) -> bytes:
        """Return the Prometheus text of this process."""
        return render([self.snapshot()])

    def _admit(self, name: str, labels: Labels) -> Labels:
        """Return the labels under which a new series is kept, now with a start value."""
        family = self._families[name]
        start: Any = 0.0
        if METRICS[name].type == "histogram":
            start = [0] * (len(_BUCKETS[name]) + 1) + [0.0]
        if len(labels) != len(METRICS[name].labels):
            raise KeyError(f"{name} takes {len(METRICS[name].labels)} labels")
        if len(family) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        family.setdefault(labels, start)
        return labels


class InvocationTelemetry(MemoryTelemetry):
    """Also keeps each number told since the last `drain`, for platforms that take metrics call by call."""

    def __init__(self, write: Callable[[str], object], *, clock: Callable[[], float]) -> None:
        super().__init__(write, clock=clock)
        self._told: deque[Update] = deque(maxlen=MAX_TOLD)

    def gauge(self, name: str, value: float | None, labels: Labels = ()) -> None:
        """Set a gauge; None takes the series away."""
        super().gauge(name, value, labels)
        if value is not None:
            self._told.append((name, labels, value))

    def record(self, updates: Iterable[Update]) -> None:
        """Add each number to its counter or gauge, or as one observation to its histogram; all at once."""
        updates = list(updates)
        super().record(updates)
        self._told.extend(update for update in updates if METRICS[update[0]].type != "gauge")

    def drain(self) -> list[Update]:
        """Return what was told since the last call, oldest first; of very much the oldest is lost."""
        told = []
        with suppress(IndexError):
            while True:
                told.append(self._told.popleft())
        return told


def log_line(ts: float, level: str, event: str, fields: Mapping[str, Any]) -> str:
    """Return one line of JSON in ASCII, ending in a line feed; each text is cut at MAX_FIELD_CHARS.

    `level` and `event` are names of ours, written as they are. Spelt out by hand, for one is written a request.
    """
    cells = [f'{{"ts": {ts:.3f}, "level": "{level}", "event": "{event}"']
    for name, value in fields.items():
        kind = value.__class__
        cells.append(_KEYS.get(name) or f", {quote(name)}: ")
        if kind is str:
            cells.append(quote(value if len(value) <= MAX_FIELD_CHARS else value[:MAX_FIELD_CHARS]))
        elif kind is int or (kind is float and value - value == 0.0):
            cells.append(repr(value))
        else:
            cells.append(json.dumps(_plain(value)))
    cells.append("}\n")
    return "".join(cells)


def render(snapshots: Iterable[Iterable[Sequence[Any]]]) -> bytes:
    """Return the Prometheus text of the sum of several processes' snapshots."""
    total: dict[str, dict[Labels, Any]] = {}
    for snapshot in snapshots:
        for name, labels, value in snapshot:
            family = total.setdefault(name, {})
            before = family.get(tuple(labels))
            family[tuple(labels)] = value if before is None else _sum(name, before, value)
    lines: list[str] = []
    for name, metric in METRICS.items():
        if name in total:
            lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.type}"]
            for labels in sorted(total[name]):
                lines += _samples(metric, labels, total[name][labels])
    return ("\n".join(lines) + "\n").encode(errors="replace")  # a class may be named by half a character


_NOT_ADDED = {"model_loaded", "model_accuracy", "model_score", "app_uptime_seconds", "jobs_count"}


def _sum(name: str, one: Any, other: Any) -> Any:
    if name in _NOT_ADDED:
        return max(one, other)
    if isinstance(one, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    return one + other


def _samples(metric: Metric, labels: Labels, value: Any) -> list[str]:
    pairs = [f'{name}="{_escape(text)}"' for name, text in zip(metric.labels, labels, strict=True)]
    if metric.type != "histogram":
        return [_sample(metric.name, pairs, value)]
    lines, running = [], 0
    for bound, cell in zip((*map(_number, metric.buckets), "+Inf"), value, strict=False):
        running += cell
        lines.append(_sample(metric.name + "_bucket", [*pairs, f'le="{bound}"'], running))
    return [
        *lines,
        _sample(metric.name + "_sum", pairs, value[-1]),
        _sample(metric.name + "_count", pairs, running),
    ]


def _sample(name: str, pairs: Sequence[str], value: float) -> str:
    labels = "{" + ",".join(pairs) + "}" if pairs else ""
    return f"{name}{labels} {_number(value)}"


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value[:MAX_FIELD_CHARS]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:MAX_FIELD_CHARS]


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
