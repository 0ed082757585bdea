"""Telemetry as Cloud Logging reads it: one JSON object a line on stdout.

Log lines carry `severity`, `message` (the event's name), `time`, the facts as fields, and of the request that the
thread is at: `logging.googleapis.com/trace`, `…/spanId`, `…/trace_sampled` and the label `execution_id`.

Metrics are log-based: after each call the numbers told since the last are written, summed by series, as

    {"severity": "INFO", "message": "metrics", "time": …, "event": "metrics",
     "metrics": {"app_request_count": {"value": 1, "count": 1, "method": "POST", "endpoint": "/predict", …}, …}}

with `value` the sum of a counter, the last value of a gauge, the mean of a histogram's observations; `count` the
number of them; and the metric's labels beside them. A metric with several series in one call has the second in a
second line, and so on, up to MAX_LINES. A log-based metric of NAME thus takes the filter
`jsonPayload.event="metrics" AND jsonPayload.metrics.NAME.count>0`, the value
`EXTRACT(jsonPayload.metrics.NAME.value)` and for each label `EXTRACT(jsonPayload.metrics.NAME.LABEL)`; as a
distribution, since a counter of Cloud Logging counts lines only: its sum is the counter's value.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from time import gmtime, strftime
from typing import Any

from core.telemetry import METRICS, InvocationTelemetry, Labels, Update, log_line, quote

MAX_LINES = 16
PLATFORMS_OWN = {"app_active_requests", "process_resident_memory_bytes"}  # Cloud Run measures these itself
PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "GCP_PROJECT", "GCLOUD_PROJECT")
_SEVERITY = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}
_PARENT = r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
_CONTEXT = r"([0-9a-f]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?"
_EXECUTION = r"[A-Za-z0-9_-]{1,64}"
_FIELD = "logging.googleapis.com/"


class CloudTelemetry(InvocationTelemetry):
    """The telemetry port over Cloud Logging. Thread-safe; a line belongs to the request that its thread is at."""

    def __init__(
        self, write: Callable[[str], object], *, clock: Callable[[], float], env: Mapping[str, str] = os.environ
    ) -> None:
        super().__init__(write, clock=clock)
        self._project = next((env[name] for name in PROJECT_VARIABLES if env.get(name)), "")
        self._request: ContextVar[str] = ContextVar("request", default="")

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one line of JSON: ASCII only, each text cut at MAX_FIELD_CHARS."""
        now = self._clock()
        start = (
            f'{{"severity": "{_SEVERITY.get(level, "DEFAULT")}", "message": "{event}", "time": "{timestamp(now)}"'
        )
        self._write(f"{start}{self._request.get()}, {log_line(now, level, event, fields)[1:]}")

    def warn(self, reason: str) -> None:
        """Write that an event was dropped, and why."""
        self.log("event_dropped", "warning", reason=reason)

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Have the lines of this thread belong to the request with these headers; at its end write the metrics."""
        token = self._request.set(correlation(headers, self._project))
        try:
            yield
        finally:
            self._request.reset(token)
            self.write_metrics()

    def write_metrics(self) -> None:
        """Write the numbers told since the last time, by whatever threads."""
        now = self._clock()
        start = f'{{"severity": "INFO", "message": "metrics", "time": "{timestamp(now)}", "event": "metrics"'
        for line in metric_lines(self.drain()):
            self._write(f'{start}, "metrics": {json.dumps(line)}}}\n')


def correlation(headers: Mapping[str, str], project: str) -> str:
    """Return the fields that tie a log line to a request's trace and execution, each after a comma."""
    cells: dict[str, Any] = {}
    parent, context = headers.get("traceparent", ""), headers.get("x-cloud-trace-context", "")
    found = re.fullmatch(_PARENT, parent, re.ASCII) if parent else None
    if found:
        trace, span, sampled = found[1], found[2], bool(int(found[3], 16) & 1)
    elif context and (found := re.fullmatch(_CONTEXT, context, re.ASCII | re.IGNORECASE)):
        span = f"{int(found[2]) & (1 << 64) - 1:016x}" if found[2] else ""
        trace, sampled = found[1].lower(), found[3] == "1"
    if found:
        cells["trace"] = f"projects/{project}/traces/{trace}" if project else trace
        cells["spanId"] = span
        cells["trace_sampled"] = sampled
    execution = headers.get("function-execution-id", "")
    if execution and re.fullmatch(_EXECUTION, execution, re.ASCII):
        cells["labels"] = {"execution_id": execution}
    return "".join(f", {quote(_FIELD + name)}: {json.dumps(cell)}" for name, cell in cells.items() if cell != "")


def metric_lines(told: Iterable[Update]) -> list[dict[str, dict[str, Any]]]:
    """Return the numbers as the lines' `metrics`: one series of each metric a line."""
    series: dict[str, dict[Labels, dict[str, Any]]] = {}
    for name, labels, value in told:
        if name in PLATFORMS_OWN:
            continue
        family = series.setdefault(name, {})
        cell = family.get(labels)
        if cell is None:
            family[labels] = {"value": value, "count": 1, **dict(zip(METRICS[name].labels, labels, strict=True))}
        else:
            cell["count"] += 1
            cell["value"] = value if METRICS[name].type == "gauge" else cell["value"] + value
    lines: list[dict[str, dict[str, Any]]] = []
    for name, family in series.items():
        for index, cell in enumerate(list(family.values())[:MAX_LINES]):
            if METRICS[name].type == "histogram":
                cell["value"] /= cell["count"]
            if index == len(lines):
                lines.append({})
            lines[index][name] = cell
    return lines


def timestamp(now: float) -> str:
    """Return seconds since the epoch as RFC 3339."""
    micros = round(now * 1e6)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(micros // 1_000_000))}.{micros % 1_000_000:06d}Z"


def write_line(line: str) -> None:
    """Write one line to stdout in one call, so that lines of several threads and processes do not mix."""
    with suppress(OSError):
        os.write(1, line.encode("ascii"))
