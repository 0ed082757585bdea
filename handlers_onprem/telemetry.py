"""Telemetry of several processes on one machine: JSON lines on stderr, metrics that any of them can tell in sum.

The numbers live in memory-mapped files, one set a process, in the folder PROMETHEUS_MULTIPROC_DIR (the
multiprocess mode of prometheus_client); a process that died keeps its counts there.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any

from core.telemetry import MAX_SERIES, METRICS, OTHER, Labels, MemoryTelemetry, Update, render, resident_bytes

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ADDED = {"app_active_requests", "process_resident_memory_bytes"}
_LARGEST = {"app_uptime_seconds", "model_loaded"}
_GONE = -math.inf  # the value of a gauge that was taken away: the files know no removal


class SharedTelemetry:
    """The telemetry port of core over prometheus_client. Thread-safe; bounded in series as MemoryTelemetry."""

    def __init__(
        self, write: Callable[[str], object], folder: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        os.environ[FOLDER_VARIABLE] = folder  # read when prometheus_client is imported
        import prometheus_client

        self._library: Any = prometheus_client
        self._registry: Any = prometheus_client.CollectorRegistry()

        self.log = MemoryTelemetry(write, clock=clock).log
        self._folder = folder
        self._lock = Lock()
        self._series: dict[tuple[str, Labels], Any] = {}
        self._sizes: dict[str, int] = {}
        self._families: dict[str, Any] = {}
        forget_dead(folder)

    def count(self, name: str, labels: Labels = (), amount: float = 1.0) -> None:
        """Add to a counter."""
        self._child(name, labels).inc(amount)

    def gauge(self, name: str, value: float | None, labels: Labels = ()) -> None:
        """Set a gauge; None takes the series away."""
        absent = 0.0 if name in _ADDED else _GONE
        self._child(name, labels).set(absent if value is None else value)

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        """Add one observation to a histogram."""
        self._child(name, labels).observe(value)

    def record(self, updates: Iterable[Update]) -> None:
        """Add each number to its counter or gauge, or as one observation to its histogram."""
        for name, labels, value in updates:
            child = self._child(name, labels)
            (child.observe if METRICS[name].type == "histogram" else child.inc)(value)

    def exposition(self) -> bytes:
        """Return the Prometheus text of all processes together."""
        from prometheus_client.multiprocess import MultiProcessCollector

        self.gauge("process_resident_memory_bytes", resident_bytes())
        merge: Callable[..., Any] = MultiProcessCollector.merge
        families = merge(_files(self._folder), accumulate=False)
        return render([[row for family in families for row in _rows(family)]])

    def _child(self, name: str, labels: Labels) -> Any:
        found = self._series.get((name, labels))
        return self._admit(name, labels) if found is None else found

    def _admit(self, name: str, labels: Labels) -> Any:
        with self._lock:
            self._sizes[name] = self._sizes.get(name, 0) + 1
            if self._sizes[name] > MAX_SERIES:
                labels = (OTHER,) * len(labels)
            family = self._families.get(name) or self._families.setdefault(name, self._family(name))
            child = family.labels(*labels) if METRICS[name].labels else family
            return self._series.setdefault((name, labels), child)

    def _family(self, name: str) -> Any:
        _, kind, text, labels, buckets = METRICS[name]
        if kind == "counter":
            return self._library.Counter(name, text, labels, registry=self._registry)
        if kind == "histogram":
            return self._library.Histogram(name, text, labels, registry=self._registry, buckets=buckets)
        mode = "livesum" if name in _ADDED else "livemax" if name in _LARGEST else "livemostrecent"
        return self._library.Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)


def _rows(family: Any) -> Iterator[tuple[str, Labels, Any]]:
    """Yield core's form of one merged family: (name, label values, number or histogram cells)."""
    metric = METRICS[family.name]
    if metric.type != "histogram":
        for sample in family.samples:
            if sample.value != _GONE:
                yield metric.name, _values(metric.labels, sample.labels), sample.value
        return
    bounds = {bound: index for index, bound in enumerate((*metric.buckets, math.inf))}
    series: dict[Labels, list[float]] = {}
    for sample in family.samples:
        cells = series.setdefault(_values(metric.labels, sample.labels), [0] * (len(bounds) + 1))
        if sample.name.endswith("_bucket"):
            cells[bounds[float(sample.labels["le"])]] = int(sample.value)
        elif sample.name.endswith("_sum"):
            cells[-1] = sample.value
    for labels, cells in series.items():
        yield metric.name, labels, cells


def _values(names: Labels, labels: dict[str, str]) -> Labels:
    return tuple(labels[name] for name in names)


def _files(folder: str) -> list[str]:
    return glob.glob(os.path.join(glob.escape(folder), "*.db"))


def forget_dead(folder: str) -> None:
    """Drop the live gauges of processes that are no more; their counts stay."""
    from prometheus_client import multiprocess

    mark_dead: Callable[..., None] = multiprocess.mark_process_dead
    for pid in {int(path.rpartition("_")[2].removesuffix(".db")) for path in _files(folder)}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_dead(pid, folder)
        except PermissionError:
            continue


def write_line(line: str) -> None:
    """Write one line to stderr in one call, so that lines of several processes do not mix."""
    sys.stderr.write(line)
    sys.stderr.flush()


class LineHandler(logging.Handler):
    """Writes the records of the logging module as the same JSON lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        line = MemoryTelemetry(write_line, clock=lambda: record.created)
        line.log("library", record.levelname.lower(), logger=record.name, message=record.getMessage())
