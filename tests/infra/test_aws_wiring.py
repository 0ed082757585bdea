"""AWS's stack: what is tied to what, and that alarms and dashboard know what the functions write."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from core.telemetry import METRICS
from core.worker import Outcome
from handlers_aws.telemetry import LambdaTelemetry, PowertoolsTelemetry, write_line
from tests.aws.recorded import Context
from tests.infra import aws_plan
from tests.infra.promises import Promise, Values, broken, spoil

FUNCTIONS = ("predict", "control", "job", "tick")
ACCOUNT, HERE = "123456789012", "eu-west-1:123456789012"
BUCKET = "polysky-prod-123456789012-eu-west-1"
ALARMS = f"arn:aws:sns:{HERE}:polysky-prod-alarms"


def applied(folder: Path, promises: dict[str, Promise] | None = None) -> Values:
    """Return what is planned with every option, with every promise broken that is named."""
    stack = aws_plan.copied(folder)
    spoil(promises or {}, stack)
    return aws_plan.plans(stack)["options"].values()


def function(found: Values, name: str) -> Any:
    """Return a function."""
    return found[f'aws_lambda_function.function["{name}"]']


def alias(name: str) -> str:
    """Return the ARN of what serves of a function."""
    return f"arn:aws:lambda:{HERE}:function:polysky-prod-{name}:live"


def told(found: Values, address: str) -> Any:
    """Return a policy document's only statement."""
    (statement,) = found[f"data.aws_iam_policy_document.{address}"]["statement"]
    return statement


def taken_by(found: Values, role: str) -> Any:
    """Return the service that may take a role."""
    (statement,) = json.loads(found[f"aws_iam_role.{role}"]["assume_role_policy"])["Statement"]
    return statement["Principal"]["Service"]


def permission(found: Values, address: str) -> tuple[Any, ...]:
    """Return who may call which function, and from where."""
    one = found[f"aws_lambda_permission.{address}"]
    assert (one["action"], one["qualifier"]) == ("lambda:InvokeFunction", "live")
    return one["function_name"], one["principal"], one["source_arn"], one["source_account"]


def alarms(found: Values) -> dict[str, Any]:
    """Return the alarms, by name."""
    kept = (one for address, one in found.items() if address.startswith("aws_cloudwatch_metric_alarm."))
    return {one["alarm_name"].removeprefix("polysky-prod-"): one for one in kept}


def source(found: Values, name: str) -> Any:
    """Return where a function's package lies."""
    return function(found, name)["s3_key"]


