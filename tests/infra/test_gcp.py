"""Google Cloud's stack without an account: valid, applied without a cloud, and noticing what breaks it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core import keys
from core.api import ENDPOINTS
from core.telemetry import METRICS
from handlers_gcp.telemetry import CloudTelemetry
from scripts import api_gateway
from tests.infra.terraform import INFRA, Failed, Stack
from tests.infra.tools import tool

SOURCE = INFRA / "gcp" / "terraform"
ISSUER = {
    "issuer": "https://issuer.example.com",
    "jwks_uri": "https://issuer.example.com/jwks",
    "audience": ["polysky"],
}


def stack_in(folder: Path) -> Stack:
    """Return a copy of the stack beside packages that are none."""
    made = Stack(SOURCE, folder / "stack", providers=("google", "google-beta"))
    packages = made.folder / "tests" / "packages"
    packages.mkdir()
    for name in ("gcp-predict.zip", "gcp-train.zip"):
        (packages / name).write_bytes(b"")
    return made


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return stack_in(tmp_path)


class Applied(NamedTuple):
    """A stack that was applied: its resources, by address; what gcloud was told; and what destroy left."""

    resources: dict[str, dict[str, Any]]
    commands: list[str]
    left: dict[str, Any]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """The stack with an issuer, applied, found unchanged by a second plan, and destroyed."""
    folder = tmp_path_factory.mktemp("gcp")
    made, gcloud, log = stack_in(folder), folder / "gcloud", folder / "commands"
    gcloud.write_text(f'#!/bin/sh\necho "$@" >>{log}\necho projects/polysky-test/subscriptions/eventarc-1\n')
    gcloud.chmod(0o755)
    told = {"project": "polysky-test", "packages": "tests/packages", "gcloud": str(gcloud), "jwt": ISSUER}
    made.run("apply", "-auto-approve", "-input=false", variables=told)
    made.run("plan", "-detailed-exitcode", "-input=false", variables=told)
    shown = json.loads(made.run("show", "-json"))["values"]["root_module"]["resources"]
    made.run("destroy", "-auto-approve", "-input=false", variables=told)
    return Applied(
        {one["address"]: one["values"] for one in shown},
        log.read_text().splitlines(),
        json.loads(made.run("show", "-json")),
    )


def test_the_stack_is_formatted_valid_and_keeps_its_promises(stack: Stack) -> None:
    stack.run("fmt", "-check", "-recursive")
    stack.run("validate")
    assert "0 failed" in stack.run("test")


class Break(NamedTuple):
    """An edit of one argument, and the command that must notice it."""

    file: str
    old: str
    new: str
    command: str


BREAKS = {
    "a misspelt argument": Break("functions.tf", "timeout_seconds  ", "timeout_secs  ", "validate"),
    "a reference to nothing": Break("schedule.tf", "account.schedule.email", "account.shedule.email", "validate"),
    "an argument left out": Break("vertex.tf", "location     = var.region\n", "", "validate"),
    "a value that Google does not know": Break("observability.tf", '"COMPARISON_GT"', '"ABOVE"', "validate"),
    "a bucket without versions": Break("bucket.tf", "enabled = true", "enabled = false", "test"),
    "events that are dropped": Break("functions.tf", "POLICY_RETRY", "POLICY_DO_NOT_RETRY", "test"),
    "training open to all": Break("iam.tf", 'toset(["predict", "control"])', 'toset(["predict", "job"])', "test"),
    "a browser that may not ask": Break("api.tf", "in local.asked :", "in local.endpoints.paths :", "test"),
    "another caller's token": Break("api.tf", "disable_auth     = true", "disable_auth     = false", "test"),
}


@pytest.mark.parametrize("what", sorted(BREAKS))
def test_one_broken_argument_is_noticed(stack: Stack, what: str) -> None:
    broken = BREAKS[what]
    stack.edit(broken.file, broken.old, broken.new)
    with pytest.raises(Failed):
        stack.run(broken.command)


def test_what_is_applied_is_found_unchanged_and_destroyed_as_a_whole(applied: Applied) -> None:
    assert len(applied.resources) > 80
    assert "values" not in applied.left


def test_eventarcs_dead_letters_go_to_the_topic(applied: Applied) -> None:
    found, allowed, updated = applied.commands
    assert found.startswith("eventarc triggers describe polysky-prod-job.trigger ")
    assert "subscriptions/eventarc-1 --member=serviceAccount:service-" in allowed
    topic = applied.resources["google_pubsub_topic.failed"]["id"]
    assert f"subscriptions/eventarc-1 --dead-letter-topic={topic} --max-delivery-attempts=10" in updated


def gateways_document(applied: Applied) -> dict[str, Any]:
    """Return what the gateway is given."""
    config = applied.resources["google_api_gateway_api_config.http"]
    found: dict[str, Any] = json.loads(base64.b64decode(config["openapi_documents"][0]["document"][0]["contents"]))
    return found


def refusals(document: dict[str, Any]) -> list[str]:
    """Return why the gateway would refuse a document: its documented limitations of OpenAPI 2.0."""
    told = []
    ids: set[str] = set()
    defined = document.get("securityDefinitions", {})
    if document.get("swagger") != "2.0" or ":" in document.get("host", ""):
        told.append("another version, or a port in the host")
    for path, methods in document["paths"].items():
        if any("{" in part and not re.fullmatch(r"{\w+}", part) for part in path.split("/")):
            told.append(f"{path} has a parameter that is not a whole segment")
        for operation in methods.values():
            name = operation.get("operationId", "")
            if not re.fullmatch(r"[A-Za-z]\w*", name) or name in ids:
                told.append(f"{path} has no name, or one that is taken")
            ids.add(name)
            given = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            if given != set(re.findall(r"{(\w+)}", path)):
                told.append(f"{path} describes other parameters than it has")
            if any(len(one) != 1 or not set(one) <= set(defined) for one in operation.get("security", [])):
                told.append(f"{path} asks for what is not defined, or for two things at once")
    if re.search(r'"\$ref": *"[^#]', json.dumps(document)):
        told.append("a reference leads outside")
    return told


def test_the_gateway_is_told_of_the_endpoint_table() -> None:
    assert api_gateway.FILE.read_text() == api_gateway.openapi(ENDPOINTS)
    paths = json.loads(api_gateway.FILE.read_text())["paths"]
    assert paths["/predict/{model}"]["post"]["x-polysky"] == {"function": "predict", "public": False}
    assert paths["/health"]["get"]["x-polysky"]["public"]


def test_the_gateways_document_is_openapi_2_within_its_limitations(applied: Applied, tmp_path: Path) -> None:
    document = gateways_document(applied)
    assert refusals(document) == []
    for place, text in (("generated", api_gateway.FILE.read_text()), ("applied", json.dumps(document))):
        (tmp_path / place).write_text(text)
        command = [str(tool("openapi-spec-validator")), "--schema", "2.0", str(tmp_path / place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


Edit = Callable[[dict[str, Any], dict[str, Any]], object]  # of the document and one operation
EDITS: dict[str, Edit] = {
    "another version": lambda document, _: document.update(swagger="3.1.0"),
    "a port": lambda document, _: document.update(host="example.com:8080"),
    "part of a segment": lambda document, _: document["paths"].update({"/p-{model}": {}}),
    "no name": lambda _, operation: operation.pop("operationId"),
    "a name that is taken": lambda _, operation: operation.update(operationId="get_health"),
    "no parameter": lambda _, operation: operation.update(parameters=[]),
    "a scheme that is not defined": lambda _, operation: operation.update(security=[{"other": []}]),
    "two schemes": lambda _, operation: operation.update(security=[{"jwt": [], "other": []}]),
    "a reference": lambda _, operation: operation.update(schema={"$ref": "https://example.com/a.json"}),
}


@pytest.mark.parametrize("what", sorted(EDITS))
def test_what_the_gateway_would_refuse_is_noticed(applied: Applied, what: str) -> None:
    document = gateways_document(applied)
    EDITS[what](document, document["paths"]["/predict/{model}"]["post"])
    assert len(refusals(document)) == 1


def test_an_issuers_tokens_are_asked_for_where_the_table_asks_for_one(applied: Applied) -> None:
    document = gateways_document(applied)
    assert document["securityDefinitions"]["jwt"]["x-google-issuer"] == ISSUER["issuer"]
    table = json.loads(api_gateway.FILE.read_text())["paths"]
    for path, methods in document["paths"].items():
        assert {*methods} == {*table[path], "options"}
        for method, operation in methods.items():
            assert "x-polysky" not in operation
            public = method == "options" or table[path][method]["x-polysky"]["public"]
            assert operation["security"] == ([] if public else [{"jwt": []}]), path


PREFIX = "projects/_/buckets/polysky-prod-polysky-test"
KEYS = {
    "log": keys.log_key("spam", 7),
    "checkpoint": keys.checkpoint_key("spam", 7),
    "alias": keys.alias_key("spam", "production"),
    "artifact": keys.artifact_key("spam", "0" * 64, 1, "f" * 64),
    "marker": keys.model_key("spam"),
    "upload": "uploads/spam/data.csv",
    "job": "jobs/spam/0.json",
    "token": "auth/tokens/abc.json",
    "other": "elsewhere/spam",
}


def is_met(expression: str, name: str, kind: str) -> bool:
    """Return whether a condition of ours is met; what is written in another way fails."""
    for clause in expression.split(" || "):
        if found := re.fullmatch(r'resource\.type == "(.*)"', clause):
            met = kind == found[1]
        elif found := re.fullmatch(r'resource\.name\.startsWith\("(.*)"\)', clause):
            met = name.startswith(found[1])
        else:
            found = re.fullmatch(r'resource\.name\.extract\("(.*){model}(.*)"\) != ""', clause)
            assert found, clause
            met = re.match(f"{re.escape(found[1])}.+?{re.escape(found[2])}", name) is not None
        if met:
            return True
    return False


def permitted(applied: Applied, function: str, kind: str) -> set[str]:
    """Return the kinds of keys that a function's account may read, create or delete."""
    address = f'google_storage_bucket_iam_member.function["{function}-{kind}"]'
    if address not in applied.resources:
        return set()
    [condition] = applied.resources[address]["condition"]
    kind = "storage.googleapis.com/Object"
    return {what for what, key in KEYS.items() if is_met(condition["expression"], f"{PREFIX}/objects/{key}", kind)}


