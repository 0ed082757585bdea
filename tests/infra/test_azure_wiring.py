"""Azure's stack: what is tied to what. Each promise is seen to be broken by an edit of one argument."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.worker import Outcome
from handlers_azure.telemetry import FunctionTelemetry
from tests.infra.promises import Promise, Values, broken, spoil, values
from tests.infra.terraform import INFRA, Stack

APPS = ("predict", "train")
VARIABLES = {
    **{"packages": "tests/packages", "gateway": True, "tokens_secret": True, "alarm_email": "night@example.com"},
    "settings": {"POLYSKY_REFRESH_S": "5"},
}


def stack_in(folder: Path) -> Stack:
    """Return a copy of the stack beside packages that are none."""
    stack = Stack(INFRA / "azure" / "terraform", folder, providers=("azurerm",))
    (folder / "tests" / "packages").mkdir()
    for name in APPS:
        (folder / "tests" / "packages" / f"azure-{name}.zip").write_bytes(b"")
    return stack


def applied(folder: Path, promises: dict[str, Promise] | None = None) -> Values:
    """Return what the stack comes to, with every promise broken that is named."""
    stack = stack_in(folder)
    spoil(promises or {}, stack)
    stack.run("apply", "-auto-approve", "-input=false", variables=VARIABLES)
    return values(stack)


def app(found: Values, name: str) -> Any:
    """Return a function app."""
    return found[f'azurerm_function_app_flex_consumption.app["{name}"]']


def one(found: Values, kind: str, name: str) -> Any:
    """Return a resource of which there is one for each app, or one at all."""
    return found.get(f'azurerm_{kind}["{name}"]') or found[f"azurerm_{kind}.{name}"]


def principal(found: Values, name: str) -> Any:
    """Return who an app is to Azure."""
    return one(found, "user_assigned_identity.app", name)["principal_id"]


def roles(found: Values, kind: str) -> set[tuple[str, str, str]]:
    """Return what roles of a kind are given, where, and to whom."""
    return {
        (given["role_definition_name"], given["scope"], given["principal_id"])
        for address, given in found.items()
        if address.startswith(f"azurerm_role_assignment.{kind}")
    }


def alarms(found: Values) -> dict[str, Any]:
    """Return the alarms on queries, by name."""
    return {
        address.split('"')[1]: given
        for address, given in found.items()
        if address.startswith("azurerm_monitor_scheduled_query_rules_alert_v2.alarm")
    }


def query(found: Values, name: str) -> str:
    """Return what an alarm asks."""
    return str(alarms(found)[name]["criteria"][0]["query"])


def named(found: Values, name: str) -> str:
    """Return the app that an alarm asks about."""
    return query(found, name).partition("AppRoleName =~ '")[2].partition("'")[0]


def charts(found: Values) -> Iterator[Any]:
    """Yield the workbook's charts."""
    for item in json.loads(found["azurerm_application_insights_workbook.polysky"]["data_json"])["items"]:
        yield item["content"]


def only(kind: str) -> str:
    """Return the address of a resource of ours that there is one of."""
    return f"azurerm_{kind}"


WORKSPACE, INSIGHTS = only("log_analytics_workspace.polysky"), only("application_insights.polysky")
EVENTS, TOPIC = only("eventgrid_system_topic_event_subscription.inboxes"), only("eventgrid_system_topic.store")
STORE, DEAD = only("storage_account.store"), only("storage_container.dead_letters")
DIAGNOSTICS, GROUP = only("monitor_diagnostic_setting.store"), only("monitor_action_group.alarms")
RULES, METRIC = only("storage_management_policy.store"), only("monitor_metric_alert.dead_letters")
VAULT = only("key_vault.tokens[0]")

