"""AWS's stack as facts: what terraform plans, with the real provider and without an account.

Facts are plain values by topic; aws_template.py states those of SAM's template in the same words.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.infra.terraform import INFRA, Stack

SOURCE = INFRA / "aws" / "terraform"
_VALUES = Path(__file__).with_name("aws_values.tftest.hcl")
Facts = dict[str, Any]


def copied(folder: Path) -> Stack:
    """Return a copy of the stack, beside packages that are none."""
    stack = Stack(SOURCE, folder)
    (folder / "tests" / "packages").mkdir()
    for name in ("aws-predict.zip", "aws-train.zip"):
        (folder / "tests" / "packages" / name).write_bytes(b"")
    shutil.copy(_VALUES, folder / "tests")
    return stack


def planned(stack: Stack) -> dict[str, Facts]:
    """Return the facts of each run of aws_values.tftest.hcl."""
    return {run: plan.facts() for run, plan in plans(stack).items()}


def plans(stack: Stack) -> dict[str, Plan]:
    """Return what each run of aws_values.tftest.hcl plans."""
    said = stack.run("test", "-json", "-verbose", f"-filter=tests/{_VALUES.name}")
    lines = (json.loads(line) for line in said.splitlines() if '"type":"test_plan"' in line)
    return {line["@testrun"]: Plan(line["test_plan"]["resource_changes"]) for line in lines}


class Plan:
    """The planned resources."""

    def __init__(self, changes: Iterable[Mapping[str, Any]]) -> None:
        self._all = list(changes)

    def all(self, type: str, name: str = "") -> Iterator[tuple[str, Any]]:
        """Yield index and values of each resource of a type and a name; a single one's index is 0."""
        for one in self._all:
            if one["type"] == type and name in ("", one["name"]):
                yield str(one.get("index", 0)), one["change"]["after"]

    def values(self) -> dict[str, Any]:
        """Return the values of all resources by address."""
        return {one["address"]: one["change"]["after"] for one in self._all}

    def facts(self) -> Facts:
        """Return the facts of the plan."""
        return _facts(self)

    def one(self, type: str, name: str) -> Any:
        """Return the values of the resource of that type and name."""
        return next(one["change"]["after"] for one in self._all if (one["type"], one["name"]) == (type, name))


def _facts(plan: Plan) -> Facts:
    tick = plan.one("aws_scheduler_schedule", "tick")
    target, kept = tick["target"][0], plan.one("aws_lambda_function_event_invoke_config", "job")
    queue = plan.one("aws_sqs_queue", "failed")
    limits = plan.one("aws_apigatewayv2_stage", "default")
    return {
        "functions": {key: _function(one) for key, one in plan.all("aws_lambda_function")},
        "grants": {key: _grants(one["statement"]) for key, one in plan.all("aws_iam_policy_document", "function")},
        "refusals": _refusals(plan.one("aws_iam_policy_document", "store")["statement"]),
        "triggers": sorted(_triggers(plan)),
        "tick": (tick["schedule_expression"], target["arn"], target["input"], _retries(target)),
        "failures": (
            *(kept["maximum_retry_attempts"], kept["maximum_event_age_in_seconds"], kept["qualifier"]),
            *(kept["destination_config"][0]["on_failure"][0]["destination"], queue["message_retention_seconds"]),
        ),
        "routes": {one["route_key"]: _route(one) for _, one in plan.all("aws_apigatewayv2_route")},
        "throttle": [
            limits["default_route_settings"][0][f"throttling_{name}_limit"] for name in ("rate", "burst")
        ],
        "access log": json.loads(limits["access_log_settings"][0]["format"]),
        "alarms": {one["alarm_name"]: _alarm(one) for _, one in plan.all("aws_cloudwatch_metric_alarm")},
        "told": sorted(_told(one) for _, one in plan.all("aws_cloudwatch_log_metric_filter")),
        "logs": sorted((one["name"], one["retention_in_days"]) for _, one in plan.all("aws_cloudwatch_log_group")),
        "mail": [one["endpoint"] for _, one in plan.all("aws_sns_topic_subscription")],
        "issuers": [_issuer(one["jwt_configuration"][0]) for _, one in plan.all("aws_apigatewayv2_authorizer")],
        "secrets": [one["name"] for _, one in plan.all("aws_secretsmanager_secret")],
        "dashboard": json.loads(plan.one("aws_cloudwatch_dashboard", "polysky")["dashboard_body"]),
        "bucket": _bucket(plan),
    }


