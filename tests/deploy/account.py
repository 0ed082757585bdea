"""What an account holds of a stack, asked of its services one by one: plain facts, and what is left after all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.deploy.ministack import ACCOUNT, REGION

Facts = dict[str, Any]
Clients = Callable[[str], Any]
FUNCTIONS = ("predict", "control", "job", "tick")


def read(client: Clients, told: Mapping[str, Any]) -> Facts:
    """Return the facts of an environment, which was made with the variables `told`."""
    name = f"polysky-{told['environment']}"
    bucket = f"{name}-{ACCOUNT}-{REGION}"
    return {
        **{"told": told, "name": name, "bucket": bucket, "here": f"{REGION}:{ACCOUNT}"},
        "functions": {one: _function(client("lambda"), f"{name}-{one}") for one in FUNCTIONS},
        "roles": {one: _role(client("iam"), f"{name}-{one}") for one in (*FUNCTIONS, "scheduler")},
        "failures": _failures(client, name),
        "schedule": client("scheduler").get_schedule(Name=f"{name}-tick"),
        "store": _store(client("s3"), bucket),
        "objects": _objects(client("s3"), bucket),
        "api": _api(client("apigatewayv2"), name),
        "secrets": _secrets(client("secretsmanager"), name),
        "groups": _groups(client("logs"), name),
        "filters": _filters(client("logs"), name),
        "alarms": _alarms(client("cloudwatch"), name),
        "widgets": _widgets(client("cloudwatch"), name),
        "mail": _mail(client("sns"), name),
    }


def _function(functions: Any, name: str) -> Facts:
    served = functions.get_alias(FunctionName=name, Name="live")
    numbers = [one["Version"] for one in functions.list_versions_by_function(FunctionName=name)["Versions"]]
    return {
        **functions.get_function_configuration(FunctionName=name, Qualifier=served["FunctionVersion"]),
        "Newest": max((number for number in numbers if number.isdigit()), key=int, default=""),
        "Served": served["FunctionVersion"],
        "Shares": (served.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {},
        "Reserved": functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions"),
        "Tags": functions.get_function(FunctionName=name).get("Tags"),
        "Callers": [_caller(one) for one in _statements(functions, name)],
    }


def _statements(functions: Any, name: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(functions.get_policy(FunctionName=name, Qualifier="live")["Policy"])[
            "Statement"
        ]
    except functions.exceptions.ResourceNotFoundException:
        return []
    return found


def _caller(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what is allowed, to whom, and the values that its conditions ask for."""
    asked = sorted(value for test in one.get("Condition", {}).values() for value in test.values())
    return one["Effect"], one["Action"], one["Principal"]["Service"], asked


def _role(roles: Any, name: str) -> Facts:
    document = roles.get_role_policy(RoleName=name, PolicyName="least")["PolicyDocument"]
    (taken,) = roles.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert all(one["Effect"] == "Allow" for one in document["Statement"])
    rights = {
        (action, place)
        for one in document["Statement"]
        for action in _listed(one["Action"])
        for place in _listed(one["Resource"])
    }
    return {"taken by": taken["Principal"], "if": taken.get("Condition"), "rights": rights}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _failures(client: Clients, name: str) -> Facts:
    """Return what becomes of an event that the job fails on."""
    functions, queues = client("lambda"), client("sqs")
    kept = functions.get_function_event_invoke_config(FunctionName=f"{name}-job", Qualifier="live")
    url = queues.get_queue_url(QueueName=f"{name}-failed")["QueueUrl"]
    queue = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {
        "retries": kept["MaximumRetryAttempts"],
        "seconds": kept["MaximumEventAgeInSeconds"],
        "then": kept["DestinationConfig"]["OnFailure"]["Destination"],
        "kept": queue["MessageRetentionPeriod"],
        "encrypted": queue["SqsManagedSseEnabled"],
        "queue": queue["QueueArn"],
    }