PROMISES = {
    "each app has its plan, its host's account and its package there": Promise(
        lambda found: all(
            app(found, name)["service_plan_id"] == one(found, "service_plan.app", name)["id"]
            and app(found, name)["storage_access_key"]
            == one(found, "storage_account.host", name)["primary_access_key"]
            and one(found, "storage_container.package", name)["storage_account_id"]
            == one(found, "storage_account.host", name)["id"]
            and (plan := one(found, "service_plan.app", name))["sku_name"] == "FC1"
            and plan["os_type"] == "Linux"
            for name in APPS
        ),
        *(
            "storage.tf",
            "storage_account_id    = azurerm_storage_account.host[each.key].id",
            'storage_account_id    = azurerm_storage_account.host["train"].id',
        ),
    ),
    "an instance has the memory and the threads that it was asked for": Promise(
        lambda found: (
            [app(found, name)["instance_memory_in_mb"] for name in APPS] == [2048, 4096]
            and [app(found, name)["maximum_instance_count"] for name in APPS] == [100, 2]
            and all(app(found, name)["http_concurrency"] == 8 for name in APPS)
        ),
        *("functions.tf", "memory_mb = var.train_memory_mb", "memory_mb = var.predict_memory_mb"),
    ),
    "an app reads and writes by its own identity": Promise(
        lambda found: (
            roles(found, "store")
            == {
                (
                    "Storage Blob Data Reader",
                    found[only("storage_container.store")]["id"],
                    principal(found, "predict"),
                ),
                (
                    "Storage Blob Data Contributor",
                    found[only("storage_container.store")]["id"],
                    principal(found, "train"),
                ),
            }
        ),
        *(
            "identity.tf",
            "scope                = azurerm_storage_container.store.id",
            "scope                = azurerm_storage_account.store.id",
        ),
    ),
    "what an app tells arrives, under its identity": Promise(
        lambda found: (
            roles(found, "telemetry")
            == {("Monitoring Metrics Publisher", found[INSIGHTS]["id"], principal(found, name)) for name in APPS}
            and all(
                app(found, name)["site_config"][0]["application_insights_connection_string"]
                == found[INSIGHTS]["connection_string"]
                and app(found, name)["app_settings"]["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"]
                == f"ClientId={one(found, 'user_assigned_identity.app', name)['client_id']};Authorization=AAD"
                for name in APPS
            )
            and found[INSIGHTS]["workspace_id"] == found[WORKSPACE]["id"]
        ),
        *("identity.tf", '"Monitoring Metrics Publisher"', '"Monitoring Reader"'),
    ),
    "tokens are read by the apps and set by the operator": Promise(
        lambda found: (
            {(role, who) for role, _, who in roles(found, "tokens")}
            == {("Key Vault Secrets User", principal(found, name)) for name in APPS}
            and roles(found, "operator")
            == {
                (
                    "Key Vault Secrets Officer",
                    found[VAULT]["id"],
                    found["data.azurerm_client_config.here"]["object_id"],
                )
            }
            and found[VAULT]["tenant_id"] == found["data.azurerm_client_config.here"]["tenant_id"]
        ),
        *("secrets.tf", '"Key Vault Secrets Officer"', '"Key Vault Reader"'),
    ),
    "the store's events start the job in the app that trains": Promise(
        lambda found: (
            found[EVENTS]["azure_function_endpoint"][0]["function_id"]
            == f"{app(found, 'train')['id']}/functions/job"
            and found[EVENTS]["system_topic"] == found[TOPIC]["name"]
            and found[TOPIC]["source_resource_id"] == found[STORE]["id"]
            and found[TOPIC]["topic_type"] == "Microsoft.Storage.StorageAccounts"
            and found[EVENTS]["event_delivery_schema"] == "EventGridSchema"
        ),
        *("events.tf", 'flex_consumption.app["train"].id', 'flex_consumption.app["predict"].id'),
    ),
    "what could not be delivered is kept, by the topic's identity": Promise(
        lambda found: (
            found[EVENTS]["storage_blob_dead_letter_destination"][0]
            == {"storage_account_id": found[STORE]["id"], "storage_blob_container_name": "dead-letters"}
            and found[EVENTS]["dead_letter_identity"][0]["type"]
            == "SystemAssigned"
            == found[TOPIC]["identity"][0]["type"]
            and roles(found, "dead_letters")
            == {("Storage Blob Data Contributor", found[DEAD]["id"], found[TOPIC]["identity"][0]["principal_id"])}
            and found[EVENTS]["retry_policy"][0] == {"max_delivery_attempts": 30, "event_time_to_live": 1440}
        ),
        *(
            "identity.tf",
            "scope                = azurerm_storage_container.dead_letters.id",
            'scope                = azurerm_storage_container.package["train"].id',
        ),
    ),
    "old versions go after ninety days, dead letters after thirty, and nothing else": Promise(
        lambda found: (
            {(rule["name"], *(rule["filters"][0]["prefix_match"] or [])) for rule in found[RULES]["rule"]}
            == {("deleted-and-replaced",), ("dead-letters", "dead-letters/")}
            and (kept := found[RULES]["rule"][0]["actions"][0])["version"][0]["delete_after_days_since_creation"]
            == 90
            and not kept["base_blob"]
        ),
        *(
            "storage.tf",
            'prefix_match = ["${azurerm_storage_container.dead_letters.name}/"]',
            'prefix_match = ["${azurerm_storage_container.store.name}/"]',
        ),
    ),
    "who wrote and deleted in the store is logged": Promise(
        lambda found: (
            found[DIAGNOSTICS]["target_resource_id"] == f"{found[STORE]['id']}/blobServices/default"
            and {log["category"] for log in found[DIAGNOSTICS]["enabled_log"]} == {"StorageWrite", "StorageDelete"}
            and found[DIAGNOSTICS]["log_analytics_workspace_id"] == found[WORKSPACE]["id"]
        ),
        *("observability.tf", 'category = "StorageDelete"', 'category = "StorageRead"'),
    ),
    "every alarm asks the workspace every five minutes and tells the operator": Promise(
        lambda found: (
            all(
                alarm["scopes"] == [found[WORKSPACE]["id"]]
                and alarm["action"][0]["action_groups"] == [found[GROUP]["id"]]
                and (alarm["evaluation_frequency"], alarm["window_duration"]) == ("PT5M", "PT5M")
                and alarm["criteria"][0]["metric_measure_column"] == "value"
                and alarm["criteria"][0]["operator"] == "GreaterThan"
                for alarm in alarms(found).values()
            )
            and found[GROUP]["email_receiver"][0]["email_address"] == "night@example.com"
        ),
        *(
            "observability.tf",
            "    action_groups = [azurerm_monitor_action_group.alarms.id]",
            "    action_groups = []",
        ),
    ),
    "an alarm gives the value that it is held to": Promise(
        lambda found: all("summarize value = " in query(found, name) for name in alarms(found)),
        *(
            "observability.tf",
            "summarize value = percentile(DurationMs, 99)",
            "summarize p99 = percentile(DurationMs, 99)",
        ),
    ),
    "an app's alarm counts its own server errors": Promise(
        lambda found: all(
            f"AppRoleName =~ '{app(found, name)['name']}'" in query(found, f"errors-{name}")
            and "toint(ResultCode) >= 500" in query(found, f"errors-{name}")
            for name in APPS
        ),
        *(
            "observability.tf",
            'names = { for key in keys(local.apps) : key => "${local.name}-${key}-${local.suffix}" }',
            'names = { for key in keys(local.apps) : key => "${local.name}-${local.suffix}-${key}" }',
        ),
    ),
    "the latency alarm listens to predictions": Promise(
        lambda found: (
            f"AppRoleName =~ '{named(found, 'errors-predict')}' and Name == 'http'" in query(found, "slow")
        ),
        *("observability.tf", "Name == 'http' | summarize", "Name == 'predict' | summarize"),
    ),
    "dead letters wake somebody": Promise(
        lambda found: (
            found[METRIC]["scopes"] == [found[TOPIC]["id"]]
            and found[METRIC]["criteria"][0]["metric_namespace"] == "Microsoft.EventGrid/systemTopics"
            and found[METRIC]["criteria"][0]["metric_name"] == "DeadLetteredCount"
            and found[METRIC]["action"][0]["action_group_id"] == found[GROUP]["id"]
        ),
        *(
            "observability.tf",
            "scopes              = [azurerm_eventgrid_system_topic.store.id]",
            "scopes              = [azurerm_storage_account.store.id]",
        ),
    ),
    "the workbook asks the workspace": Promise(
        lambda found: (
            found[only("application_insights_workbook.polysky")]["source_id"] == found[WORKSPACE]["id"].lower()
            and all(
                chart["resourceType"] == "microsoft.operationalinsights/workspaces" and chart["queryType"] == 0
                for chart in charts(found)
            )
        ),
        *("observability.tf", "size = 0, queryType = 0", "size = 0, queryType = 1"),
    ),
    "the gateway asks each app by TLS, and nobody for a key of a subscription": Promise(
        lambda found: (
            all(
                one(found, "api_management_backend.app", name)["url"]
                == f"https://{app(found, name)['default_hostname']}"
                and all(one(found, "api_management_backend.app", name)["tls"][0].values())
                for name in APPS
            )
            and (api := found[only("api_management_api.polysky[0]")])["subscription_required"] is False
            and (api["protocols"], api["path"]) == (["https"], "")
            and api["import"][0]["content_format"] == "openapi+json"
        ),
        *("api.tf", "subscription_required = false", "subscription_required = true"),
    ),
    "all of the gateway belongs to one API in one gateway, and everything to one group": Promise(
        lambda found: all(
            given.get(key, name) == name
            for address, given in found.items()
            for key, name in {
                "resource_group_name": "polysky-prod",
                "api_management_name": found[only("api_management.gateway[0]")]["name"],
                "api_name": "polysky",
            }.items()
            if address.startswith("azurerm_")
        ),
        "api.tf",
        "operation_id        = each.key\n  api_name            = azurerm_api_management_api.polysky[0].name",
        "operation_id        = each.key\n  api_name            = azurerm_api_management_api.polysky[0].id",
    ),
    "an app is told its settings, and that the lines of alarms are not sampled": Promise(
        lambda found: all(
            (told := app(found, name)["app_settings"]).get("POLYSKY_REFRESH_S") == "5"
            and told["AzureFunctionsJobHost__logging__applicationInsights__samplingSettings__excludedTypes"]
            == "Request;Exception;Trace"
            for name in APPS
        ),
        *("functions.tf", "    var.settings,\n", ""),
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


def raised(filters: str, line: dict[str, Any]) -> bool:
    """Return whether a line passes an alarm's filters, which are comparisons of its fields joined by `and`."""
    for term in filters.split(" and "):
        name, operator, wanted = re.fullmatch(r"line\.(\w+) (==|startswith) '(\w+)'", term).groups()  # type: ignore[union-attr]
        if not (line.get(name) == wanted if operator == "==" else str(line.get(name, "")).startswith(wanted)):
            return False
    return True


@pytest.mark.parametrize(
    ("what", "event", "fields", "others"),
    [
        ("alerts", "alert", {"alert": "log_broken"}, {"drift": False, "parked": False}),
        ("drift", "alert", {"alert": "drift_data"}, {"alerts": True, "parked": False}),
        ("parked", "job_outcome", Outcome("parked", "uploads/m/a.csv")._asdict(), {"alerts": False}),
        ("parked", "job_outcome", Outcome("done", "uploads/m/a.csv")._asdict(), {"parked": False}),
    ],
)
def test_what_a_line_tells_raises_its_alarm_and_no_other(
    sound: Values,
    caplog: pytest.LogCaptureFixture,
    what: str,
    event: str,
    fields: dict[str, Any],
    others: dict[str, bool],
) -> None:
    FunctionTelemetry().log(event, "error", **fields)
    line = json.loads(caplog.records[-1].getMessage())
    for name, expected in {what: True, **others}.items():
        told = re.search(r"parse_json\(Message\) \| where (.*) \| summarize", query(sound, name))
        assert told
        assert raised(told[1], line) == expected, name


def test_a_vault_that_cannot_be_purged_does_not_stand_in_the_way_of_destroy(tmp_path: Path) -> None:
    stack = stack_in(tmp_path / "stack")
    stack.run("apply", "-auto-approve", "-input=false", variables=VARIABLES)
    assert values(stack)[VAULT]["purge_protection_enabled"]
    stack.run("apply", "-auto-approve", "-input=false", variables={**VARIABLES, "keep_store": False})
    assert values(stack)[VAULT]["purge_protection_enabled"], "Azure refuses to take it back"
    stack.run("destroy", "-auto-approve", "-input=false", variables={**VARIABLES, "keep_store": False})
    assert values(stack) == {}
