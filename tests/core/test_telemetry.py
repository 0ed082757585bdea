"""The metric registry and the log: what Prometheus reads, and what no input can break."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.telemetry import MAX_SERIES, MAX_WAITING, METRICS, OTHER, MemoryTelemetry, render, resident_bytes
from tests.core.house import Clock


def made() -> tuple[MemoryTelemetry, list[str]]:
    lines: list[str] = []
    return MemoryTelemetry(lines.append, clock=Clock(12.3456)), lines


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what the reference parser reads; it adds `_total` to the names of counters."""
    return {
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_the_names_that_the_documents_promise_are_in_the_table() -> None:
    promised = {
        "app_request_count": "counter",
        "app_request_latency_seconds": "histogram",
        "app_preprocessing_latency_seconds": "histogram",
        "app_inference_latency_seconds": "histogram",
        "app_input_length_words": "histogram",
        "model_prediction_count": "counter",
        "app_errors_by_endpoint": "counter",
        "model_accuracy": "gauge",
        "model_confidence": "histogram",
        "model_loaded": "gauge",
        "app_active_requests": "gauge",
        "retraining_events_count": "counter",
        "process_resident_memory_bytes": "gauge",
    }
    assert {name: METRICS[name].type for name in promised} == promised
    assert METRICS["app_request_count"].labels[:2] == ("method", "endpoint")
    assert 0.5 in METRICS["app_request_latency_seconds"].buckets  # the alert of document 004


def test_every_metric_of_the_table_is_read_by_the_reference_parser() -> None:
    telemetry, _ = made()
    for metric in METRICS.values():
        labels = tuple("x" for _ in metric.labels)
        if metric.type == "counter":
            telemetry.count(metric.name, labels, 2)
        elif metric.type == "gauge":
            telemetry.gauge(metric.name, 1.5, labels)
        else:
            telemetry.observe(metric.name, 0.5, labels)
    text = telemetry.exposition().decode()
    families = list(text_string_to_metric_families(text))
    assert {family.name for family in families} == set(METRICS)
    assert all(f"\n{name}{{" in text or f"\n{name} " in text or f"\n{name}_bucket" in text for name in METRICS)
    assert all(family.type == METRICS[family.name].type for family in families)
    assert all(family.documentation == METRICS[family.name].help for family in families)


def test_histogram_buckets_are_cumulative_and_bounds_are_inclusive() -> None:
    telemetry, _ = made()
    for words in (1, 2, 2, 3, 5001):
        telemetry.observe("app_input_length_words", words, ("m",))
    found = samples(telemetry.exposition())
    model = ("model", "m")
    assert found["app_input_length_words_bucket", (("le", "1"), model)] == 1
    assert found["app_input_length_words_bucket", (("le", "2"), model)] == 3
    assert found["app_input_length_words_bucket", (("le", "5000"), model)] == 4
    assert found["app_input_length_words_bucket", (("le", "+Inf"), model)] == 5
    assert found["app_input_length_words_sum", (model,)] == 5009
    assert found["app_input_length_words_count", (model,)] == 5


def test_label_values_are_escaped() -> None:
    telemetry, _ = made()
    odd = 'a"b\\c\nd'
    telemetry.count("model_prediction_count", ("m", odd))
    assert samples(telemetry.exposition())["model_prediction_count", (("class", odd), ("model", "m"))] == 1


def test_a_label_that_is_no_unicode_does_not_take_the_metrics_away() -> None:
    telemetry = MemoryTelemetry(lambda line: None, clock=lambda: 0.0)
    telemetry.count("model_prediction_count", ("m", "a\ud800"))
    assert samples(telemetry.exposition())["model_prediction_count", (("class", "a?"), ("model", "m"))] == 1


def test_series_of_one_metric_are_bounded_and_the_rest_is_counted_together() -> None:
    telemetry, _ = made()
    for number in range(MAX_SERIES + 50):
        telemetry.count("model_prediction_count", ("m", str(number)))
        telemetry.observe("model_confidence", 0.5, (str(number),))
        telemetry.gauge("model_loaded", 1.0, ("m", "production", str(number)))
    found = samples(telemetry.exposition())
    counted = [key for key in found if key[0] == "model_prediction_count"]
    assert len(counted) == MAX_SERIES + 1
    assert found["model_prediction_count", (("class", OTHER), ("model", OTHER))] == 50
    assert found["model_confidence_count", (("model", OTHER),)] == 50


def test_a_gauge_that_was_taken_away_is_gone_and_leaves_room() -> None:
    telemetry, _ = made()
    for number in range(MAX_SERIES + 5):
        labels = ("m", "production", str(number))
        telemetry.gauge("model_loaded", 1.0, labels)
        telemetry.gauge("model_loaded", None, labels)
    telemetry.gauge("model_loaded", None, ("m", "never", "there"))
    assert b"model_loaded" not in telemetry.exposition()


def test_a_wrong_number_of_labels_is_refused() -> None:
    telemetry, _ = made()
    telemetry.count("app_request_count", ("GET",))
    with pytest.raises(KeyError, match="takes 3 labels"):
        telemetry.exposition()
    assert b"app_request_count" not in telemetry.exposition()


def test_many_requests_are_added_up_before_anybody_asks() -> None:
    telemetry, _ = made()
    for _ in range(10 * MAX_WAITING + 1):
        telemetry.record([("auth_failures_count", ("none",), 1.0)])
    assert len(telemetry._waiting) == 1
    assert ("auth_failures_count", ("none",), 10 * MAX_WAITING + 1.0) in telemetry.snapshot()


def test_counts_of_many_threads_add_up() -> None:
    telemetry, _ = made()

    def work() -> None:
        for _ in range(2000):
            telemetry.count("auth_failures_count", ("none",))
            telemetry.observe("model_confidence", 0.25, ("m",))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(telemetry.exposition())
    assert found["auth_failures_count", (("reason", "none"),)] == 16_000
    assert found["model_confidence_sum", (("model", "m"),)] == 4000.0


def test_processes_are_summed_but_for_states() -> None:
    one, two = made()[0], made()[0]
    for telemetry, amount in ((one, 2.0), (two, 3.0)):
        telemetry.count("app_request_count", ("GET", "/health", "200"), amount)
        telemetry.observe("app_request_latency_seconds", amount / 1000, ("/health",))
        telemetry.gauge("app_active_requests", amount)
        telemetry.gauge("model_loaded", 1.0, ("m", "production", "v-1"))
    over_the_wire = json.loads(json.dumps([one.snapshot(), two.snapshot()]))
    found = samples(render(over_the_wire))
    get = (("endpoint", "/health"), ("method", "GET"), ("status", "200"))
    assert found["app_request_count", get] == 5
    assert found["app_request_latency_seconds_count", (("endpoint", "/health"),)] == 2
    assert found["app_request_latency_seconds_sum", (("endpoint", "/health"),)] == pytest.approx(0.005)
    assert found["app_active_requests", ()] == 5
    assert found["model_loaded", (("alias", "production"), ("model", "m"), ("version", "v-1"))] == 1


def test_memory_is_told_where_the_system_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resident_bytes() > 1 << 20

    def refuse(*_: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    assert resident_bytes() == 0
    assert b"process_resident" not in made()[0].exposition()


@pytest.mark.parametrize("odd", ["a\r\nb", "\x1b[31mred", "a\u2028b\u2029c\x85d", "\x00", '"}{"', "x" * 100_000])
def test_a_log_line_is_one_line_of_ascii_json_whatever_is_logged(odd: str) -> None:
    telemetry, lines = made()
    telemetry.log("request", "warning", text=odd, number=1.5, flag=True, nothing=None, other=[odd])
    assert len(lines) == 1
    assert lines[0].endswith("\n")
    assert lines[0][:-1].isascii()
    assert lines[0][:-1].isprintable()
    line = json.loads(lines[0])
    assert (line["ts"], line["level"], line["event"]) == (12.346, "warning", "request")
    assert (line["number"], line["flag"], line["nothing"]) == (1.5, True, None)
    assert line["text"] == odd[:256]
    assert len(line["other"]) <= 256
