"""Google Cloud's stack: what is tied to what. Each promise is seen to be broken by an edit of one argument."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.infra.promises import Promise, Values, broken, spoil, values
from tests.infra.terraform import INFRA, Stack

FUNCTIONS = ("predict", "control", "job", "tick")
ADDRESS = "google_cloudfunctions2_function.function"
VARIABLES = {
    **{"project": "polysky-test", "packages": "tests/packages", "gcloud": "true"},
    **{"tokens_secret": True, "alarm_email": "night@example.com", "settings": {"POLYSKY_REFRESH_S": "5"}},
}


def applied(folder: Path, promises: dict[str, Promise] | None = None) -> Values:
    """Return what the stack comes to, with every promise broken that is named."""
    stack = Stack(INFRA / "gcp" / "terraform", folder, providers=("google", "google-beta"))
    (folder / "tests" / "packages").mkdir()
    for name in ("gcp-predict.zip", "gcp-train.zip"):
        (folder / "tests" / "packages" / name).write_bytes(b"")
    spoil(promises or {}, stack)
    stack.run("apply", "-auto-approve", "-input=false", variables=VARIABLES)
    return values(stack)


def service(found: Values, name: str) -> Any:
    """Return how a function runs."""
    return found[f'{ADDRESS}["{name}"]']["service_config"][0]


def account(found: Values, name: str) -> Any:
    """Return the address of an account."""
    return found[f"google_service_account.{name}"]["email"]


def source(found: Values, name: str) -> Any:
    """Return the package that a function is built of."""
    return found[f'{ADDRESS}["{name}"]']["build_config"][0]["source"][0]["storage_source"][0]["object"]


def invoker(found: Values, name: str) -> tuple[str, str, str]:
    """Return what is opened to whom."""
    one = found[f"google_cloud_run_service_iam_member.{name}"]
    return one["service"], one["role"], one["member"]


def alarm(found: Values, name: str) -> Any:
    """Return what an alarm waits for."""
    return found[f'google_monitoring_alert_policy.alarm["{name}"]']["conditions"][0]["condition_threshold"][0]


def clock(found: Values) -> Any:
    """Return what the clock asks."""
    return found["google_cloud_scheduler_job.tick"]["http_target"][0]


ROLES = {
    "read": "roles/storage.objectViewer",
    "create": "roles/storage.objectCreator",
    "delete": "google_project_iam_custom_role.replace",
}


def granted(found: Values) -> bool:
    """Return whether each right in the store is of its kind, and of the function that it is named after."""
    grants = {
        address.split('"')[1]: one
        for address, one in found.items()
        if address.startswith("google_storage_bucket_iam_member.function")
    }
    return len(grants) == 10 and all(
        one["member"] == found[f'google_service_account.function["{name.partition("-")[0]}"]']["member"]
        and one["role"]
        == (ROLES[kind] if (kind := name.partition("-")[2]) != "delete" else found[ROLES[kind]]["id"])
        and one["bucket"] == found["google_storage_bucket.store"]["name"]
        for name, one in grants.items()
    )


def tiles(found: Values) -> list[Any]:
    """Return the dashboard's questions."""
    layout = json.loads(found["google_monitoring_dashboard.polysky"]["dashboard_json"])["mosaicLayout"]
    return [one["timeSeriesQuery"] for tile in layout["tiles"] for one in tile["widget"]["xyChart"]["dataSets"]]


def reads_sources(found: Values) -> bool:
    """Return whether a build may read its package's copy, and no other function's."""
    one = found["google_project_iam_member.sources"]
    place = f"gcf-v2-sources-{found['data.google_project.here']['number']}-europe-west1"
    [condition] = one["condition"]
    return (
        one["role"] == "roles/storage.objectViewer"
        and one["member"] == found["google_service_account.build"]["member"]
        and f'resource.name.startsWith("projects/_/buckets/{place}/objects/polysky-prod-")'
        in condition["expression"]
    )