STATE = {"log", "checkpoint", "alias", "artifact", "marker"}


@pytest.mark.parametrize(
    ("function", "reads", "creates", "deletes"),
    [
        ("predict", STATE | {"token"}, set(), set()),
        (
            "control",
            STATE | {"token", "upload", "job"},
            STATE - {"artifact"} | {"upload", "job"},
            {"alias"},
        ),
        ("job", STATE | {"upload", "job"}, STATE, {"alias"}),
        ("tick", STATE | {"upload", "job"}, STATE, {"alias", "artifact", "checkpoint"}),
    ],
)
def test_an_account_may_what_its_function_does_and_no_more(
    applied: Applied, function: str, reads: set[str], creates: set[str], deletes: set[str]
) -> None:
    assert permitted(applied, function, "read") == reads
    assert permitted(applied, function, "create") == creates
    assert permitted(applied, function, "delete") == deletes


def test_every_function_may_list_the_bucket(applied: Applied) -> None:
    for function in ("predict", "control", "job", "tick"):
        [condition] = applied.resources[f'google_storage_bucket_iam_member.function["{function}-read"]'][
            "condition"
        ]
        assert is_met(condition["expression"], PREFIX, "storage.googleapis.com/Bucket")


def lines_of(name: str) -> dict[str, Any]:
    """Return the log line that tells of one metric."""
    lines: list[str] = []
    telemetry = CloudTelemetry(lines.append, clock=lambda: 0.0, env={})
    labels = tuple(f"some {label}" for label in METRICS[name].labels)
    match METRICS[name].type:
        case "counter":
            telemetry.count(name, labels)
        case "gauge":
            telemetry.gauge(name, 1.0, labels)
        case _:
            telemetry.observe(name, 1.0, labels)
    telemetry.write_metrics()
    [line] = lines
    found: dict[str, Any] = json.loads(line)
    return found