def _store(s3: Any, bucket: str) -> Facts:
    versions = s3.list_object_versions(Bucket=bucket, Prefix="packages/").get("Versions", [])
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    told = s3.get_bucket_notification_configuration(Bucket=bucket)
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    owners = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    return {
        "versions": s3.get_bucket_versioning(Bucket=bucket)["Status"],
        "shut": s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"],
        "owner": [one["ObjectOwnership"] for one in owners],
        "encryption": [one["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for one in encryption],
        "lifecycle": s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"],
        "refusals": {one["Sid"]: one for one in policy["Statement"]},
        "triggers": sorted(_trigger(one) for one in told.get("LambdaFunctionConfigurations", [])),
        "told too": [kind for kind in ("QueueConfigurations", "TopicConfigurations") if told.get(kind)],
        "unkept": [one["Key"] for one in versions if one.get("VersionId", "null") == "null"],
        "tags": {one["Key"]: one["Value"] for one in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]},
    }


def _trigger(one: Mapping[str, Any]) -> tuple[Any, ...]:
    rules = [(rule["Name"].lower(), rule["Value"]) for rule in one["Filter"]["Key"]["FilterRules"]]
    return one["LambdaFunctionArn"], one["Events"], rules


def _objects(s3: Any, bucket: str) -> dict[str, bytes]:
    """Return the packages of the functions, by key."""
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix="packages/").get("Contents", [])]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def _api(apis: Any, name: str) -> Facts:
    (found,) = [one for one in apis.get_apis()["Items"] if one["Name"] == name]
    where = {"ApiId": found["ApiId"]}
    routes = apis.get_routes(**where, MaxResults="500")["Items"]
    # one by one, for moto lists none
    ids = sorted({one["AuthorizerId"] for one in routes if one.get("AuthorizerId")})
    (stage,) = apis.get_stages(**where)["Items"]
    return {
        **{"id": found["ApiId"], "protocol": found["ProtocolType"], "stage": stage},
        "routes": {one["RouteKey"]: one for one in routes},
        "integrations": {one["IntegrationId"]: one for one in apis.get_integrations(**where)["Items"]},
        "authorizers": [apis.get_authorizer(**where, AuthorizerId=one) for one in ids],
    }


def _secrets(secrets: Any, name: str) -> list[tuple[str, str]]:
    found = secrets.list_secrets()["SecretList"]
    return [(one["Name"], one["Description"]) for one in found if one["Name"].startswith(name)]


def _groups(logs: Any, name: str) -> dict[str, int | None]:
    """Return how many days each group of log lines is kept."""
    found = [
        one
        for place in ("lambda", "apigateway")
        for one in logs.describe_log_groups(logGroupNamePrefix=f"/aws/{place}/{name}")["logGroups"]
    ]
    return {one["logGroupName"]: one.get("retentionInDays") for one in found}


def _filters(logs: Any, name: str) -> set[tuple[Any, ...]]:
    """Return, of each filter, the function whose lines it reads, its pattern, and what it counts where."""
    found = set()
    for function in FUNCTIONS:
        group = f"/aws/lambda/{name}-{function}"
        for one in logs.describe_metric_filters(logGroupName=group)["metricFilters"]:
            (counts,) = one["metricTransformations"]
            told = (counts["metricNamespace"], counts["metricName"], counts["metricValue"], counts["defaultValue"])
            found.add((function, one["filterPattern"], *told))
    return found


def _alarms(watch: Any, name: str) -> dict[str, Any]:
    found = watch.describe_alarms(AlarmNamePrefix=f"{name}-")["MetricAlarms"]
    return {one["AlarmName"].removeprefix(f"{name}-"): one for one in found}


def _widgets(watch: Any, name: str) -> dict[str, Any]:
    widgets = json.loads(watch.get_dashboard(DashboardName=name)["DashboardBody"])["widgets"]
    return {one["properties"]["title"]: one for one in widgets}


def _mail(topics: Any, name: str) -> list[tuple[str, str]]:
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}-alarms"
    assert topic in [one["TopicArn"] for one in topics.list_topics()["Topics"]]
    found = topics.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    return [(one["Protocol"], one["Endpoint"]) for one in found]


def left(client: Clients) -> dict[str, int]:
    """Return how many there are of each kind of thing that a stack is made of."""
    functions, roles, apis = client("lambda"), client("iam"), client("apigatewayv2")
    watch, logs, topics = client("cloudwatch"), client("logs"), client("sns")
    names = [one["FunctionName"] for one in functions.list_functions()["Functions"]]
    mine = [one["RoleName"] for one in roles.list_roles()["Roles"]]
    found: dict[str, list[Any]] = {
        "buckets": client("s3").list_buckets()["Buckets"],
        "functions": names,
        "aliases": [alias for one in names for alias in functions.list_aliases(FunctionName=one)["Aliases"]],
        "roles": mine,
        "their rights": [right for one in mine for right in roles.list_role_policies(RoleName=one)["PolicyNames"]],
        "queues": client("sqs").list_queues().get("QueueUrls", []),
        "groups": logs.describe_log_groups()["logGroups"],
        "filters": logs.describe_metric_filters()["metricFilters"],
        "alarms": watch.describe_alarms()["MetricAlarms"],
        "dashboards": watch.list_dashboards()["DashboardEntries"],
        "topics": topics.list_topics()["Topics"],
        "subscriptions": topics.list_subscriptions()["Subscriptions"],
        "APIs": apis.get_apis()["Items"],
        "schedules": client("scheduler").list_schedules()["Schedules"],
        "secrets": client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"],
    }
    return {kind: len(them) for kind, them in found.items()}
