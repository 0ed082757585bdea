"""The packaged functions on Lambda's Runtime Interface Emulator, S3 by moto, and S3's notifications.

The tests share one store and one environment for each function; each leaves them working.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.config import Settings
from core.retraining import train_from_file
from core.spec import load_spec
from core.state import State
from core.store import ObjectStore
from core.tokens import create_token
from core.worker import build_workshop
from scripts.package import build
from tests.aws.recorded import event
from tests.emulators.moto import Moto, Put
from tests.mood import SPEC, rows
from tests.runtimes.aws_lambda import Function, wait_for
from tests.runtimes.aws_notifications import Notifications, notification

QUESTION = '{"text": "cake and a friend and a gift"}'
TICK = event("schedule")
LEASE_S = 3


class Site(NamedTuple):
    """A bucket with one trained model, and what is needed to reach it."""

    moto: Moto
    url: str
    store: ObjectStore
    token: str
    packages: Mapping[str, Path]

    def start(self, entry: str, *, timeout_s: int = 60, **more: str) -> Function:
        """Return an execution environment of a function, to be entered."""
        env = {
            **self.moto.env(),
            "AWS_SESSION_TOKEN": "session",
            "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:9",
            "POLYSKY_STORE": self.url,
            "POLYSKY_REFRESH_S": "0.1",
            "POLYSKY_MIN_UPLOAD_AGE_S": "0",
            **more,
        }
        package = self.packages["predict" if entry == "http" else "train"]
        return Function(package, entry, env, timeout_s=timeout_s)

    def upload(self, name: str, text: str) -> str:
        """Put a file into the inbox as a person does; return its key."""
        key = f"uploads/mood/{name}"
        self.moto.upload(self.url, key, text.encode())
        return key

    def put_of(self, key: str) -> Put:
        """Return what S3 would tell of an object that is there."""
        entry = self.store.head(key)
        return Put(self.url.removeprefix("s3://"), key, entry.token, entry.size)

    def state(self) -> State:
        return build_workshop(Settings(), self.store, actor="test").registry.state("mood")

    def source(self, key: str) -> Any:
        """Return what the log says of the newest generation of an upload, None if nothing."""
        return next((found for found in reversed(self.state().sources.values()) if found.key == key), None)

    def production(self) -> str:
        return str(self.state().aliases["production"].splits[0].version)

    def ask(self, function: Function, path: str, body: str = QUESTION, kind: str = "http_api") -> dict[str, Any]:
        """Return a function's answer to a request, which came by an HTTP API unless `kind` says otherwise."""
        asked = event(kind)
        asked["headers"] = asked["headers"] | {"authorization": f"Bearer {self.token}"}
        asked["headers"].pop("content-length", None)
        answer: dict[str, Any] = function.invoke(
            {**asked, "rawPath": path, "rawQueryString": "", "body": body}
        ).value
        return answer

    def serving(self, function: Function) -> str:
        answer = self.ask(function, "/predict/mood")
        assert answer["statusCode"] == 200
        return str(answer["headers"]["X-Model-Version"])


