"""What a function writes: lines as Powertools' Logger writes them, numbers in the Embedded Metric Format."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from handlers_aws.telemetry import (
    MAX_DIMENSION_VALUES,
    MAX_DOCUMENTS,
    MAX_VALUES,
    LambdaTelemetry,
    PowertoolsTelemetry,
    write_line,
)
from tests.aws.recorded import Context, event

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
UNITS = {"Seconds", "Bytes", "Count", "None"}
Written = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Written:
    """What was written to stdout, each line decoded."""
    monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
    return lambda: [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def direct() -> LambdaTelemetry:
    return LambdaTelemetry(write_line, clock=lambda: 1_795_248_000.25)


@pytest.fixture
def powertools(monkeypatch: pytest.MonkeyPatch) -> PowertoolsTelemetry:
    """Powertools as a new process has it: it keeps a logger and the cold start for the whole process."""
    import aws_lambda_powertools.logging.logger as module

    logging.Logger.manager.loggerDict.pop("polysky", None)
    monkeypatch.setattr(module, "is_cold_start", True)
    return PowertoolsTelemetry(write_line, clock=lambda: 1_795_248_000.25)


@pytest.fixture(params=["direct", "powertools"])
def telemetry(request: pytest.FixtureRequest) -> LambdaTelemetry:
    found: LambdaTelemetry = request.getfixturevalue(request.param)
    return found


def serve(telemetry: LambdaTelemetry, found: Any = None) -> None:
    """Have the telemetry see one invocation that predicts."""

    def handler(_: Any, __: Any) -> str:
        telemetry.log("request", request_id="r1", status=200, ms=0.5, text="é" * 1000)
        telemetry.record(
            [
                ("app_request_count", ("POST", "/predict", "200"), 1.0),
                ("app_request_latency_seconds", ("/predict",), 0.002),
                ("model_prediction_count", ("mood", "glad"), 2.0),
                ("model_prediction_count", ("mood", "glad"), 1.0),
                ("model_confidence", ("mood",), 0.75),
                ("model_confidence", ("mood",), 0.5),
            ]
        )
        telemetry.gauge("jobs_count", 3.0, ("mood", "running"))
        telemetry.gauge("jobs_count", 4.0, ("mood", "running"))
        telemetry.gauge("model_loaded", 1.0, ("mood", "production", "v-0123456789ab"))
        telemetry.gauge("app_uptime_seconds", 5.0)
        return "done"

    assert telemetry.instrument(handler)(event("http_api") if found is None else found, Context()) == "done"


def lines(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in found if "_aws" not in line]


def metrics(
    found: list[dict[str, Any]],
) -> Iterator[tuple[str, str, frozenset[tuple[str, str]], tuple[float, ...]]]:
    """Yield what CloudWatch makes of the documents among the lines: name, unit, dimensions and values."""
    for document in (line for line in found if "_aws" in line):
        about = document["_aws"]
        assert isinstance(about["Timestamp"], int)
        for directive in about["CloudWatchMetrics"]:
            assert directive["Namespace"] == "Polysky"
            assert len(directive["Metrics"]) <= 100
            for names in directive["Dimensions"]:
                assert len(names) <= 30
                dimensions = frozenset((name, document[name]) for name in names)
                assert all(isinstance(text, str) and text.isascii() and text.strip() for _, text in dimensions)
                for metric in directive["Metrics"]:
                    values = document[metric["Name"]]
                    values = values if isinstance(values, list) else [values]
                    assert 1 <= len(values) <= 100
                    yield metric["Name"], metric["Unit"], dimensions, tuple(values)


@pytest.mark.parametrize("kind", [LambdaTelemetry, PowertoolsTelemetry])
def test_two_stacks_of_an_account_tell_by_names_of_their_own(
    kind: type[LambdaTelemetry], written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", 'polysky-"next"')
    serve(kind(write_line, clock=lambda: 1_795_248_000.25))
    found = written()
    assert {line["service"] for line in lines(found)} == {'polysky-"next"'}
    dimensions = {dict(one)["service"] for _, _, one, _ in metrics(found)}
    assert dimensions == {'polysky-"next"'}


def test_a_line_has_the_fields_by_which_cloudwatch_is_searched(
    telemetry: LambdaTelemetry, written: Written
) -> None:
    serve(telemetry)
    serve(telemetry, {"id": "53dc4d37"})
    first, second = lines(written())
    assert first["timestamp"][10:].count(":") == 2
    assert first["timestamp"].endswith("+0000")
    for name in ("timestamp", "location"):
        assert first.pop(name)
    assert first == {
        "level": "INFO",
        "message": "request",
        "service": "polysky",
        "cold_start": True,
        "function_name": "polysky-http",
        "function_memory_size": "1769",
        "function_arn": Context.invoked_function_arn,
        "function_request_id": Context.aws_request_id,
        "correlation_id": "UXyzAbCdEfGhIjk=",
        "xray_trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        "event": "request",
        "request_id": "r1",
        "status": 200,
        "ms": 0.5,
        "text": "é" * 256,
    }
    assert (second["cold_start"], second["correlation_id"]) == (False, "53dc4d37")


def test_both_forms_have_the_same_fields(
    direct: LambdaTelemetry, powertools: PowertoolsTelemetry, written: Written
) -> None:
    serve(direct)
    one = written()
    serve(powertools)
    other = written()
    assert sorted(lines(one)[0]) == sorted(lines(other)[0])
    assert (
        lines(one)[0]["location"].partition(":")[0] == lines(other)[0]["location"].partition(":")[0] == "handler"
    )


def test_both_forms_are_the_same_metrics_to_cloudwatch(
    direct: LambdaTelemetry, powertools: PowertoolsTelemetry, written: Written
) -> None:
    serve(direct)
    one = set(metrics(written()))
    serve(powertools)
    assert one == set(metrics(written()))
    service = ("service", "polysky")
    assert one == {
        (
            "app_request_count",
            "Count",
            frozenset({service, ("method", "POST"), ("endpoint", "/predict"), ("status", "200")}),
            (1.0,),
        ),
        ("app_request_latency_seconds", "Seconds", frozenset({service, ("endpoint", "/predict")}), (0.002,)),
        ("model_prediction_count", "Count", frozenset({service, ("model", "mood"), ("class", "glad")}), (3.0,)),
        ("model_confidence", "None", frozenset({service, ("model", "mood")}), (0.75, 0.5)),
        ("jobs_count", "None", frozenset({service, ("model", "mood"), ("status", "running")}), (4.0,)),
        ("model_loaded", "None", frozenset({service, ("model", "mood"), ("alias", "production")}), (1.0,)),
    }


def test_one_document_holds_what_one_prediction_counts(direct: LambdaTelemetry, written: Written) -> None:
    def handler(_: Any, __: Any) -> None:
        direct.count("app_request_count", ("POST", "/predict", "200"))
        direct.observe("app_request_latency_seconds", 0.002, ("/predict",))
        direct.count("model_prediction_count", ("mood", "glad"))

    direct.instrument(handler)({}, Context())
    assert len(written()) == 1
    direct.instrument(lambda *_: None)({}, Context())
    assert written() == []


def test_a_batch_is_written_whole_in_pieces(telemetry: LambdaTelemetry, written: Written) -> None:
    shares = [n / 1024 for n in range(1024)]
    telemetry.record([("model_confidence", ("mood",), share) for share in shares])
    for label in "abc":
        telemetry.count("model_prediction_count", ("mood", label), 5.0)
    telemetry.instrument(lambda *_: None)({}, Context())
    found = list(metrics(written()))
    assert [value for name, _, _, values in found if name == "model_confidence" for value in values] == shares
    counts = {dict(dims)["class"]: values for name, _, dims, values in found if name == "model_prediction_count"}
    assert counts == {"a": (5.0,), "b": (5.0,), "c": (5.0,)}


def test_documents_are_bounded_in_number(direct: LambdaTelemetry, written: Written) -> None:
    direct.record([("model_confidence", ("mood",), 0.5)] * (MAX_VALUES * (MAX_DOCUMENTS + 5)))
    direct.instrument(lambda *_: None)({}, Context())
    assert len(written()) == MAX_DOCUMENTS


def test_dimensions_are_bounded_and_of_a_form_that_cloudwatch_takes(
    telemetry: LambdaTelemetry, written: Written
) -> None:
    many = [f"class-{n}" for n in range(MAX_DIMENSION_VALUES - 3)]
    for label in ["", "glücklich", "\n", *many, "one more", "and more"]:
        telemetry.count("model_prediction_count", ("mood", label))
        telemetry.instrument(lambda *_: None)({}, Context())
    found = [dict(dimensions)["class"] for *_, dimensions, _ in metrics(written())]
    assert found[:3] == ['""', '"gl\\u00fccklich"', '"\\n"']
    assert found[3:] == [*many, "_other", "_other"]


def test_what_is_no_number_is_no_metric(telemetry: LambdaTelemetry, written: Written) -> None:
    for value in (math.nan, math.inf, -math.inf):
        telemetry.gauge("model_accuracy", value, ("mood",))
    telemetry.instrument(lambda *_: None)({}, Context())
    assert written() == []


def test_a_handler_that_fails_still_has_its_numbers_written(telemetry: LambdaTelemetry, written: Written) -> None:
    def handler(_: Any, __: Any) -> None:
        telemetry.count("retraining_events_count", ("mood", "unavailable"))
        raise OSError("x")

    with pytest.raises(OSError, match="x"):
        telemetry.instrument(handler)({}, Context())
    assert [name for name, *_ in metrics(written())] == ["retraining_events_count"]


def test_lines_before_an_invocation_belong_to_none(telemetry: LambdaTelemetry, written: Written) -> None:
    telemetry.log("model_loaded", "warning", model="mood")
    serve(telemetry)
    first, second = lines(written())
    assert (first["level"], first["message"], first["model"]) == ("WARNING", "model_loaded", "mood")
    assert not {"function_request_id", "cold_start", "correlation_id"} & set(first)
    assert second["cold_start"] is True


def test_facts_with_names_of_the_loggers_own_break_nothing(
    powertools: PowertoolsTelemetry, written: Written
) -> None:
    powertools.log("alert", "error", name="n", module="m", args=(1,), message="text")
    (line,) = written()
    assert (line["message"], line["name_"], line["message_"]) == ("alert", "n", "text")


def test_a_warning_tells_why_an_event_was_dropped(telemetry: LambdaTelemetry, written: Written) -> None:
    telemetry.warn("malformed event")
    (line,) = written()
    assert (line["level"], line["message"], line["reason"]) == ("WARNING", "event_dropped", "malformed event")


def test_text_of_strangers_cannot_forge_a_line(telemetry: LambdaTelemetry, written: Written) -> None:
    telemetry.log("event_ignored", key='x\n{"level": "INFO"}\u2028\x1b[31m')
    (line,) = written()
    assert line["key"] == 'x\n{"level": "INFO"}\u2028\x1b[31m'


def test_every_unit_is_one_of_cloudwatchs(direct: LambdaTelemetry, written: Written) -> None:
    from core.telemetry import METRICS

    for metric in METRICS.values():
        labels = tuple("x" for _ in metric.labels)
        (direct.gauge if metric.type == "gauge" else direct.observe)(metric.name, 1.0, labels)
    direct.instrument(lambda *_: None)({}, Context())
    found = {name: unit for name, unit, *_ in metrics(written())}
    assert set(found.values()) <= UNITS
    assert (found["app_request_latency_seconds"], found["app_request_count"]) == ("Seconds", "Count")
    assert not {"app_active_requests", "process_resident_memory_bytes"} & set(found)