PROMISES = {
    "each function runs as its own role, which Lambda alone may take": Promise(
        lambda found: (
            all(
                function(found, name)["role"] == f"arn:aws:iam::{ACCOUNT}:role/polysky-prod-{name}"
                and found[f'aws_iam_role_policy.function["{name}"]']["role"] == f"polysky-prod-{name}"
                for name in FUNCTIONS
            )
            and all(taken_by(found, f'function["{name}"]') == "lambda.amazonaws.com" for name in FUNCTIONS)
        ),
        *("functions.tf", "aws_iam_role.function[each.key].arn", 'aws_iam_role.function["tick"].arn'),
    ),
    "who predicts runs the small package, the others the large one": Promise(
        lambda found: (
            [source(found, name).rpartition("/")[2] for name in FUNCTIONS]
            == ["aws-predict.zip", *["aws-train.zip"] * 3]
            and all(function(found, name)["s3_bucket"] == BUCKET for name in FUNCTIONS)
        ),
        *("functions.tf", 'package   = "aws-predict"', 'package   = "aws-train"'),
    ),
    "what serves is a published version": Promise(
        lambda found: all(
            function(found, name)["publish"]
            and (one := found[f'aws_lambda_alias.live["{name}"]'])["name"] == "live"
            and one["function_name"] == f"polysky-prod-{name}"
            for name in FUNCTIONS
        ),
        *("functions.tf", "publish                        = true", "publish                        = false"),
    ),
    "the API asks what serves, in time and in the form that the handlers read": Promise(
        lambda found: all(
            (one := found[f'aws_apigatewayv2_integration.function["{name}"]'])["integration_uri"]
            == found[f'aws_lambda_alias.live["{name}"]']["invoke_arn"]
            and (one["integration_type"], one["payload_format_version"]) == ("AWS_PROXY", "2.0")
            and one["timeout_milliseconds"] >= 1000 * function(found, name)["timeout"]
            for name in ("predict", "control")
        ),
        *("api.tf", 'payload_format_version = "2.0"', 'payload_format_version = "1.0"'),
    ),
    "only this API may call what answers it": Promise(
        lambda found: (
            [permission(found, f'api["{name}"]') for name in ("predict", "control")]
            == [
                (
                    *(f"polysky-prod-{name}", "apigateway.amazonaws.com"),
                    *(f"arn:aws:execute-api:{HERE}:api/*/*", None),
                )
                for name in ("predict", "control")
            ]
        ),
        *(
            "api.tf",
            '"${aws_apigatewayv2_api.http.execution_arn}/*/*"',
            '"${aws_apigatewayv2_api.http.execution_arn}/*"',
        ),
    ),
    "only this bucket may start the job": Promise(
        lambda found: (
            permission(found, "bucket")
            == ("polysky-prod-job", "s3.amazonaws.com", f"arn:aws:s3:::{BUCKET}", ACCOUNT)
        ),
        *("functions.tf", "  source_account = data.aws_caller_identity.here.account_id\n", ""),
    ),
    "the clock may start the tick and nothing else": Promise(
        lambda found: (
            told(found, "tick")["resources"] == [alias("tick")]
            and told(found, "tick")["actions"] == ["lambda:InvokeFunction"]
            and taken_by(found, "scheduler") == "scheduler.amazonaws.com"
            and ACCOUNT in found["aws_iam_role.scheduler"]["assume_role_policy"]
        ),
        *(
            "schedule.tf",
            'resources = [aws_lambda_alias.live["tick"].arn]',
            'resources = [aws_lambda_alias.live["job"].arn]',
        ),
    ),
    "the tick comes on the minute": Promise(
        lambda found: (
            (one := found["aws_scheduler_schedule.tick"])["flexible_time_window"][0]["mode"] == "OFF"
            and one["state"] == "ENABLED"
        ),
        *(
            "schedule.tf",
            'flexible_time_window { mode = "OFF" }',
            'state = "DISABLED"\n  flexible_time_window { mode = "OFF" }',
        ),
    ),
    "tokens come in the header that core reads": Promise(
        lambda found: (
            (one := found["aws_apigatewayv2_authorizer.jwt[0]"])["identity_sources"]
            == ["$request.header.Authorization"]
            and one["authorizer_type"] == "JWT"
        ),
        *("api.tf", "$request.header.Authorization", "$request.querystring.token"),
    ),
    "the API answers at its root, as it is now": Promise(
        lambda found: (
            (one := found["aws_apigatewayv2_stage.default"])["name"] == "$default"
            and one["auto_deploy"]
            and one["default_route_settings"][0]["detailed_metrics_enabled"]
        ),
        *("api.tf", "auto_deploy = true", "auto_deploy = false"),
    ),
    "failed events are encrypted": Promise(
        lambda found: found["aws_sqs_queue.failed"]["sqs_managed_sse_enabled"],
        *("functions.tf", "sqs_managed_sse_enabled   = true", "sqs_managed_sse_enabled   = false"),
    ),
    "a deleted secret can be had again": Promise(
        lambda found: found["aws_secretsmanager_secret.tokens[0]"]["recovery_window_in_days"] == 30,
        *("functions.tf", "var.keep_bucket ? 30 : 0", "0"),
    ),
    "every alarm is told to the topic, and the topic to the operator": Promise(
        lambda found: (
            all(one["alarm_actions"] == [ALARMS] == one["ok_actions"] for one in alarms(found).values())
            and (mail := found["aws_sns_topic_subscription.mail[0]"])["topic_arn"] == ALARMS
            and (mail["protocol"], mail["endpoint"]) == ("email", "night@example.com")
        ),
        *("observability.tf", "topic_arn = aws_sns_topic.alarms.arn", "topic_arn = aws_sqs_queue.failed.arn"),
    ),
    "an alarm on what the platform counts asks for a number that it counts": Promise(
        lambda found: (
            {
                (one["namespace"], one["metric_name"], *one["dimensions"])
                for one in alarms(found).values()
                if one["namespace"].startswith("AWS/")
            }
            == {
                ("AWS/Lambda", "Errors", "FunctionName"),
                ("AWS/Lambda", "Throttles", "FunctionName"),
                ("AWS/Lambda", "Duration", "FunctionName"),
                ("AWS/ApiGateway", "5xx", "ApiId"),
                ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName"),
            }
        ),
        *("observability.tf", 'metric = "5xx"', 'metric = "5XXError"'),  # which is a REST API's
    ),
    "a line that tells nothing counts as nothing": Promise(
        lambda found: all(
            one["metric_transformation"][0]["default_value"] == "0"
            for address, one in found.items()
            if address.startswith("aws_cloudwatch_log_metric_filter.")
        ),
        *("observability.tf", '    default_value = "0"\n', ""),
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """The stack as it is."""
    return applied(tmp_path_factory.mktemp("sound") / "stack")


def test_the_stack_keeps_its_promises(sound: Values) -> None:
    assert broken(PROMISES, sound) == []


def test_each_promise_can_be_broken_by_one_argument(tmp_path: Path) -> None:
    found = applied(tmp_path / "stack", PROMISES)
    assert set(broken(PROMISES, found)) == set(PROMISES)


# -- what the functions write ------------------------------------------------------------------------------

Tell = Callable[[Any], object]


def lines(tell: Tell, capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    """Yield the lines that one invocation leaves in the log, from the telemetry of each of the functions."""
    for telemetry in (LambdaTelemetry, PowertoolsTelemetry):
        logging.Logger.manager.loggerDict.pop("polysky", None)  # Powertools keeps one for the whole process
        one = telemetry(write_line, clock=lambda: 0.0)
        one.instrument(lambda *_, one=one: tell(one))({}, Context())
    yield from map(json.loads, capsys.readouterr().out.splitlines())


def matches(pattern: str, line: dict[str, Any]) -> bool:
    """Return whether CloudWatch finds a line by a pattern, of the kind that ours are."""
    terms = re.fullmatch(r"{ (.*) }", pattern)
    assert terms
    for term in terms[1].split(" && "):
        found = re.fullmatch(r'\$\.(\w+) = "([\w*]+)"', term)
        assert found, term
        if not fnmatchcase(str(line.get(found[1])), found[2]):
            return False
    return True


def raised(found: Values, group: str, line: dict[str, Any]) -> set[str]:
    """Return the alarms that a line in a function's log raises: by way of a metric of the same name."""
    counted = {
        (one["metric_transformation"][0]["namespace"], one["metric_transformation"][0]["name"])
        for address, one in found.items()
        if address.startswith("aws_cloudwatch_log_metric_filter.")
        and one["log_group_name"] == f"/aws/lambda/polysky-prod-{group}"
        and matches(one["pattern"], line)
    }
    return {
        name
        for name, one in alarms(found).items()
        if (one["namespace"], one["metric_name"]) in counted and not one["dimensions"] and one["threshold"] == 0
    }


@pytest.mark.parametrize(
    ("group", "event", "fields", "expected"),
    [
        *[(name, "alert", {"alert": "log_broken", "model": "m"}, {"alerts"}) for name in FUNCTIONS],
        *[
            (name, "alert", {"alert": "drift_data", "model": "m"}, {"alerts", "drift"})
            for name in ("predict", "tick")
        ],
        *[
            (name, "job_outcome", Outcome("parked", "uploads/m/a")._asdict(), {"parked"})
            for name in ("job", "tick")
        ],
        ("job", "job_outcome", Outcome("rejected", "uploads/m/a")._asdict(), set()),
        ("predict", "request", {"status": 500, "endpoint": "/predict"}, set()),
    ],
)
def test_what_a_line_tells_raises_its_alarms_and_no_other(
    sound: Values,
    capsys: pytest.CaptureFixture[str],
    group: str,
    event: str,
    fields: dict[str, Any],
    expected: set[str],
) -> None:
    told = [line for line in lines(lambda one: one.log(event, "error", **fields), capsys) if "_aws" not in line]
    assert len(told) == 2
    for line in told:
        assert raised(sound, group, line) == expected


def told_of(name: str, capsys: pytest.CaptureFixture[str]) -> set[tuple[str, frozenset[str]]]:
    """Return namespace and dimensions under which CloudWatch keeps a metric of ours."""
    labels = tuple(f"some {label}" for label in METRICS[name].labels)

    def tell(one: Any) -> None:
        one.gauge(name, 1.0, labels) if METRICS[name].type == "gauge" else one.record(((name, labels, 1.0),))

    return {
        (directive["Namespace"], frozenset(names))
        for line in lines(tell, capsys)
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", [])
        if name in {metric["Name"] for metric in directive["Metrics"]}
        for names in directive["Dimensions"]
    }


def searches(found: Values) -> list[tuple[str, str, frozenset[str]]]:
    """Return metric, namespace and dimensions of each search of the dashboard."""
    widgets = json.loads(found["aws_cloudwatch_dashboard.polysky"]["dashboard_body"])["widgets"]
    texts = re.findall(
        r"SEARCH\('\{([\w,]+)\} MetricName=\"(\w+)\" service=\"polysky-\w+\"'",
        json.dumps(widgets).replace('\\\\"', '"').replace('\\"', '"'),
    )
    return [(name, place.partition(",")[0], frozenset(place.split(",")[1:])) for place, name in texts]


def test_the_dashboard_searches_for_metrics_as_the_functions_tell_them(
    sound: Values, capsys: pytest.CaptureFixture[str]
) -> None:
    found = searches(sound)
    assert len(found) == 3
    for name, namespace, dimensions in found:
        assert told_of(name, capsys) == {(namespace, dimensions)}, name


def test_the_dashboard_shows_every_metric_that_lines_are_counted_by(sound: Values) -> None:
    body = sound["aws_cloudwatch_dashboard.polysky"]["dashboard_body"]
    shown = {
        tuple(one)
        for widget in json.loads(body)["widgets"]
        for one in widget["properties"]["metrics"]
        if len(one) == 2
    }
    counted = {
        (told["namespace"], told["name"])
        for address, one in sound.items()
        if address.startswith("aws_cloudwatch_log_metric_filter.")
        for told in one["metric_transformation"]
    }
    assert counted == shown
