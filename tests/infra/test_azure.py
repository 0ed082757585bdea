"""Azure's stack without an account: it is formatted, valid, keeps its promises, and notices what breaks it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest

from core.api import ENDPOINTS
from core.config import Settings
from core.reader import open_reader
from core.telemetry import METRICS
from core.web import PUBLIC
from core.worker import Outcome
from handlers_azure.events import created
from handlers_azure.store import open_store
from handlers_azure.telemetry import FunctionTelemetry
from scripts import api_management
from tests.infra.terraform import INFRA, Failed, Stack
from tests.infra.tools import tool

SOURCE = INFRA / "azure" / "terraform"
EVENTS = Path(__file__).resolve().parents[1] / "events" / "azure"
VARIABLES = {"packages": "tests/packages"}
ISSUER = "https://issuer.example.com"
JWT = {"configuration": f"{ISSUER}/.well-known/openid-configuration", "issuer": ISSUER, "audience": ["polysky"]}
EVERYTHING = {**VARIABLES, "gateway": True, "tokens_secret": True, "jwt": JWT, "alarm_email": "night@example.com"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("azure")


def copy(place: Path) -> Stack:
    """Return a copy of the stack beside packages that are none."""
    made = Stack(SOURCE, place, providers=("azurerm",))
    packages = place / "tests" / "packages"
    packages.mkdir()
    for name in ("azure-predict.zip", "azure-train.zip"):
        (packages / name).write_bytes(b"")
    return made


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return copy(tmp_path / "stack")


class Applied(NamedTuple):
    """A stack that is applied with everything in it, and its resources' values by address."""

    stack: Stack
    values: dict[str, Any]


@pytest.fixture(scope="module")
def applied(folder: Path) -> Applied:
    made = copy(folder / "applied")
    made.run("apply", "-auto-approve", variables=EVERYTHING)
    return Applied(made, addresses(made))


def addresses(stack: Stack) -> dict[str, Any]:
    """Return the values of what is applied, by address."""
    shown = json.loads(stack.run("show", "-json")).get("values", {"root_module": {"resources": []}})
    return {one["address"]: one["values"] for one in shown["root_module"]["resources"]}


def test_the_stack_is_formatted_valid_and_keeps_its_promises(stack: Stack) -> None:
    stack.run("fmt", "-check", "-recursive")
    stack.run("validate")
    assert "0 failed" in stack.run("test")


class Break(NamedTuple):
    """An edit of one argument."""

    file: str
    old: str
    new: str


INVALID = {
    "a misspelt argument": Break("functions.tf", "  http_concurrency  ", "  http_concurency  "),
    "a reference to nothing": Break("events.tf", "store.id\n  topic_type", "stores.id\n  topic_type"),
    "a value of another type": Break("events.tf", "event_time_to_live    = 1440", 'event_time_to_live = "day"'),
    "a block that is missing": Break("storage.tf", 'filters {\n      blob_types = ["blockBlob"]\n    }', ""),
}
BROKEN = {  # by what the stack's own tests say then
    "the store can be reached without TLS, with a key, or by anybody": Break(
        "storage.tf", "shared_access_key_enabled       = false", "shared_access_key_enabled       = true"
    ),
    "what is replaced or deleted is gone": Break(
        "storage.tf", "versioning_enabled = true", "versioning_enabled = false"
    ),
    "an object outside the inboxes starts a function": Break("events.tf", "of_store}${inbox}", "of_store}"),
    "an event is given up early, or lost": Break("events.tf", "attempts = 30", "attempts = 3"),
    "the predicting app may write": Break("identity.tf", "Blob Data Reader", "Blob Data Contributor"),
    "something else than artifacts and old checkpoints can be deleted": Break(
        "identity.tf", '"reg/*/ckpt/*"]', '"reg/*"]'
    ),
    "the latency alarm is another one": Break("observability.tf", "threshold = 500,", "threshold = 5000,"),
    "tokens are not checked": Break("api.tf", "<validate-jwt ", "<validated-jwt "),
    "an operation goes to the wrong app": Break("api.tf", '? "predict" : "train"', '? "train" : "predict"'),
    "an app has not its own identity": Break(
        "functions.tf", "app[each.key].client_id\n      APP", 'app["train"].principal_id\n      APP'
    ),
}