PROMISES = {
    "a right in the store is of its kind, for its function alone": Promise(
        granted,
        "iam.tf",
        "member   = google_service_account.function[each.value.function].member",
        'member   = google_service_account.function["tick"].member',
    ),
    "what serves and stands outside is named after the deployment": Promise(
        lambda found: (
            found["google_api_gateway_api.http"]["api_id"]
            == found["google_api_gateway_gateway.http"]["gateway_id"]
            == found["google_pubsub_subscription.failed"]["name"].removesuffix("-failed")
            == "polysky-prod"
        ),
        *("api.tf", "gateway_id = local.name", 'gateway_id = "polysky"'),
    ),
    "each function runs as its own account": Promise(
        lambda found: all(
            service(found, name)["service_account_email"] == account(found, f'function["{name}"]')
            for name in FUNCTIONS
        ),
        *("functions.tf", "account.function[each.key].email", 'account.function["tick"].email'),
    ),
    "each function is told its store, its time and its project": Promise(
        lambda found: all(
            (env := service(found, name)["environment_variables"])["POLYSKY_STORE"]
            == f"gs://{found['google_storage_bucket.store']['name']}"
            and env["POLYSKY_TIMEOUT_S"] == str(service(found, name)["timeout_seconds"])
            and env["GOOGLE_CLOUD_PROJECT"] == "polysky-test"
            and env["POLYSKY_REFRESH_S"] == "5"
            for name in FUNCTIONS
        ),
        *("functions.tf", "tostring(each.value.timeout_s)", '"60"'),
    ),
    "who predicts is built of the small package, the others of the large one": Promise(
        lambda found: (
            [source(found, name).rpartition("/")[2] for name in FUNCTIONS]
            == ["gcp-predict.zip", *["gcp-train.zip"] * 3]
        ),
        *("functions.tf", 'trainer = { package = "gcp-train"', 'trainer = { package = "gcp-predict"'),
    ),
    "an instance has the processor that its concurrency and memory need": Promise(
        lambda found: (
            all(
                (one := service(found, name))["max_instance_request_concurrency"] == 1
                or float(one["available_cpu"]) >= 1
                for name in FUNCTIONS
            )
            and {name: service(found, name)["available_cpu"] for name in FUNCTIONS}
            == {"predict": "1", "control": "1", "job": "2", "tick": "2"}
        ),
        *(
            "functions.tf",
            'memory_mb = var.predict_memory_mb, cpu = "1"',
            'memory_mb = var.predict_memory_mb, cpu = "0.5"',
        ),
    ),
    "builds run as their own account": Promise(
        lambda found: all(
            found[f'{ADDRESS}["{name}"]']["build_config"][0]["service_account"]
            == found["google_service_account.build"]["id"]
            for name in FUNCTIONS
        ),
        *(
            "functions.tf",
            "service_account = google_service_account.build.id",
            "service_account = google_service_account.events.id",
        ),
    ),
    "a build reads the copy of its package and no other": Promise(
        reads_sources, *("iam.tf", "objects/${local.name}-", "objects/")
    ),
    "the gateway is an account without any right": Promise(
        lambda found: (
            found["google_api_gateway_api_config.http"]["gateway_config"][0]["backend_config"][0][
                "google_service_account"
            ]
            == account(found, "gateway")
            and not [
                address
                for address, one in found.items()
                if one.get("member") == found["google_service_account.gateway"]["member"] and "_iam_" in address
            ]
        ),
        *("api.tf", "google_service_account.gateway.email", "google_service_account.build.email"),
    ),
    "events start only the job, as their own account": Promise(
        lambda found: (
            invoker(found, "events")
            == (
                found[f'{ADDRESS}["job"]']["name"],
                "roles/run.invoker",
                found["google_service_account.events"]["member"],
            )
            and found[f'{ADDRESS}["job"]']["event_trigger"][0]["service_account_email"] == account(found, "events")
        ),
        *("functions.tf", "google_service_account.events.email", "google_service_account.schedule.email"),
    ),
    "the clock starts only the tick, with a token for it": Promise(
        lambda found: (
            invoker(found, "schedule")
            == (
                found[f'{ADDRESS}["tick"]']["name"],
                "roles/run.invoker",
                found["google_service_account.schedule"]["member"],
            )
            and clock(found)["uri"] == service(found, "tick")["uri"] == clock(found)["oidc_token"][0]["audience"]
        ),
        *(
            "schedule.tf",
            'audience              = google_cloudfunctions2_function.function["tick"]',
            'audience              = google_cloudfunctions2_function.function["job"]',
        ),
    ),
    "a tick has its time and is not asked twice": Promise(
        lambda found: (
            (one := found["google_cloud_scheduler_job.tick"])["attempt_deadline"] == "900s"
            and service(found, "tick")["timeout_seconds"] == 900
            and one["retry_config"][0]["retry_count"] == 0
        ),
        *("schedule.tf", "retry_count = 0", "retry_count = 5"),
    ),
    "a bucket's events may be published, and their dead letters": Promise(
        lambda found: (
            (one := found["google_pubsub_topic_iam_member.failed"])["role"] == "roles/pubsub.publisher"
            and one["topic"] == found["google_pubsub_topic.failed"]["id"]
            and one["member"].endswith("@gcp-sa-pubsub.iam.gserviceaccount.com")
            and found["google_project_iam_member.storage"]["member"]
            == found["data.google_storage_project_service_account.storage"]["member"]
        ),
        *("events.tf", 'role   = "roles/pubsub.publisher"', 'role   = "roles/pubsub.viewer"'),
    ),
    "what is replaced is kept for ninety days": Promise(
        lambda found: (
            [
                (rule["condition"][0]["days_since_noncurrent_time"], rule["condition"][0]["with_state"])
                for rule in found["google_storage_bucket.store"]["lifecycle_rule"]
                if rule["action"][0]["type"] == "Delete"
            ]
            == [(90, "ARCHIVED")]
        ),
        *("bucket.tf", 'with_state                 = "ARCHIVED"', 'with_state                 = "LIVE"'),
    ),
    "tokens are read by those who check them": Promise(
        lambda found: (
            {
                (one["role"], one["secret_id"], one["member"])
                for address, one in found.items()
                if address.startswith("google_secret_manager_secret_iam_member.tokens")
            }
            == {
                (
                    "roles/secretmanager.secretAccessor",
                    found["google_secret_manager_secret.tokens[0]"]["id"],
                    found[f'google_service_account.function["{name}"]']["member"],
                )
                for name in ("predict", "control")
            }
        ),
        *("secrets.tf", "secretmanager.secretAccessor", "secretmanager.viewer"),
    ),
    "what serves and controls is open, and nothing else": Promise(
        lambda found: (
            {(one["service"], one["role"]) for one in found.values() if one.get("member") == "allUsers"}
            == {(found[f'{ADDRESS}["{name}"]']["name"], "roles/run.invoker") for name in ("predict", "control")}
        ),
        *(
            "iam.tf",
            'role     = "roles/run.invoker"\n  member   = "allUsers"',
            'role     = "roles/run.admin"\n  member   = "allUsers"',
        ),
    ),
    "the latency alarm listens to what predicts": Promise(
        lambda found: (
            'metric.type="run.googleapis.com/request_latencies"' in (told := alarm(found, "slow")["filter"])
            and 'service_name="polysky-prod-predict"' in told
        ),
        *(
            "observability.tf",
            'where   = "resource.labels.service_name=\\"${local.functions_seen["predict"]}\\""',
            'where   = "resource.labels.service_name=\\"${local.functions_seen["tick"]}\\""',
        ),
    ),
    "a function's alarm counts its own server errors": Promise(
        lambda found: all(
            f'service_name="polysky-prod-{name}"' in (told := alarm(found, f"errors-{name}")["filter"])
            and 'metric.type="run.googleapis.com/request_count"' in told
            and 'metric.labels.response_code_class="5xx"' in told
            and alarm(found, f"errors-{name}")["threshold_value"] == 0
            for name in FUNCTIONS
        ),
        *("observability.tf", 'response_code_class=\\"5xx\\"', 'response_code_class=\\"500\\"'),
    ),
    "dead letters wake somebody": Promise(
        lambda found: (
            'metric.type="pubsub.googleapis.com/subscription/num_undelivered_messages"'
            in (told := alarm(found, "failed-events")["filter"])
            and 'resource.labels.subscription_id="polysky-prod-failed"' in told
            and found["google_pubsub_subscription.failed"]["topic"] == found["google_pubsub_topic.failed"]["id"]
        ),
        *("observability.tf", "subscription/num_undelivered_messages", "subscription/num_outstanding_messages"),
    ),
    "what looks from outside asks the gateway, and is heard": Promise(
        lambda found: (
            found["google_monitoring_uptime_check_config.live"]["monitored_resource"][0]["labels"]["host"]
            == found["google_api_gateway_gateway.http"]["default_hostname"]
            and found["google_monitoring_uptime_check_config.live"]["uptime_check_id"]
            in alarm(found, "unreachable")["filter"]
            and found["google_monitoring_uptime_check_config.live"]["monitored_resource"][0]["type"]
            == "uptime_url"
            and alarm(found, "unreachable")["aggregations"][0]["cross_series_reducer"] == "REDUCE_COUNT_FALSE"
        ),
        *("observability.tf", '"REDUCE_COUNT_FALSE"', '"REDUCE_COUNT_TRUE"'),
    ),
    "every alarm tells the operator by mail": Promise(
        lambda found: all(
            one["notification_channels"] == [found["google_monitoring_notification_channel.mail[0]"]["name"]]
            for address, one in found.items()
            if address.startswith("google_monitoring_alert_policy.")
        ),
        *(
            "observability.tf",
            "google_monitoring_notification_channel.mail[*].name",
            "google_monitoring_notification_channel.mail[*].id",
        ),
    ),
    "the dashboard shows the platform's numbers of this deployment alone": Promise(
        lambda found: (
            {
                one["timeSeriesFilter"]["filter"].partition(" AND ")[0]
                for one in tiles(found)
                if "timeSeriesFilter" in one
            }
            == {
                f'metric.type="run.googleapis.com/{name}"'
                for name in ("request_count", "request_latencies", "container/instance_count")
            }
            and all(
                'full_match("polysky-prod-.*")' in json.dumps(one).replace("\\", "")
                for one in tiles(found)
                if "timeSeriesFilter" in one
            )
        ),
        *("observability.tf", 'metric = "container/instance_count"', 'metric = "container/instances"'),
    ),
    "every service that the stack uses is switched on": Promise(
        lambda found: (
            {
                "apigateway",
                "artifactregistry",
                "cloudbuild",
                "cloudfunctions",
                "cloudscheduler",
                "eventarc",
                "iam",
                "logging",
                "monitoring",
                "pubsub",
                "run",
                "secretmanager",
                "servicecontrol",
                "servicemanagement",
                "storage",
            }
            == {
                one["service"].removesuffix(".googleapis.com")
                for address, one in found.items()
                if address.startswith("google_project_service.")
            }
        ),
        *("versions.tf", '"eventarc", ', ""),
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
