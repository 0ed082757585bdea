"""Metrics of several processes in one exposition: run in processes of their own, as a server's workers are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import sys
from handlers_onprem.telemetry import SharedTelemetry, write_line
telemetry = SharedTelemetry(write_line, sys.argv[1], clock=lambda: 12.0)
{body}
sys.stdout.buffer.write(telemetry.exposition())
"""


def run(folder: Path, body: str) -> tuple[str, str]:
    """Return (exposition, stderr) of a fresh process that does `body`."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER.format(body=body), str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples by (name, labels). prometheus_client's own parser renames counters, so not that one."""
    found = re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    pairs = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
    return {(name, tuple(sorted(pairs.findall(labels)))): float(value) for name, labels, value in found}


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two processes that ended, and a third that tells."""
    folder = tmp_path_factory.mktemp("metrics")
    first = """
telemetry.count("app_request_count", ("POST", "/predict", "200"), 2)
telemetry.observe("app_request_latency_seconds", 0.003, ("/predict",))
telemetry.gauge("app_active_requests", 5)
telemetry.gauge("model_accuracy", 0.5, ("iris",))
"""
    second = """
telemetry.count("app_request_count", ("POST", "/predict", "200"))
telemetry.observe("app_request_latency_seconds", 0.003, ("/predict",))
telemetry.observe("app_request_latency_seconds", 70.0, ("/predict",))
"""
    third = """
telemetry.gauge("app_active_requests", 1)
telemetry.gauge("model_loaded", 1, ("iris", "production", "v-1"))
telemetry.gauge("model_loaded", None, ("iris", "production", "v-1"))
telemetry.gauge("model_loaded", 1, ("iris", "production", "v-2"))
telemetry.count("retraining_events_count", ('a"b\\n', "promoted"))
"""
    for body in (first, second):
        run(folder, body)
    return run(folder, third)[0]


def test_counts_of_ended_processes_stay_in_the_total(exposition: str) -> None:
    labels = (("endpoint", "/predict"), ("method", "POST"), ("status", "200"))
    assert samples(exposition)[("app_request_count", labels)] == 3


def test_histograms_are_summed_and_cumulative(exposition: str) -> None:
    found = samples(exposition)
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name == "app_request_latency_seconds_bucket"
    }
    assert (buckets[0.0025], buckets[0.005], buckets[10.0], buckets[float("inf")]) == (0, 2, 2, 3)
    assert found[("app_request_latency_seconds_count", (("endpoint", "/predict"),))] == 3
    assert found[("app_request_latency_seconds_sum", (("endpoint", "/predict"),))] == pytest.approx(70.006)


def test_live_gauges_of_ended_processes_are_forgotten(exposition: str) -> None:
    found = samples(exposition)
    assert found[("app_active_requests", ())] == 1
    assert not any(name == "model_accuracy" for name, _ in found)


def test_a_gauge_that_was_taken_away_is_not_shown(exposition: str) -> None:
    versions = {dict(labels)["version"] for name, labels in samples(exposition) if name == "model_loaded"}
    assert versions == {"v-2"}


def test_counter_names_are_exactly_those_of_the_table(exposition: str) -> None:
    assert "# TYPE app_request_count counter\n" in exposition
    assert "_total" not in exposition
    assert "_created" not in exposition
    assert 'retraining_events_count{model="a\\"b\\n",outcome="promoted"} 1' in exposition


def test_the_memory_of_the_process_is_told(exposition: str) -> None:
    assert samples(exposition)[("process_resident_memory_bytes", ())] > 1_000_000


def test_series_are_bounded_and_the_rest_is_counted_as_other(tmp_path: Path) -> None:
    body = """
for i in range(1200):
    telemetry.count("auth_failures_count", (str(i),))
"""
    found = samples(run(tmp_path, body)[0])
    assert len(found) == 1001 + 1  # with the memory gauge
    assert found[("auth_failures_count", (("reason", "_other"),))] == 200


def test_log_lines_are_json_on_stderr(tmp_path: Path) -> None:
    _, err = run(tmp_path, "telemetry.log('started', level='warning', text='a\\nb', n=3)")
    assert json.loads(err) == {"ts": 12.0, "level": "warning", "event": "started", "text": "a\nb", "n": 3}
    assert err.count("\n") == 1
