"""Telemetry that Application Insights can read: log records with dimensions, correlated with the request's trace.

Each record's message is core's line of JSON, which the host passes on as it is and ties to the invocation. Its
fields are also flat attributes of the record, which an OpenTelemetry exporter in the process turns into custom
dimensions. The numbers of an invocation follow as one record with the event "metrics".
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from core.telemetry import METRICS, InvocationTelemetry, Update, log_line

LOGGER = "polysky"
_MAX_DIMENSION = 8192  # characters of one dimension's value that Application Insights keeps
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_TAKEN = {*vars(logging.makeLogRecord({})), "message", "asctime"}  # a record's own attributes
_trace: ContextVar[Mapping[str, str]] = ContextVar("trace", default=MappingProxyType({}))


class FunctionTelemetry(InvocationTelemetry):
    """The telemetry port of core over Python's logging. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._logger = logging.getLogger(LOGGER)
        self._logger.setLevel(logging.INFO)  # the host filters again, by host.json
        for name in ("azure.core", "azure.storage"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log every request, and its URL
        super().__init__(self._logger.info, clock=clock)

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one record of facts, each text cut at MAX_FIELD_CHARS."""
        facts = {**fields, **_trace.get()}
        line = log_line(self._clock(), level, event, facts).rstrip("\n")
        self._write_record(_LEVELS.get(level, logging.INFO), line, event, facts)

    def warn(self, event: str, reason: str) -> None:
        """Write that something was passed over, and why."""
        self.log(event, "warning", reason=reason)

    def _write_record(self, level: int, line: str, event: str, facts: Mapping[str, Any]) -> None:
        dimensions = {f"{name}_" if name in _TAKEN else name: _plain(value) for name, value in facts.items()}
        self._logger.log(level, "%s", line, extra={"event": event, **dimensions})

    @contextmanager
    def invocation(self, context: Any) -> Iterator[None]:
        """Correlate what is logged in the block with the invocation; write its numbers at the end."""
        facts = {"invocation_id": str(context.invocation_id), **_parts(context.trace_context.trace_parent)}
        token = _trace.set(facts)
        try:
            with _attached(context.trace_context):
                try:
                    yield
                finally:
                    self._tell_metrics()
        finally:
            _trace.reset(token)

    def _tell_metrics(self) -> None:
        told = self.drain()
        if told:
            metrics, trace = summed(told), _trace.get()
            head = {"ts": round(self._clock(), 3), "level": "info", "event": "metrics"}
            line = _dumps({**head, "metrics": metrics, **trace})
            self._write_record(logging.INFO, line, "metrics", {"metrics": _dumps(metrics), **trace})


def summed(told: list[Update]) -> list[dict[str, Any]]:
    """Return one entry for each series: its name, dimensions, and of its numbers sum, count, least and largest.

    Of a gauge only the last number counts.
    """
    entries: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
    for name, labels, value in told:
        entry = entries.get((name, labels))
        if entry is None or METRICS[name].type == "gauge":
            dimensions = dict(zip(METRICS[name].labels, labels, strict=True))
            entry = {"name": name, "dimensions": dimensions, "sum": 0.0, "count": 0, "min": value, "max": value}
            entries[name, labels] = entry
        entry["sum"] += value
        entry["count"] += 1
        entry["min"], entry["max"] = min(entry["min"], value), max(entry["max"], value)
    return list(entries.values())


def _plain(value: Any) -> Any:
    """Return a value that every exporter takes: the texts of core are short, those of others are cut."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:_MAX_DIMENSION]


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _parts(parent: str | None) -> dict[str, str]:
    """Return trace and span of a W3C traceparent, nothing of what is none."""
    parts = (parent or "").split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return {}
    return {"trace_id": parts[1], "span_id": parts[2]}


@contextmanager
def _attached(trace: Any) -> Iterator[None]:
    """Make the invocation's trace the current one where OpenTelemetry is loaded.

    The worker does so on its event loop, which the threads of synchronous functions do not see.
    """
    if "opentelemetry.trace.propagation.tracecontext" not in sys.modules:
        yield
        return
    from opentelemetry import context as current
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": trace.trace_parent or "", "tracestate": trace.trace_state or ""}
    token = current.attach(TraceContextTextMapPropagator().extract(carrier))
    try:
        yield
    finally:
        current.detach(token)