def _function(one: Any) -> Facts:
    logs = one["logging_config"][0]
    return {
        **{"name": one["function_name"], "handler": one["handler"], "runtime": one["runtime"]},
        **{"processor": one["architectures"], "memory": one["memory_size"], "timeout": one["timeout"]},
        **{"storage": one["ephemeral_storage"][0]["size"], "tracing": one["tracing_config"][0]["mode"]},
        **{"concurrency": one["reserved_concurrent_executions"], "layers": one["layers"] or []},
        **{"log": (logs["log_format"], logs["log_group"]), "environment": one["environment"][0]["variables"]},
        "snapshots": [snap["apply_on"] for snap in one["snap_start"]],
    }


def _grants(statements: Any) -> set[tuple[str, str]]:
    """Return action and resource of all that is allowed."""
    return {(action, place) for one in statements for action in one["actions"] for place in one["resources"]}


def _refusals(statements: Any) -> Facts:
    return {
        one["sid"]: (
            one["effect"],
            sorted(one["actions"]),
            sorted(one["resources"]),
            sorted((each["test"], each["variable"], sorted(each["values"])) for each in one["condition"]),
        )
        for one in statements
    }


def _triggers(plan: Plan) -> Iterator[tuple[str, str, str]]:
    for one in plan.one("aws_s3_bucket_notification", "inboxes")["lambda_function"]:
        yield from ((event, one["filter_prefix"], one["lambda_function_arn"]) for event in one["events"])


def _retries(target: Any) -> int:
    return int(target["retry_policy"][0]["maximum_retry_attempts"])


def _route(one: Any) -> tuple[str, str, str | None]:
    return one["target"], one["authorization_type"], one["authorizer_id"]


def _issuer(one: Any) -> tuple[str, list[str]]:
    return one["issuer"], one["audience"]


def _alarm(one: Any) -> Facts:
    names = ("namespace", "metric_name", "period", "evaluation_periods", "threshold", "comparison_operator")
    more = ("treat_missing_data", "alarm_actions", "ok_actions")
    return {
        **{name: one[name] for name in (*names, *more)},
        "statistic": one["statistic"] or one["extended_statistic"],
        "dimensions": one["dimensions"] or {},
    }


def _told(one: Any) -> tuple[str, ...]:
    found = one["metric_transformation"][0]
    return (one["log_group_name"], one["pattern"], found["namespace"], found["name"], found["value"])


def _bucket(plan: Plan) -> Facts:
    def first(kind: str) -> Any:
        return plan.one(f"aws_s3_bucket_{kind}", "store")

    shut = first("public_access_block")
    rule = first("lifecycle_configuration")["rule"][0]
    encryption = first("server_side_encryption_configuration")["rule"][0]
    return {
        "name": plan.one("aws_s3_bucket", "store")["bucket"],
        "versions": first("versioning")["versioning_configuration"][0]["status"],
        "shut": [
            value for name, value in sorted(shut.items()) if name.startswith(("block", "ignore", "restrict"))
        ],
        "owner": first("ownership_controls")["rule"][0]["object_ownership"],
        "encryption": encryption["apply_server_side_encryption_by_default"][0]["sse_algorithm"],
        "old versions": rule["noncurrent_version_expiration"][0]["noncurrent_days"],
        "parts": rule["abort_incomplete_multipart_upload"][0]["days_after_initiation"],
    }