@pytest.mark.parametrize("what", sorted(INVALID))
def test_one_broken_argument_is_no_valid_stack(stack: Stack, what: str) -> None:
    stack.edit(*INVALID[what])
    with pytest.raises(Failed):
        stack.run("validate")


@pytest.mark.parametrize("half", [0, 1])
def test_each_broken_promise_is_told(stack: Stack, half: int) -> None:
    promises = sorted(BROKEN)[half::2]
    for promise in promises:
        stack.edit(*BROKEN[promise])
    with pytest.raises(Failed) as error:
        stack.run("test")
    told = " ".join(re.sub(r"[│╵╷]", " ", str(error.value)).split())
    assert [promise for promise in promises if promise not in told] == []


def test_the_store_is_kept_until_the_operator_says_otherwise_and_then_nothing_is_left(folder: Path) -> None:
    one = copy(folder / "destroyed")
    one.run("apply", "-auto-approve", variables=VARIABLES)
    with pytest.raises(Failed, match="apply with keep_store=false, then destroy"):
        one.run("destroy", "-auto-approve", variables=VARIABLES)
    assert "azurerm_storage_container.store" in addresses(one)
    one.run("apply", "-auto-approve", variables={**VARIABLES, "keep_store": "false"})
    one.run("destroy", "-auto-approve", variables=VARIABLES)
    assert addresses(one) == {}


def test_a_second_apply_changes_nothing_and_a_new_package_is_uploaded(applied: Applied) -> None:
    assert "No changes" in applied.stack.run("plan", variables=EVERYTHING)
    before = applied.values['azurerm_function_app_flex_consumption.app["train"]']["zip_deploy_file"]
    assert (applied.stack.folder / before).is_file()
    package = applied.stack.folder / "tests" / "packages" / "azure-train.zip"
    package.write_bytes(b"newer")
    told = applied.stack.run("plan", variables=EVERYTHING)
    package.write_bytes(b"")
    assert re.search(r"~ zip_deploy_file +=", told)
    assert told.count("will be updated in-place") == 1


def test_the_apps_settings_are_taken_by_the_handlers(applied: Applied) -> None:
    known = {f"POLYSKY_{name.upper()}" for name in Settings._fields}
    for app in ("predict", "train"):
        env = applied.values[f'azurerm_function_app_flex_consumption.app["{app}"]']["app_settings"]
        assert {name for name in env if name.startswith("POLYSKY_")} <= known
        settings = Settings.from_env(env)
        assert settings.store == applied.stack.outputs()["store"]
        assert settings.tokens_secret.endswith("secrets/tokens")
        open_store(settings.store, env=env)


