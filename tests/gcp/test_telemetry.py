"""Log lines and metrics as Cloud Logging reads them."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from core.telemetry import MAX_FIELD_CHARS, METRICS
from handlers_gcp.telemetry import MAX_LINES, CloudTelemetry, correlation, metric_lines, timestamp, write_line

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NOW = 1_795_247_607.25
FIELD = "logging.googleapis.com/"


def made(lines: list[str], **env: str) -> CloudTelemetry:
    return CloudTelemetry(lines.append, clock=lambda: NOW, env=env)


def only(lines: list[str]) -> Any:
    assert len(lines) == 1
    assert lines[0].endswith("}\n")
    assert lines[0].isascii()
    return json.loads(lines[0])


def fields(headers: dict[str, str], project: str = "p") -> dict[str, Any]:
    found: dict[str, Any] = json.loads('{"x": 0' + correlation(headers, project) + "}")
    return {name.removeprefix(FIELD): value for name, value in found.items() if name != "x"}


def test_a_line_has_the_fields_that_cloud_logging_takes_out() -> None:
    lines: list[str] = []
    made(lines).log("job_failed", "warning", model="mood", attempt=2, reason='a "quoted"\nline')
    line = only(lines)
    assert (line["severity"], line["message"], line["event"]) == ("WARNING", "job_failed", "job_failed")
    assert datetime.fromisoformat(line["time"]) == datetime.fromtimestamp(NOW, UTC)
    assert (line["model"], line["attempt"], line["reason"]) == ("mood", 2, 'a "quoted"\nline')


def test_texts_are_cut_and_no_field_breaks_the_line() -> None:
    lines: list[str] = []
    made(lines).log("x", "error", text="\u2028" * 2 * MAX_FIELD_CHARS, number=float("nan"))
    line = only(lines)
    assert (line["severity"], len(line["text"])) == ("ERROR", MAX_FIELD_CHARS)


def test_a_dropped_event_is_a_warning() -> None:
    lines: list[str] = []
    made(lines).warn("malformed event")
    assert {"severity": "WARNING", "event": "event_dropped", "reason": "malformed event"}.items() <= only(
        lines
    ).items()


def test_traceparent_ties_a_line_to_its_trace() -> None:
    found = fields({"traceparent": f"00-{TRACE}-{SPAN}-01"})
    assert found == {"trace": f"projects/p/traces/{TRACE}", "spanId": SPAN, "trace_sampled": True}
    assert fields({"traceparent": f"00-{TRACE}-{SPAN}-00"})["trace_sampled"] is False
    assert fields({"traceparent": f"00-{TRACE}-{SPAN}-01"}, "")["trace"] == TRACE


def test_so_does_googles_own_header_whose_span_is_decimal() -> None:
    found = fields({"x-cloud-trace-context": f"{TRACE}/{int(SPAN, 16)};o=1"})
    assert found == {"trace": f"projects/p/traces/{TRACE}", "spanId": SPAN, "trace_sampled": True}
    assert fields({"x-cloud-trace-context": TRACE}) == {
        "trace": f"projects/p/traces/{TRACE}",
        "trace_sampled": False,
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "00-zz-yy-01"},
        {"traceparent": f"00-{TRACE}-{SPAN}-01\n"},
        {"x-cloud-trace-context": f'{TRACE}", "severity": "EMERGENCY'},
        {"function-execution-id": 'x", "a": "b'},
        {},
    ],
)
def test_what_is_no_trace_is_left_out(headers: dict[str, str]) -> None:
    assert fields(headers) == {}


def test_lines_of_threads_belong_to_their_own_requests() -> None:
    lines: list[str] = []
    telemetry = made(lines, GOOGLE_CLOUD_PROJECT="p")
    both = threading.Barrier(2)

    def serve(execution: str) -> None:
        with telemetry.request({"function-execution-id": execution}):
            both.wait(5)
            telemetry.log("request", of=execution)
            both.wait(5)

    threads = [threading.Thread(target=serve, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    telemetry.log("request", of="nobody")
    told = {line["of"]: line.get(FIELD + "labels") for line in map(json.loads, lines)}
    assert told == {"one": {"execution_id": "one"}, "two": {"execution_id": "two"}, "nobody": None}


def test_a_request_ends_with_one_line_of_its_numbers() -> None:
    lines: list[str] = []
    telemetry = made(lines)
    with telemetry.request({}):
        telemetry.count("app_request_count", ("POST", "/predict/{model}", "200"))
        telemetry.observe("model_confidence", 0.5, ("mood",))
        telemetry.observe("model_confidence", 0.75, ("mood",))
        telemetry.gauge("model_accuracy", 0.9, ("mood",))
        telemetry.gauge("model_accuracy", 0.8, ("mood",))
        assert lines == []
    line = only(lines)
    assert (line["severity"], line["message"], line["event"]) == ("INFO", "metrics", "metrics")
    assert line["metrics"] == {
        "app_request_count": {
            "value": 1,
            "count": 1,
            "method": "POST",
            "endpoint": "/predict/{model}",
            "status": "200",
        },
        "model_confidence": {"value": 0.625, "count": 2, "model": "mood"},
        "model_accuracy": {"value": 0.8, "count": 2, "model": "mood"},
    }


def test_the_numbers_are_written_though_the_request_fails() -> None:
    lines: list[str] = []
    telemetry = made(lines)

    def fail() -> None:
        with telemetry.request({}):
            telemetry.count("retraining_events_count", ("mood", "done"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert only(lines)["metrics"]["retraining_events_count"]["outcome"] == "done"


def test_each_further_series_of_a_metric_has_a_line_and_there_are_not_many() -> None:
    told = [("model_prediction_count", ("mood", label), 1.0) for label in "aabbb"]
    first, second = metric_lines([*told, ("app_input_length_words", ("mood",), 7.0)])
    assert first["model_prediction_count"] == {"value": 2.0, "count": 2, "model": "mood", "class": "a"}
    assert second == {"model_prediction_count": {"value": 3.0, "count": 3, "model": "mood", "class": "b"}}
    assert first["app_input_length_words"]["value"] == 7.0
    many = [("model_prediction_count", ("mood", str(number)), 1.0) for number in range(1000)]
    assert len(metric_lines(many)) == MAX_LINES


def test_no_label_is_called_as_a_number_is() -> None:
    assert not {"value", "count"} & {label for metric in METRICS.values() for label in metric.labels}


@pytest.mark.parametrize("now", [0.0, 0.9999999, 1e9, NOW, 1_795_247_607.999_999_9])
def test_a_timestamp_is_rfc_3339(now: float) -> None:
    assert datetime.fromisoformat(timestamp(now)).timestamp() == pytest.approx(now, abs=1e-6)


def test_a_line_goes_to_stdout_in_one_piece(capfd: pytest.CaptureFixture[str]) -> None:
    write_line("{}\n")
    assert capfd.readouterr().out == "{}\n"
