"""AWS's stack as facts: what CloudFormation is told by SAM's template, in the words of aws_plan.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.infra.terraform import INFRA
from tests.infra.tools import tool

TEMPLATE = INFRA / "aws" / "sam" / "template.yaml"
_SCRIPT = Path(__file__).with_name("sam_translation.py")
_ACCOUNT, _REGION = "123456789012", "eu-west-1"
_PSEUDO = {"AWS::AccountId": _ACCOUNT, "AWS::Region": _REGION, "AWS::Partition": "aws"}
_NOTHING = object()
Facts = dict[str, Any]


def environment() -> dict[str, str]:
    """Return what SAM's programs need of the environment: a region, no account, no telemetry."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "AWS_DEFAULT_REGION": _REGION, "SAM_CLI_TELEMETRY": "0"}


def translated(templates: Iterable[Path], parameters: Mapping[str, Any]) -> list[Any]:
    """Return what SAM makes of each template: CloudFormation's, or a complaint, a string."""
    python = tool("sam").with_name("python")
    arguments = [str(_SCRIPT), json.dumps(parameters), *map(str, templates)]
    done = subprocess.run(
        [python, *arguments], env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


class Template:
    """A template of CloudFormation whose functions are worked out."""

    def __init__(self, found: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        defaults = {name: one.get("Default") for name, one in found["Parameters"].items()}
        self._values = {**_PSEUDO, **defaults, **parameters}
        self._conditions, self._resources = found["Conditions"], found["Resources"]

    def all(self, type: str) -> Iterator[tuple[str, Any]]:
        """Yield name and properties of each resource of a type that would be made."""
        for name, one in self._resources.items():
            if one["Type"] == type and ("Condition" not in one or self._holds(one["Condition"])):
                yield name, self.value(one.get("Properties", {}))

    def one(self, type: str) -> Any:
        """Return the properties of the only resource of a type."""
        ((_, found),) = self.all(type)
        return found

    def value(self, node: Any) -> Any:
        """Return what a piece of the template comes to."""
        if isinstance(node, list):
            return [found for one in node if (found := self.value(one)) is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1 and (function := next(iter(node))) in _FUNCTIONS:
            return _FUNCTIONS[function](self, node[function])
        pairs = ((name, self.value(one)) for name, one in node.items())
        return {name: found for name, found in pairs if found is not _NOTHING}

    def ref(self, name: str) -> Any:
        """Return the value of a parameter, or by what a resource is known."""
        if name == "AWS::NoValue":
            return _NOTHING
        return self._values[name] if name in self._values else self._known(name)

    def choose(self, told: Any) -> Any:
        """Return the branch of an Fn::If."""
        condition, yes, no = told
        return self.value(yes if self._holds(condition) else no)

    def sub(self, text: str) -> str:
        """Return a text with its names replaced."""
        return re.sub(r"\$\{([^}]+)\}", lambda match: str(self._named(match[1])), text)

    def attribute(self, told: Any) -> Any:
        """Return an attribute of a resource."""
        name, attribute = told if isinstance(told, list) else told.split(".")
        kind, known = self._resources[name]["Type"], self._known(name)
        if attribute == "Arn":
            return _ARNS[kind].format(known) if kind in _ARNS else known
        return known

    def _named(self, name: str) -> Any:
        return self.attribute(name) if "." in name else self.ref(name)

    def _holds(self, condition: str) -> bool:
        told = self._conditions[condition]
        same = told["Fn::Not"][0] if "Fn::Not" in told else told
        first, second = self.value(same["Fn::Equals"])
        return (str(first) == str(second)) != ("Fn::Not" in told)

    def _known(self, name: str) -> str:
        one = self._resources[name]
        properties = one.get("Properties", {})
        if one["Type"] == "AWS::Lambda::Alias":
            return f"{_ARNS['AWS::Lambda::Function'].format(self.value(properties['FunctionName']))}:live"
        named = _NAMES.get(one["Type"])
        known = (
            str(self.value(properties[named])) if named in properties else name.removesuffix("Integration").lower()
        )
        return _IDENTIFIED[one["Type"]].format(known) if one["Type"] in _IDENTIFIED else known


_FUNCTIONS = {
    "Ref": Template.ref,
    "Fn::If": Template.choose,
    "Fn::Sub": lambda template, told: template.sub(told) if isinstance(told, str) else str(told),
    "Fn::GetAtt": Template.attribute,
}
_HERE = f"{_REGION}:{_ACCOUNT}"
_NAMES = {
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::IAM::Role": "RoleName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SecretsManager::Secret": "Name",
}
_IDENTIFIED = {  # what a Ref gives is no name but an ARN
    "AWS::SNS::Topic": f"arn:aws:sns:{_HERE}:{{}}",
    "AWS::SecretsManager::Secret": f"arn:aws:secretsmanager:{_HERE}:secret:{{}}",
}
_ARNS = {
    "AWS::Lambda::Function": f"arn:aws:lambda:{_HERE}:function:{{}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{_HERE}:log-group:{{}}:*",
    "AWS::IAM::Role": f"arn:aws:iam::{_ACCOUNT}:role/{{}}",
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{_HERE}:{{}}",
}


def facts(found: Mapping[str, Any], parameters: Mapping[str, Any]) -> Facts:
    """Return the facts of what SAM made."""
    template = Template(found, parameters)
    tick, kept = template.one("AWS::Scheduler::Schedule"), template.one("AWS::Lambda::EventInvokeConfig")
    stage, queue = template.one("AWS::ApiGatewayV2::Stage"), template.one("AWS::SQS::Queue")
    limits, target = stage["DefaultRouteSettings"], tick["Target"]
    return {
        "functions": {name.lower(): _function(one) for name, one in template.all("AWS::Lambda::Function")},
        "grants": dict(_grants(template)),
        "refusals": _refusals(template.one("AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]),
        "triggers": sorted(_triggers(template)),
        "tick": (tick["ScheduleExpression"], target["Arn"], target["Input"], _retries(target)),
        "failures": (
            *(kept["MaximumRetryAttempts"], kept["MaximumEventAgeInSeconds"], kept["Qualifier"]),
            *(kept["DestinationConfig"]["OnFailure"]["Destination"], queue["MessageRetentionPeriod"]),
        ),
        "routes": {one["RouteKey"]: _route(one) for _, one in template.all("AWS::ApiGatewayV2::Route")},
        "throttle": [limits["ThrottlingRateLimit"], limits["ThrottlingBurstLimit"]],
        "access log": json.loads(stage["AccessLogSettings"]["Format"]),
        "alarms": {one["AlarmName"]: _alarm(one) for _, one in template.all("AWS::CloudWatch::Alarm")},
        "told": sorted(_told(one) for _, one in template.all("AWS::Logs::MetricFilter")),
        "logs": sorted(
            (one["LogGroupName"], one["RetentionInDays"]) for _, one in template.all("AWS::Logs::LogGroup")
        ),
        "mail": [one["Endpoint"] for _, one in template.all("AWS::SNS::Subscription")],
        "issuers": [_issuer(one["JwtConfiguration"]) for _, one in template.all("AWS::ApiGatewayV2::Authorizer")],
        "secrets": [one["Name"] for _, one in template.all("AWS::SecretsManager::Secret")],
        "dashboard": json.loads(template.one("AWS::CloudWatch::Dashboard")["DashboardBody"]),
        "bucket": _bucket(template.one("AWS::S3::Bucket")),
    }


def _function(one: Any) -> Facts:
    logs = one["LoggingConfig"]
    return {
        **{"name": one["FunctionName"], "handler": one["Handler"], "runtime": one["Runtime"]},
        **{"processor": one["Architectures"], "memory": one["MemorySize"], "timeout": one["Timeout"]},
        **{"storage": one["EphemeralStorage"]["Size"], "tracing": one["TracingConfig"]["Mode"]},
        **{"concurrency": one.get("ReservedConcurrentExecutions", -1), "layers": one.get("Layers", [])},
        **{"log": (logs["LogFormat"], logs["LogGroup"]), "environment": one["Environment"]["Variables"]},
        "snapshots": [one["SnapStart"]["ApplyOn"]] if "SnapStart" in one else [],
    }


def _grants(template: Template) -> Iterator[tuple[str, set[tuple[str, str]]]]:
    for name, one in template.all("AWS::IAM::Role"):
        if "RoleName" not in one:
            continue  # made by SAM: the schedule's and CodeDeploy's
        statements = [each for policy in one["Policies"] for each in policy["PolicyDocument"]["Statement"]]
        assert "ManagedPolicyArns" not in one, name
        assert {each["Effect"] for each in statements} == {"Allow"}, name
        yield (
            name.removesuffix("Role").lower(),
            {
                (action, place)
                for each in statements
                for action in _many(each["Action"])
                for place in _many(each["Resource"])
            },
        )


def _many(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def _refusals(statements: Any) -> Facts:
    return {
        one["Sid"]: (
            one["Effect"],
            sorted(_many(one["Action"])),
            sorted(_many(one["Resource"])),
            sorted(
                (test, variable, sorted(_many(values)))
                for test, each in one["Condition"].items()
                for variable, values in each.items()
            ),
        )
        for one in statements
    }


def _triggers(template: Template) -> Iterator[tuple[str, str, str]]:
    for one in template.one("AWS::S3::Bucket")["NotificationConfiguration"]["LambdaConfigurations"]:
        (rule,) = one["Filter"]["S3Key"]["Rules"]
        assert rule["Name"] == "prefix"
        yield one["Event"], rule["Value"], one["Function"]


def _retries(target: Any) -> int:
    return int(target["RetryPolicy"]["MaximumRetryAttempts"])


def _route(one: Any) -> tuple[str, str, str | None]:
    return one["Target"], one.get("AuthorizationType", "NONE"), one.get("AuthorizerId")


def _issuer(one: Any) -> tuple[str, list[str]]:
    return one["Issuer"], one["Audience"].split(",")  # a parameter that is a list is told as text


def _alarm(one: Any) -> Facts:
    return {
        **{"namespace": one["Namespace"], "metric_name": one["MetricName"], "period": one["Period"]},
        **{"evaluation_periods": one["EvaluationPeriods"], "threshold": one["Threshold"]},
        **{"comparison_operator": one["ComparisonOperator"], "treat_missing_data": one["TreatMissingData"]},
        **{"alarm_actions": one["AlarmActions"], "ok_actions": one["OKActions"]},
        "statistic": one.get("Statistic") or one["ExtendedStatistic"],
        "dimensions": {each["Name"]: each["Value"] for each in one["Dimensions"]},
    }


def _told(one: Any) -> tuple[str, ...]:
    (found,) = one["MetricTransformations"]
    places = (found["MetricNamespace"], found["MetricName"], found["MetricValue"])
    return (one["LogGroupName"], one["FilterPattern"], *places)


def _bucket(one: Any) -> Facts:
    (rule,) = one["LifecycleConfiguration"]["Rules"]
    (encryption,) = one["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    return {
        "name": one["BucketName"],
        "versions": one["VersioningConfiguration"]["Status"],
        "shut": list(one["PublicAccessBlockConfiguration"].values()),
        "owner": one["OwnershipControls"]["Rules"][0]["ObjectOwnership"],
        "encryption": encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"],
        "old versions": rule["NoncurrentVersionExpiration"]["NoncurrentDays"],
        "parts": rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"],
    }