def extracted(extractor: str, line: dict[str, Any]) -> Any:
    """Return what a metric's extractor finds in a line."""
    found = re.fullmatch(r"EXTRACT\(jsonPayload\.(.*)\)", extractor)
    assert found
    value: Any = line
    for name in found[1].split("."):
        value = value[name]
    return value


def test_log_based_metrics_find_what_the_functions_write(applied: Applied) -> None:
    measured = [one for address, one in applied.resources.items() if "logging_metric.measured" in address]
    assert measured
    for one in measured:
        name = one["name"].removeprefix("polysky-prod/")
        line = lines_of(name)
        assert f'jsonPayload.event="{line["event"]}"' in one["filter"]
        assert f"jsonPayload.metrics.{name}.count>0" in one["filter"]
        assert extracted(one["value_extractor"], line) == 1.0
        labels = {label: extracted(told, line) for label, told in one["label_extractors"].items()}
        assert labels == {label: f"some {label}" for label in METRICS[name].labels}


@pytest.mark.parametrize(
    ("what", "event", "fields"),
    [
        ("alerts", "alert", {"alert": "log_broken"}),
        ("drift", "alert", {"alert": "drift"}),
        ("parked", "job_outcome", {"status": "parked"}),
    ],
)
def test_what_a_line_tells_raises_an_alarm(
    applied: Applied, what: str, event: str, fields: dict[str, str]
) -> None:
    lines: list[str] = []
    CloudTelemetry(lines.append, clock=lambda: 0.0, env={}).log(event, "error", **fields)
    line = json.loads(lines[0])
    policy = applied.resources[f'google_monitoring_alert_policy.told["{what}"]']
    wanted = policy["conditions"][0]["condition_matched_log"][0]["filter"]
    assert applied.resources[f'google_logging_metric.told["{what}"]']["filter"] == wanted
    terms = re.findall(r'jsonPayload\.(\w+)(=~?)"(.*?)"', wanted)
    assert terms
    for name, operator, value in terms:
        assert line[name] == value if operator == "=" else re.search(value, line[name])


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are(applied: Applied) -> None:
    layout = json.loads(applied.resources["google_monitoring_dashboard.polysky"]["dashboard_json"])["mosaicLayout"]
    queries = [
        query["prometheusQuery"]
        for tile in layout["tiles"]
        for one in tile["widget"]["xyChart"]["dataSets"]
        if "prometheusQuery" in (query := one["timeSeriesQuery"])
    ]
    named = {one["name"] for address, one in applied.resources.items() if "google_logging_metric" in address}
    assert len(queries) > 4
    for query in queries:
        metrics = re.findall(r"logging_googleapis_com:user_polysky_prod_(\w+?)(?:_sum|_count)?{", query)
        assert metrics
        for metric in metrics:
            [name] = {one for one in (metric, f"{metric}_count") if f"polysky-prod/{one}" in named}
            assert set(re.findall(r"by \((\w+)\)", query)) <= set(METRICS[name].labels if name in METRICS else ())


def test_without_gcloud_the_remedy_is_told_and_a_second_run_finishes(stack: Stack) -> None:
    told = {"project": "polysky-test", "packages": "tests/packages"}
    with pytest.raises(Failed, match="gcloud is not installed"):
        stack.run("apply", "-auto-approve", variables={**told, "gcloud": "/nowhere/gcloud"})
    assert "1 added, 0 changed, 1 destroyed" in stack.run(
        "apply", "-auto-approve", variables={**told, "gcloud": "true"}
    )
