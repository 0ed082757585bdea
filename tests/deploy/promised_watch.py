"""What AWS's stack promises of its API and of what is watched, each with the one argument that breaks it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.deploy.account import FUNCTIONS
from tests.deploy.promised_work import alias
from tests.infra.promises import Promise, Values
from tests.infra.terraform import INFRA

ALERT, DRIFT = '{ $.event = "alert" }', '{ $.event = "alert" && $.alert = "drift*" }'
PARKED = '{ $.event = "job_outcome" && $.status = "parked" }'
ROUTES = json.loads((INFRA / "aws" / "terraform" / "routes.json").read_text())
ACCESS_LOG = {
    **{"request_id": "$context.requestId", "route": "$context.routeKey", "status": "$context.status"},
    **{"ms": "$context.responseLatency", "error": "$context.error.message", "ip": "$context.identity.sourceIp"},
}


def _topic(found: Values) -> str:
    return f"arn:aws:sns:{found['here']}:{found['name']}-alarms"


def _routes(found: Values) -> dict[str, tuple[str, str, bool]]:
    """Return of each route the alias that answers, how tokens are checked, and whether an authorizer does so."""
    api = found["api"]
    return {
        key: (
            api["integrations"][one["Target"].removeprefix("integrations/")]["IntegrationUri"],
            *(one["AuthorizationType"], bool(one.get("AuthorizerId"))),
        )
        for key, one in api["routes"].items()
    }


def _expected_routes(found: Values) -> dict[str, tuple[str, str, bool]]:
    invoke = f"arn:aws:apigateway:{found['here'].partition(':')[0]}:lambda:path/2015-03-31/functions"
    guarded = found["told"]["jwt"] is not None
    return {
        key: (
            f"{invoke}/{alias(found, one['function'])}/invocations",
            *(("JWT", True) if guarded and not one["public"] else ("NONE", False)),
        )
        for key, one in ROUTES.items()
    }


def _alarm(one: Mapping[str, Any]) -> tuple[Any, ...]:
    statistic = one.get("Statistic") or one.get("ExtendedStatistic")
    dimensions = {each["Name"]: each["Value"] for each in one["Dimensions"]}
    return one["Namespace"], one["MetricName"], statistic, dimensions, one["EvaluationPeriods"], one["Threshold"]


def _expected_alarms(found: Values) -> dict[str, tuple[Any, ...]]:
    name, queue = found["name"], "ApproximateNumberOfMessagesVisible"
    predict = {"FunctionName": f"{name}-predict"}
    return {
        **{
            f"errors-{one}": ("AWS/Lambda", "Errors", "Sum", {"FunctionName": f"{name}-{one}"}, 1, 0)
            for one in FUNCTIONS
        },
        **{one: (name, one, "Sum", {}, 1, 0) for one in ("alerts", "parked", "drift")},
        "throttled": ("AWS/Lambda", "Throttles", "Sum", predict, 3, 0),
        "server-errors": ("AWS/ApiGateway", "5xx", "Sum", {"ApiId": found["api"]["id"]}, 1, 5),
        "failed-events": ("AWS/SQS", queue, "Maximum", {"QueueName": f"{name}-failed"}, 1, 0),
        "slow": ("AWS/Lambda", "Duration", "p99", predict, 5, 500),
    }


def _widget(one: Mapping[str, Any]) -> tuple[Any, ...]:
    told = one["properties"]
    return told["stat"], told["period"], told["region"], told["view"], len(told["metrics"])


def _shown(found: Values) -> str:
    """Return all that the dashboard draws."""
    return json.dumps([one["properties"]["metrics"] for one in found["widgets"].values()])


def _drawn(found: Values) -> set[str]:
    """Return what the dashboard must name: the API, all functions, the queue, our own metrics under our name."""
    name = found["name"]
    ours = ("model_prediction_count", "model_confidence", "retraining_events_count")
    return {
        *(f'"{found["api"]["id"]}"', f'"{name}-failed"', *(f'"{name}-{one}"' for one in FUNCTIONS)),
        *(f'["{name}", "{one}"]' for one in ("alerts", "parked", "drift")),
        *(json.dumps(f'MetricName="{one}" service="{name}"')[1:-1] for one in ours),
    }


PROMISES = {
    "every route of the table is answered by its function, and guarded unless it is public": Promise(
        lambda found: _routes(found) == _expected_routes(found),
        *("api.tf", "integration.function[each.value.function].id", 'integration.function["predict"].id'),
    ),
    "the API waits as long as a function may take, and speaks its form": Promise(
        lambda found: (
            [
                (one["IntegrationType"], one["PayloadFormatVersion"], one["TimeoutInMillis"])
                for one in found["api"]["integrations"].values()
            ]
            == [("AWS_PROXY", "2.0", 30000)] * 2
        ),
        *("api.tf", "timeout_milliseconds   = 30000", "timeout_milliseconds   = 3000"),
    ),
    "tokens of the issuer told are asked for, in the header": Promise(
        lambda found: (
            [
                (one["AuthorizerType"], list(one["IdentitySource"]), one["JwtConfiguration"])
                for one in found["api"]["authorizers"]
            ]
            == [
                (
                    "JWT",
                    ["$request.header.Authorization"],
                    {"Issuer": told["issuer"], "Audience": told["audience"]},
                )
                for told in [found["told"]["jwt"]]
                if told
            ]
        ),
        *("api.tf", "$request.header.Authorization", "$request.querystring.token"),
    ),
    "the API answers at its root, no faster than told": Promise(
        lambda found: (
            ((one := found["api"]["stage"])["StageName"], one["AutoDeploy"]) == ("$default", True)
            and one["DefaultRouteSettings"]
            == {
                **{"DetailedMetricsEnabled": True, "ThrottlingRateLimit": found["told"]["throttle"]["rate"]},
                "ThrottlingBurstLimit": found["told"]["throttle"]["burst"],
            }
        ),
        *("api.tf", "= var.throttle.burst", "= var.throttle.rate"),
    ),
    "every request is written down": Promise(
        lambda found: (
            (one := found["api"]["stage"]["AccessLogSettings"])["DestinationArn"]
            == f"arn:aws:logs:{found['here']}:log-group:/aws/apigateway/{found['name']}"
            and json.loads(one["Format"]) == ACCESS_LOG
        ),
        *("api.tf", '"$context.status"', '"$context.path"'),
    ),
    "tokens have a secret of their own, if that is told": Promise(
        lambda found: (
            found["secrets"]
            == [(f"{found['name']}-tokens", "Token records of Polysky, as `polysky token export` prints them")]
            * found["told"].get("tokens_secret", False)
        ),
        *("functions.tf", "Token records of Polysky, as", "Passwords, as"),
    ),
    "lines are kept as long as told": Promise(
        lambda found: (
            found["groups"]
            == dict.fromkeys(
                [*(f"/aws/lambda/{found['name']}-{one}" for one in FUNCTIONS), f"/aws/apigateway/{found['name']}"],
                found["told"]["log_days"],
            )
        ),
        *("api.tf", "retention_in_days = var.log_days", "retention_in_days = 14"),
    ),
    "lines that tell of trouble are counted": Promise(
        lambda found: (
            found["filters"]
            == {
                *((one, ALERT, found["name"], "alerts", "1", 0) for one in FUNCTIONS),
                *((one, PARKED, found["name"], "parked", "1", 0) for one in ("job", "tick")),
                *((one, DRIFT, found["name"], "drift", "1", 0) for one in ("predict", "tick")),
            }
        ),
        *("observability.tf", '$.status = \\"parked\\"', '$.status = \\"failed\\"'),
    ),
    "alarms watch what they should, from where they should": Promise(
        lambda found: {name: _alarm(one) for name, one in found["alarms"].items()} == _expected_alarms(found),
        *("observability.tf", "threshold           = 500", "threshold           = 5000"),
    ),
    "alarms look every minute and take silence for well": Promise(
        lambda found: all(
            (one["Period"], one["ComparisonOperator"], one["TreatMissingData"])
            == (60, "GreaterThanThreshold", "notBreaching")
            for one in found["alarms"].values()
        ),
        *("observability.tf", "statistic\n  period              = 60", "statistic\n  period              = 300"),
    ),
    "alarms tell the topic when they begin and when they end": Promise(
        lambda found: all(
            one["ActionsEnabled"] and one["AlarmActions"] == [_topic(found)] == one["OKActions"]
            for one in found["alarms"].values()
        ),
        *(
            "observability.tf",
            '= each.value.threshold\n  comparison_operator = "GreaterThanThreshold"\n',
            '= each.value.threshold\n  comparison_operator = "GreaterThanThreshold"\n  actions_enabled = false\n',
        ),
    ),
    "the topic tells the operator": Promise(
        lambda found: found["mail"] == [("email", told) for told in [found["told"]["alarm_email"]] if told],
        *("observability.tf", '"email"\n  endpoint  = var.alarm_email', '"email"\n  endpoint  = "a@example.com"'),
    ),
    "the dashboard has its seven widgets, of this region": Promise(
        lambda found: (
            {title: _widget(one) for title, one in found["widgets"].items()}
            == {
                title: (*told, 60, found["here"].partition(":")[0], "timeSeries", count)
                for title, *told, count in [
                    ("Requests and errors", "Sum", 3),
                    ("Time of an answer, ms", "p99", 3),
                    ("Predictions by class", "Sum", 1),
                    ("Confidence, median", "p50", 1),
                    ("Training jobs by outcome", "Sum", 1),
                    ("Functions", "Sum", 8),
                    ("Alerts, parked jobs, failed events", "Sum", 4),
                ]
            }
        ),
        *("observability.tf", '"Confidence, median", stat = "p50"', '"Confidence, median", stat = "p99"'),
    ),
    "the dashboard shows what this stack is made of": Promise(
        lambda found: all(one in _shown(found) for one in _drawn(found)),
        *("observability.tf", '"model_confidence\\" service', '"model_confidences\\" service'),
    ),
    "all that costs money says whose it is": Promise(
        lambda found: all(
            told == {"application": "polysky", "environment": found["told"]["environment"]}
            for told in [found["store"]["tags"], *(one["Tags"] for one in found["functions"].values())]
        ),
        *("versions.tf", 'application = "polysky"', 'application = "poly"'),
    ),
}
