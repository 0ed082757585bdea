"""Log records and metrics as Application Insights gets them."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace.propagation import tracecontext  # noqa: F401 - loads what an exporter would have loaded

from handlers_azure.telemetry import FunctionTelemetry, summed

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def telemetry(caplog: pytest.LogCaptureFixture) -> FunctionTelemetry:
    caplog.set_level(logging.INFO)
    return FunctionTelemetry(clock=lambda: 12.5)


def context(parent: str = f"00-{TRACE}-{SPAN}-01") -> Any:
    return SimpleNamespace(invocation_id="i-1", trace_context=SimpleNamespace(trace_parent=parent, trace_state=""))


def records(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return list(caplog.records)


def test_a_record_is_a_line_of_json_with_flat_dimensions(
    telemetry: FunctionTelemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.log("request", "warning", status=404, endpoint="/predict", ms=1.5, ok=False, none=None)
    (record,) = records(caplog)
    assert (record.name, record.levelname, record.event, record.status) == ("polysky", "WARNING", "request", 404)
    assert (record.endpoint, record.ms, record.ok, record.none) == ("/predict", 1.5, False, None)
    assert json.loads(record.getMessage()) == {
        "ts": 12.5,
        "level": "warning",
        "event": "request",
        "status": 404,
        "endpoint": "/predict",
        "ms": 1.5,
        "ok": False,
        "none": None,
    }


def test_fields_named_like_a_record_s_own_do_not_break_logging(
    telemetry: FunctionTelemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.log("x", name="n", message="m %s", args=[1], module="o")
    (record,) = records(caplog)
    assert (record.name_, record.message_, record.args_, record.module_) == ("n", "m %s", "[1]", "o")


def test_what_is_logged_in_an_invocation_carries_its_trace_and_nothing_after_it_does(
    telemetry: FunctionTelemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with telemetry.invocation(context()):
        telemetry.log("inside")
        current = trace.get_current_span().get_span_context()
    telemetry.log("outside")
    inside, outside = records(caplog)
    assert (inside.trace_id, inside.span_id, inside.invocation_id) == (TRACE, SPAN, "i-1")
    assert not hasattr(outside, "trace_id")
    assert (f"{current.trace_id:032x}", f"{current.span_id:016x}") == (TRACE, SPAN)
    assert trace.get_current_span().get_span_context().trace_id == 0


@pytest.mark.parametrize("parent", ["", "00-short-b7ad6b7169203331-01", "garbage", "00--"])
def test_a_damaged_traceparent_is_left_out(
    telemetry: FunctionTelemetry, caplog: pytest.LogCaptureFixture, parent: str
) -> None:
    with telemetry.invocation(context(parent)):
        telemetry.log("inside")
    assert not hasattr(records(caplog)[0], "trace_id")


def test_the_numbers_of_an_invocation_follow_as_one_record_also_after_an_error(
    telemetry: FunctionTelemetry, caplog: pytest.LogCaptureFixture
) -> None:
    def invoke() -> None:
        with telemetry.invocation(context()):
            telemetry.count("app_request_count", ("POST", "/predict", "200"))
            telemetry.observe("model_confidence", 0.5, ("spam",))
            telemetry.observe("model_confidence", 0.75, ("spam",))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        invoke()
    with telemetry.invocation(context()):
        pass
    (record,) = records(caplog)
    assert (record.event, record.trace_id) == ("metrics", TRACE)
    assert json.loads(record.metrics) == json.loads(record.getMessage())["metrics"]
    assert json.loads(record.metrics)[1] == {
        "name": "model_confidence",
        "dimensions": {"model": "spam"},
        "sum": 1.25,
        "count": 2,
        "min": 0.5,
        "max": 0.75,
    }


def test_of_a_gauge_only_the_last_number_counts() -> None:
    (entry,) = summed([("app_active_requests", (), 1.0), ("app_active_requests", (), 0.0)])
    assert (entry["sum"], entry["count"], entry["max"]) == (0.0, 1, 0.0)


def test_many_classes_fit_into_the_message_whole(
    telemetry: FunctionTelemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with telemetry.invocation(context()):
        for index in range(500):
            telemetry.count("model_prediction_count", ("spam", f"class-{index}"))
    (record,) = records(caplog)
    assert len(json.loads(record.getMessage())["metrics"]) == 500
    assert len(record.metrics) <= 8192