class Platform(BaseHTTPRequestHandler):
    """The identity endpoint of an app, and a store that wants its token; what comes is kept."""

    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        asks = self.path.startswith("/identity")
        self.seen.append((self.path, self.headers["X-IDENTITY-HEADER" if asks else "Authorization"]))
        body = json.dumps({"access_token": "told", "expires_on": str(2**31)}).encode() if asks else b"found"
        self.send_response(200)
        for name, value in {
            "Content-Length": len(body),
            "ETag": '"1"',
            "Last-Modified": formatdate(usegmt=True),
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


def test_the_predicting_app_reads_by_its_identity_with_these_settings(
    applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = applied.values['azurerm_function_app_flex_consumption.app["predict"]']["app_settings"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Platform) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        platform = {
            "IDENTITY_ENDPOINT": f"{here}/identity",
            "IDENTITY_HEADER": "ours",
            "AZURE_STORAGE_ENDPOINT": here,
        }
        for name, value in {**env, **platform}.items():
            monkeypatch.setenv(name, value)
        assert open_reader(env["POLYSKY_STORE"], allow_http=True).get("reg/m/alias/production") == b"found"
        server.shutdown()
    (asked, header), got = Platform.seen
    assert header == "ours"
    assert parse_qs(asked.partition("?")[2])["client_id"] == [env["AZURE_CLIENT_ID"]]
    assert got == ("/store/reg/m/alias/production", "Bearer told")


def test_each_endpoint_goes_to_its_app_behind_the_check_of_tokens_or_is_public(applied: Applied) -> None:
    texts = {name: one["xml_content"] for name, one in applied.values.items() if "xml_content" in one}
    for text in texts.values():
        assert ElementTree.fromstring(text).tag == "policies"
    whole = texts["azurerm_api_management_api_policy.polysky[0]"]
    assert "<validate-jwt" in whole
    assert f"<issuer>{ISSUER}</issuer>" in whole
    for endpoint in ENDPOINTS:
        operation = "-".join([endpoint.method.lower(), *re.findall(r"[a-z0-9]+", endpoint.path)])
        text = texts.get(f'azurerm_api_management_api_operation_policy.particular["{operation}"]', whole)
        app = "predict" if endpoint.plane == "http" else "train"
        assert f'<set-backend-service backend-id="{app}" />' in text, operation
        assert ("<inbound><base />" in text) == (endpoint.permission != PUBLIC), operation


def passes(filters: dict[str, Any], event: dict[str, Any]) -> bool:
    """Return whether Event Grid's filters let an event through: all of them, each by any of its values."""
    fields = {"subject": event["subject"], "data.api": event["data"]["api"]}
    begins, among = filters["advanced_filter"][0]["string_begins_with"], filters["advanced_filter"][0]["string_in"]
    return (
        event["eventType"] in filters["included_event_types"]
        and event["subject"].startswith(filters["subject_filter"][0]["subject_begins_with"])
        and all(fields[one["key"]].startswith(tuple(one["values"])) for one in begins)
        and all(fields[one["key"]] in one["values"] for one in among)
    )


def recorded() -> Iterator[dict[str, Any]]:
    for path in sorted(EVENTS.glob("*.json")):
        event = json.loads(path.read_text())
        if "eventType" in event and isinstance(event.get("data"), dict) and "api" in event["data"]:
            yield event


def hints(event: dict[str, Any]) -> list[tuple[str, str | None]]:
    seen = SimpleNamespace(
        event_type=event["eventType"], subject=event["subject"], get_json=lambda: event["data"], type=None
    )
    return created(seen, "az://store", warn=lambda _: None)


def test_recorded_events_come_through_and_what_the_handler_would_drop_does_not(applied: Applied) -> None:
    filters = applied.values["azurerm_eventgrid_system_topic_event_subscription.inboxes"]
    events = [
        event for event in recorded() if any(key.startswith(("uploads/", "jobs/")) for key, _ in hints(event))
    ]
    assert len(events) == 3
    assert all(passes(filters, event) for event in events)
    for api in ("PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit", "CreateFile", "PutBlock"):
        event = {**events[0], "data": {**events[0]["data"], "api": api}}
        assert passes(filters, event) == bool(hints(event)), api
    for key in ("reg/mood/log/1", "auth/tokens/a", "uploadsx/mood/a.csv"):
        event = {**events[0], "subject": f"/blobServices/default/containers/store/blobs/{key}"}
        assert not passes(filters, event), key


def test_the_queries_ask_for_what_the_handlers_tell(applied: Applied, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = FunctionTelemetry()
    telemetry.log("alert", "error", alert="drift", model="m")
    telemetry.log("job_outcome", **Outcome("parked", "uploads/m/a.csv")._asdict())
    context = SimpleNamespace(
        invocation_id="i", trace_context=SimpleNamespace(trace_parent=None, trace_state=None)
    )
    with telemetry.invocation(context):
        telemetry.count("model_prediction_count", ("m", "c"))
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    fields, number = {name for line in lines for name in line}, lines[-1]["metrics"][0]
    queries = [one["criteria"][0]["query"] for one in applied.values.values() if "evaluation_frequency" in one]
    charts = json.loads(applied.values["azurerm_application_insights_workbook.polysky"]["data_json"])["items"]
    queries += [one["content"]["query"] for one in charts]
    assert len(queries) == 12
    for query in queries:
        assert set(re.findall(r"\bline\.(\w+)", query)) <= fields
        assert {*re.findall(r"number\.(\w+)", query), *re.findall(r"number\['(\w+)'\]", query)} <= {*number}
        for name in re.findall(r"name == '(\w+)'", query.partition("mv-expand")[2]):
            labels = re.findall(r"dimensions(?:\.|\[')(\w+)", query)
            assert set(labels) <= set(METRICS[name].labels), query


def forbidden(form: dict[str, Any]) -> list[str]:
    """Return what API Management's documentation says that it does not import."""
    found = [f"components.{name}" for name in form["components"] if name != "schemas"]
    found += [name for name in ("externalDocs", "security") if name in form]
    names: list[str] = []
    for path, item in form["paths"].items():
        found += [f"{path}: {name}" for name in ("trace", "servers") if name in item]
        for operation in item.values():
            names.append(operation["operationId"])
            found += [f"{path}: {problem}" for problem in problems(path, operation)]
    found += [f"{name} twice" for name in {*names} if names.count(name) > 1]
    found += [f"{name} refers to itself" for name in form["components"]["schemas"] if name in reached(form, name)]
    return found + (["more than 4 MB"] if len(json.dumps(form)) > 4 << 20 else [])


def problems(path: str, operation: dict[str, Any]) -> Iterator[str]:
    """Yield what one operation has that is not imported, or not as it stands."""
    yield from ({"externalDocs", "callbacks", "security", "servers"} & {*operation})
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", operation["operationId"]) or len(operation["operationId"]) > 76:
        yield "the import would give another name"
    if len(operation["summary"]) > 300:
        yield "a summary over 300 characters"
    parameters = operation["parameters"]
    inside = [one["name"].lower() for one in parameters if one["in"] in ("path", "query")]
    if len({*inside}) < len(inside):
        yield "one name in path and query"
    if {one["name"] for one in parameters if one["in"] == "path"} != {*re.findall(r"{(\w+)}", path)}:
        yield "a parameter that is not in the path"
    if any(
        one["in"] == "cookie" or {"allowEmptyValue", "style", "explode", "allowReserved"} & {*one}
        for one in parameters
    ):
        yield "a parameter of a kind that is not known"
    for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
        if any(set(media["schema"]) != {"$ref"} for media in part.get("content", {}).values()):
            yield "a schema inside the operation"
    if any(not one.startswith("#/") for one in re.findall(r'"\$ref": "([^"]*)"', json.dumps(operation))):
        yield "a reference to another file"


def reached(form: dict[str, Any], name: str) -> set[str]:
    """Return the schemas that a schema refers to, over any number of steps."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        text = json.dumps(form["components"]["schemas"][waiting.pop()])
        new = {*re.findall(r'"#/components/schemas/([^"]+)"', text)} - seen
        seen |= new
        waiting += new
    return seen


def test_the_interface_is_that_of_the_endpoint_table_within_the_limits_of_the_import() -> None:
    assert api_management.FILE.read_text() == api_management.openapi(ENDPOINTS)
    form = json.loads(api_management.FILE.read_text())
    assert sum(len(item) for item in form["paths"].values()) == len(ENDPOINTS)
    assert forbidden(form) == []


SPOILT = {
    "components.securitySchemes": lambda form: form["components"].update(securitySchemes={}),
    "/train: security": lambda form: form["paths"]["/train"]["post"].update(security=[]),
    "one name in path and query": lambda form: form["paths"]["/retrain/{model}"]["post"]["parameters"].append(
        {"name": "Model", "in": "query", "schema": {"type": "string"}}
    ),
    "another name": lambda form: form["paths"]["/train"]["post"].update(operationId="post_train"),
    "refers to itself": lambda form: form["components"]["schemas"]["Frame"].update(
        items={"$ref": "#/components/schemas/Frame"}
    ),
    "a schema inside": lambda form: form["paths"]["/train"]["post"]["requestBody"]["content"].update(
        {"text/csv": {"schema": {"type": "string"}}}
    ),
    "another file": lambda form: form["paths"]["/train"]["post"]["requestBody"]["content"].update(
        {"text/csv": {"schema": {"$ref": "other.json#/Frame"}}}
    ),
}


@pytest.mark.parametrize("what", sorted(SPOILT))
def test_a_form_that_would_not_be_imported_is_told(what: str) -> None:
    form = json.loads(api_management.FILE.read_text())
    SPOILT[what](form)
    assert any(what in problem for problem in forbidden(form))


def test_the_interface_is_valid_openapi(folder: Path) -> None:
    validator = tool("openapi-spec-validator")
    done = subprocess.run([str(validator), str(api_management.FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    spoilt = folder / "spoilt.json"
    spoilt.write_text(api_management.FILE.read_text().replace('"in": "path"', '"in": "nowhere"'))
    assert subprocess.run([str(validator), str(spoilt)], capture_output=True, check=False).returncode
