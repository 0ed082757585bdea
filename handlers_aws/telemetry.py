"""Telemetry as CloudWatch reads it: JSON lines on stdout, in the field names of Powertools for AWS Lambda.

A log line has `level`, `location`, `message` (the event's name), `timestamp`, `service`, the invocation's
`cold_start`, `function_name`, `function_memory_size`, `function_arn`, `function_request_id`, `correlation_id`,
`xray_trace_id`, and the facts. Metrics follow each invocation in the Embedded Metric Format: a counter's sum, a
gauge's last value, all observations of a histogram; dimensions are `service` and the metric's labels.

LambdaTelemetry writes these lines itself: Powertools would cost the predict path more than core does.
PowertoolsTelemetry has Powertools write them, and traces.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import gmtime, strftime
from typing import Any

from core.telemetry import MAX_FIELD_CHARS, METRICS, OTHER, InvocationTelemetry, Update, log_line, quote
from core.tuples import NamedTuple

NAMESPACE = "Polysky"
SERVICE, SERVICE_VARIABLE = "polysky", "POWERTOOLS_SERVICE_NAME"  # which tells two stacks of an account apart
TRACE_VARIABLE = "_X_AMZN_TRACE_ID"
MAX_METRICS = MAX_VALUES = 100  # of the format: metrics in a document, values of a metric
MAX_DOCUMENTS = 16  # written after one invocation; what does not fit is left out
MAX_DIMENSION_VALUES = 100  # each set of dimension values is a metric to pay for
MAX_DIMENSION_CHARS = 250
_EVENT = '"event": '
PLATFORMS_OWN = {"app_active_requests", "app_uptime_seconds", "process_resident_memory_bytes"}
_UNBOUNDED = {"version"}  # labels that take ever new values
Handler = Callable[[Any, Any], Any]
Dimensions = tuple[tuple[str, str], ...]


class Series(NamedTuple):
    """The numbers of one metric under one set of dimensions."""

    name: str
    unit: str
    dimensions: Dimensions
    values: list[float]


class LambdaTelemetry(InvocationTelemetry):
    """The telemetry port in a Lambda function, which has one invocation at a time."""

    def __init__(
        self, write: Callable[[str], object], *, clock: Callable[[], float], env: Mapping[str, str] = os.environ
    ) -> None:
        super().__init__(write, clock=clock)
        self._env = env
        self._service = env.get(SERVICE_VARIABLE) or SERVICE
        self._invocation = ""
        self._cold = True
        self._known: dict[str, set[str]] = {}

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one line of JSON: ASCII only, each text cut at MAX_FIELD_CHARS."""
        now, code = self._clock(), sys._getframe(1)
        line, service = log_line(now, level, event, fields), quote(self._service)
        self._write(
            f'{{"level":"{level.upper()}","location":"{code.f_code.co_name}:{code.f_lineno}","message":"{event}",'
            f'"timestamp":"{timestamp(now)}","service":{service}{self._invocation},{line[line.index(_EVENT) :]}'
        )

    def warn(self, reason: str) -> None:
        """Write that an event was dropped, and why."""
        self.log("event_dropped", "warning", reason=reason)

    def instrument(self, handler: Handler) -> Handler:
        """Return the handler with each invocation's lines belonging to it, its metrics written after it."""

        def entry(event: Any, context: Any) -> Any:
            self._invocation = self._context(event, context)
            self._cold = False
            try:
                return handler(event, context)
            finally:
                self._write_metrics()
                self._invocation = ""

        return entry

    def _context(self, event: Any, context: Any) -> str:
        """Return the fields of an invocation, each after a comma."""
        cells: dict[str, str | None] = {
            "function_name": context.function_name,
            "function_memory_size": str(context.memory_limit_in_mb),
            "function_arn": context.invoked_function_arn,
            "function_request_id": context.aws_request_id,
            "correlation_id": correlation_id(event),
            "xray_trace_id": self._env.get(TRACE_VARIABLE, "").partition(";")[0].removeprefix("Root=") or None,
        }
        known = "".join(f',"{name}":{quote(value)}' for name, value in cells.items() if value is not None)
        return f',"cold_start":{str(self._cold).lower()}{known}'

    def _write_metrics(self) -> None:
        for document in documents(series(self.drain(), self._known), self._clock(), self._service):
            self._write(json.dumps(document, separators=(",", ":")) + "\n")