@pytest.fixture(scope="module")
def site(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    packages = {name: build(f"aws-{name}", folder / name) for name in ("predict", "train")}
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    url = moto.new_store_url()
    store = moto.open(url)
    shop = build_workshop(Settings(), store, actor="test")
    train_from_file(shop, load_spec(str(folder / "mood.toml")), str(folder / "data.csv"))
    token, _ = create_token(store, "admin", clock=time.time, random_bytes=os.urandom)
    return Site(moto, url, store, token, packages)


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[Function]:
    with site.start("http") as function:
        yield function


@pytest.fixture(scope="module")
def job(site: Site) -> Iterator[Function]:
    with site.start("job", POLYSKY_LEASE_S=str(LEASE_S)) as function:
        yield function


@pytest.fixture(scope="module")
def tick(site: Site) -> Iterator[Function]:
    with site.start("tick") as function:
        yield function


@pytest.fixture
def notifications(site: Site, job: Function) -> Iterator[Notifications]:
    with Notifications(site.moto, site.url, job) as found:
        yield found


def test_a_cold_start_answers_with_the_version_in_production(site: Site, http: Function) -> None:
    answer = site.ask(http, "/predict/mood")
    assert (answer["statusCode"], answer["headers"]["X-Model-Version"]) == (200, site.production())
    assert json.loads(answer["body"])["predictions"][0]["label"] == "glad"


def test_each_kind_of_http_event_is_answered_in_its_form(site: Site, http: Function) -> None:
    assert site.ask(http, "/predict/mood", kind="function_url")["statusCode"] == 200
    balanced = {**event("balancer"), "path": "/predict/mood", "queryStringParameters": {}, "body": QUESTION}
    balanced["headers"] = {"x-api-key": site.token, "content-type": "application/json"}
    assert http.invoke(balanced).value["statusDescription"] == "200 OK"
    rest = {**event("rest"), "path": "/predict/mood", "multiValueQueryStringParameters": None, "body": QUESTION}
    rest["multiValueHeaders"] = {"X-Api-Key": [site.token], "Content-Type": ["application/json"]}
    answer = http.invoke({**rest, "isBase64Encoded": False, "queryStringParameters": None}).value
    assert answer["multiValueHeaders"]["X-Model-Version"] == [site.production()]


def test_what_is_no_request_is_refused_and_ends_nothing(site: Site, http: Function) -> None:
    site.ask(http, "/health/live")
    before = http.processes()
    for malformed in event("malformed"):
        assert http.invoke(malformed).value["statusCode"] in (400, 401, 404, 405), malformed
    assert site.ask(http, "/models/mood/versions")["statusCode"] in (404, 405)
    assert http.processes() == before


def test_a_request_is_logged_with_its_invocation_and_its_numbers(site: Site, http: Function) -> None:
    seen = len(http.lines("request"))
    assert site.ask(http, "/predict/mood")["statusCode"] == 200
    line = wait_for(lambda: http.lines("request")[seen:], 10, what=http.log)[0]
    assert (line["level"], line["endpoint"], line["status"]) == ("INFO", "/predict/{model}", 200)
    assert (line["service"], line["function_name"], line["function_memory_size"]) == (
        "polysky",
        "polysky-http",
        "1769",
    )
    assert line["correlation_id"] == "UXyzAbCdEfGhIjk="
    assert len(line["function_request_id"]) == 36
    document = wait_for(
        lambda: [found for found in http.metrics() if found.get("endpoint") == "/predict/{model}"],
        10,
        what=http.log,
    )[-1]
    assert (document["method"], document["status"], document["app_request_count"]) == ("POST", "200", [1.0])
    assert site.token not in http.log()


def test_an_upload_retrains_and_the_warm_predictor_changes_over(
    site: Site, http: Function, job: Function, notifications: Notifications
) -> None:
    before, processes = site.serving(http), http.processes()
    key = site.upload("neue Daten (1) 100%+ 数据.csv", rows(1000, 60))
    notifications.settle()
    source = site.source(key)
    assert (source.status, source.version) == ("published", site.production())
    assert source.version != before
    wait_for(lambda: site.serving(http) == source.version, 10, what=http.log)
    assert http.processes() == processes
    own = {put.key for put in notifications.puts} - {key}
    assert {name.partition("/")[0] for name in own} == {"reg"}
    assert {delivery.result.error for delivery in notifications.deliveries} == {""}
    assert [line for line in job.lines("event_ignored") if line["level"] != "INFO"] == []


def test_a_job_is_logged_by_powertools_with_its_numbers(site: Site, job: Function) -> None:
    result = job.invoke(notification(site.put_of(site.upload("logged.csv", rows(1500, 40)))))
    assert [found["status"] for found in result.value["outcomes"]] == ["promoted"]
    line = wait_for(lambda: job.lines("job_outcome"), 10, what=job.log)[-1]
    assert (line["level"], line["status"], line["function_name"]) == ("INFO", "promoted", "polysky-job")
    assert {"location", "timestamp", "cold_start", "function_request_id", "function_arn"} <= set(line)

    def counted() -> list[dict[str, Any]]:
        return [found for found in job.metrics() if found.get("outcome") == "promoted"]

    assert wait_for(counted, 10, what=job.log)[-1]["retraining_events_count"] == [1.0]
    assert job.noise() == []


def test_an_event_delivered_five_times_and_out_of_order_has_one_effect(
    site: Site, job: Function, tick: Function
) -> None:
    before = set(site.state().versions)
    key = site.upload("twice.csv", rows(2000, 40))
    old = site.put_of(key)
    site.upload("twice.csv", rows(2500, 60))
    new = site.put_of(key)
    for put in (new, new, old, new, new, old, new):
        assert job.invoke(notification(put)).error == ""
    assert tick.invoke(TICK).error == ""
    fresh = set(site.state().versions) - before
    assert fresh == {site.production()}
    for put in (old, new, old):
        assert job.invoke(notification(put)).error == ""
    assert set(site.state().versions) - before == fresh


def test_malformed_and_foreign_events_are_taken_and_ignored(site: Site, job: Function) -> None:
    before = site.state().head
    for found in [*event("malformed"), event("s3_test"), event("s3"), event("eventbridge_deleted")]:
        result = job.invoke(found)
        assert (result.error, result.value) == ("", {"outcomes": []}), found
    bucket = site.url.removeprefix("s3://")
    for key in ("elsewhere/x.csv", "reg/_models/mood.json", "uploads/../reg/x", "uploads/mood/never-was.csv"):
        assert job.invoke(notification(Put(bucket, key, "0" * 32, 1))).error == ""
    assert site.state().head - before <= 2  # the last one is an upload that is gone: claimed and rejected
    assert len(job.lines("event_dropped")) >= 20


def test_an_event_of_eventbridge_trains_too(site: Site, job: Function) -> None:
    put = site.put_of(site.upload("über Brücken+%28.csv", rows(2800, 40)))
    found = event("eventbridge")
    found["detail"] |= {"bucket": {"name": put.bucket}, "object": {"key": put.key, "etag": put.etag, "size": 1}}
    assert [outcome["key"] for outcome in job.invoke(found).value["outcomes"]] == [put.key]
    assert site.source(put.key).status == "published"


def test_a_store_that_is_away_has_the_event_delivered_again_and_predictions_go_on(
    site: Site, http: Function, job: Function
) -> None:
    version = site.serving(http)
    put = site.put_of(site.upload("patient.csv", rows(3000, 40)))
    with site.moto.outage():
        assert job.invoke(notification(put)).error.startswith("Unavailable")
        assert site.serving(http) == version
    assert job.invoke(notification(put)).error == ""
    assert site.source(put.key).status == "published"


def test_the_schedule_finds_what_no_event_told_of(site: Site, tick: Function) -> None:
    key = site.upload("silent.csv", rows(3500, 40))
    outcomes = tick.invoke(TICK).value["outcomes"]
    assert {"key": key, "status": "promoted", "version": site.production()} in outcomes


def test_the_control_plane_takes_an_upload_over_http(site: Site, tick: Function) -> None:
    with site.start("control") as control:
        asked = {**event("http_api"), "rawQueryString": ""}
        headers = {"authorization": f"Bearer {site.token}", "content-type": "text/csv"}
        found = {**asked, "headers": headers, "rawPath": "/retrain/mood", "body": rows(4000, 40)}
        answer = control.invoke(found).value
        assert answer["statusCode"] == 202
        assert tick.invoke(TICK).error == ""
        asked["requestContext"]["http"]["method"] = "GET"
        path = f"/jobs/{json.loads(answer['body'])['job_id']}"
        found = {**asked, "headers": headers, "rawPath": path, "body": ""}
        assert json.loads(control.invoke(found).value["body"])["status"] == "succeeded"


class Reaper:
    """Signals a function's process when it has written a key with `part` in it."""

    def __init__(self, function: Function, part: str, times: int, number: int = signal.SIGKILL) -> None:
        self._function, self._part, self._number = function, part, number
        self.left, self.hits = times, 0

    def __call__(self, put: Put) -> None:
        if self.left and self._part in put.key:
            self.left -= 1
            self.hits += self._function.signal(self._number)


def test_a_function_killed_in_the_middle_of_a_job_finishes_it_at_the_next_delivery(
    site: Site, job: Function
) -> None:
    reaper = Reaper(job, "/art/", 1)
    with Notifications(site.moto, site.url, job, backoff_s=LEASE_S + 0.2) as notifications:
        site.moto.watch(reaper)
        key = site.upload("fatal once.csv", rows(5000, 60))
        notifications.settle()
    site.moto.unwatch(reaper)
    source = site.source(key)
    assert (reaper.hits, source.status, source.attempt) == (1, "published", 2)
    assert source.version == site.production()
    first, second = notifications.of(key)
    assert (bool(first.error), second.error) == (True, "")


def test_a_function_that_lambda_ends_at_its_timeout_finishes_at_the_next_delivery(site: Site) -> None:
    with site.start("job", timeout_s=16, POLYSKY_LEASE_S="1") as function:
        assert function.invoke(event("s3_test")).error == ""
        put = site.put_of(site.upload("frozen.csv", rows(5500, 60)))
        reaper = Reaper(function, "reg/mood/log/", 1, signal.SIGSTOP)
        site.moto.watch(reaper)
        result = function.invoke(notification(put))
        site.moto.unwatch(reaper)
        assert (reaper.hits, result.error[:14]) == (1, "Task timed out")
        assert site.source(put.key).status == "claimed"
    with site.start("job", POLYSKY_LEASE_S="1") as function:
        assert function.invoke(notification(put)).error == ""
    source = site.source(put.key)
    assert (source.status, source.attempt) == ("published", 2)


def test_a_run_that_would_not_end_in_time_is_not_begun(site: Site) -> None:
    with site.start("job", timeout_s=9) as function:
        put = site.put_of(site.upload("hasty.csv", rows(5800, 40)))
        outcomes = function.invoke(notification(put)).value["outcomes"]
    assert [outcome["status"] for outcome in outcomes] == ["timeout"]
    assert site.source(put.key) is None


def test_a_file_that_kills_every_process_is_parked_and_the_others_succeed(
    site: Site, http: Function, tick: Function
) -> None:
    tick.invoke(TICK)
    with site.start("job", POLYSKY_LEASE_S="1") as function:
        reaper = Reaper(function, "/art/", 99)
        poison = site.put_of(site.upload("poison.csv", rows(6000, 60)))
        site.moto.watch(reaper)

        def parked() -> bool:
            function.invoke(notification(poison))
            return bool(site.source(poison.key).status == "parked")

        wait_for(parked, 90, what=function.log)
        site.moto.unwatch(reaper)
        assert (reaper.hits, site.source(poison.key).attempt) == (3, 3)
        with Notifications(site.moto, site.url, function) as notifications:
            good = site.upload("good.csv", rows(7000, 60))
            notifications.settle()
        assert (site.source(good).status, site.source(poison.key).status) == ("published", "parked")
    wait_for(lambda: site.serving(http) == site.production(), 10, what=http.log)


def test_a_dependency_that_is_not_in_the_package_is_not_there_at_all(site: Site) -> None:
    with site.start("job") as whole:
        assert whole.invoke(event("s3_test")).error == ""
    with Function(site.packages["predict"], "job", {**site.moto.env(), "POLYSKY_STORE": site.url}) as bare:
        assert "ModuleNotFound" in bare.invoke(event("s3_test")).error