class PowertoolsTelemetry(LambdaTelemetry):
    """The same through Powertools' Logger and Metrics, and its Tracer; the Tracer is silent outside of Lambda."""

    def __init__(self, write: Callable[[str], object], *, clock: Callable[[], float]) -> None:
        """`write` takes whole lines; metrics, Powertools prints."""
        from functools import partial
        from logging import ERROR, LogRecord, getLogger

        from aws_lambda_powertools import Logger, Tracer
        from aws_lambda_powertools.metrics import EphemeralMetrics

        super().__init__(write, clock=clock)
        self._taken = {*LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime"}
        dumps = partial(json.dumps, separators=(",", ":"), default=str)  # Powertools' own would not keep to ASCII
        stream: Any = _Stream(write)
        self._logger: Any = Logger(service=self._service, json_serializer=dumps, stream=stream)
        self._tracer: Any = Tracer(service=self._service, patch_modules=("botocore",))
        self._metrics: Any = EphemeralMetrics
        getLogger("aws_xray_sdk").setLevel(ERROR)  # it warns of every call to S3 that nobody traces

    def log(self, event: str, /, level: str = "info", **fields: Any) -> None:
        """Write one line of JSON, each text cut at MAX_FIELD_CHARS."""
        extra = {name + "_" * (name in self._taken): _cut(value) for name, value in fields.items()}
        getattr(self._logger, level)(event, extra={"event": event, **extra}, stacklevel=3)

    def instrument(self, handler: Handler) -> Handler:
        """Return the handler logged and traced, its metrics written after it."""

        def entry(event: Any, context: Any) -> Any:
            self._logger.set_correlation_id(correlation_id(event))
            try:
                return handler(event, context)
            finally:
                self._write_metrics()

        logged = self._logger.inject_lambda_context(entry, clear_state=True)
        traced: Handler = self._tracer.capture_lambda_handler(logged, capture_response=False, capture_error=False)
        return traced

    def _write_metrics(self) -> None:
        groups: dict[Dimensions, list[Series]] = {}
        for found in series(self.drain(), self._known):
            groups.setdefault(found.dimensions, []).append(found)
        for dimensions, members in groups.items():
            metrics = self._metrics(namespace=NAMESPACE, service=self._service)
            for name, text in dimensions:
                metrics.add_dimension(name, text)
            for found in members:
                for value in found.values:
                    metrics.add_metric(found.name, found.unit, value)
            if metrics.metric_set:  # a full set was written by itself
                metrics.flush_metrics()


class _Stream:
    """What a logger of the standard library writes to."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write

    def flush(self) -> None:
        """Do nothing: every write is whole."""


def timestamp(now: float) -> str:
    """Return a time as Powertools writes it."""
    return f"{strftime('%Y-%m-%d %H:%M:%S', gmtime(now))},{int(now * 1000) % 1000:03d}+0000"


def correlation_id(event: Any) -> str | None:
    """Return the id that the source of an event gave it, None if there is none."""
    if not isinstance(event, dict):
        return None
    context = event.get("requestContext")
    found = context.get("requestId") if isinstance(context, dict) else event.get("id")
    return found if isinstance(found, str) else None


def series(updates: Iterable[Update], known: dict[str, set[str]]) -> list[Series]:
    """Return updates by metric and dimensions; `known` holds the values of each dimension so far."""
    found: dict[tuple[str, Dimensions], Series] = {}
    for name, labels, value in updates:
        if name in PLATFORMS_OWN or value - value != 0.0:  # CloudWatch takes no infinity and no NaN
            continue
        metric = METRICS[name]
        pairs = zip(metric.labels, labels, strict=False)
        dimensions = tuple((k, _dimension(v, known.setdefault(k, set()))) for k, v in pairs if k not in _UNBOUNDED)
        one = found.setdefault((name, dimensions), Series(name, _unit(name, metric.type), dimensions, []))
        if metric.type == "histogram":
            one.values.append(value)
        else:
            one.values[:] = [value + sum(one.values) if metric.type == "counter" else value]
    return list(found.values())


def _dimension(value: str, known: set[str]) -> str:
    """Return a value that CloudWatch takes: ASCII, not blank; after too many one stands for the rest."""
    if value not in known:
        if len(known) >= MAX_DIMENSION_VALUES:
            return OTHER
        known.add(value)
    if value.isascii() and value.isprintable() and value.strip():
        return value[:MAX_DIMENSION_CHARS]
    return quote(value)[:MAX_DIMENSION_CHARS]


def _unit(name: str, kind: str) -> str:
    suffix = {"seconds": "Seconds", "bytes": "Bytes", "words": "Count"}.get(name.rpartition("_")[2])
    return suffix or ("Count" if kind == "counter" else "None")


def documents(found: Iterable[Series], now: float, service: str = SERVICE) -> Iterator[dict[str, Any]]:
    """Yield series in the Embedded Metric Format, in as few documents as hold them.

    A document has one value for a dimension and one list of values for a metric: what differs goes to the next.
    """
    papers: list[tuple[dict[str, str], dict[str, Series]]] = []
    for one in found:
        for start in range(0, len(one.values), MAX_VALUES):
            part = one._replace(values=one.values[start : start + MAX_VALUES])
            paper = next((paper for paper in papers if _fits(part, *paper)), None)
            if paper is None:
                if len(papers) == MAX_DOCUMENTS:
                    continue
                paper = ({"service": service}, {})
                papers.append(paper)
            paper[0].update(part.dimensions)
            paper[1][part.name] = part
    return (_document(*paper, now) for paper in papers)


def _fits(one: Series, dimensions: Mapping[str, str], members: Mapping[str, Series]) -> bool:
    room = one.name not in members and len(members) < MAX_METRICS
    return room and all(dimensions.get(name, value) == value for name, value in one.dimensions)


def _document(dimensions: Mapping[str, str], members: Mapping[str, Series], now: float) -> dict[str, Any]:
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for one in members.values():
        names = ("service", *(name for name, _ in one.dimensions))
        groups.setdefault(names, []).append({"Name": one.name, "Unit": one.unit})
    metrics = [
        {"Namespace": NAMESPACE, "Dimensions": [list(names)], "Metrics": group} for names, group in groups.items()
    ]
    about = {"Timestamp": int(now * 1000), "CloudWatchMetrics": metrics}
    return {"_aws": about, **dimensions, **{name: one.values for name, one in members.items()}}


def _cut(value: Any) -> Any:
    return value[:MAX_FIELD_CHARS] if isinstance(value, str) else value


def write_line(line: str) -> None:
    """Write one line to stdout, which Lambda sends to CloudWatch."""
    sys.stdout.write(line)
    sys.stdout.flush()
