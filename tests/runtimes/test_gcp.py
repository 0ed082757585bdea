"""The packaged functions on Google's functions-framework and gunicorn, GCS by its emulator, and Eventarc's ways.

The tests share one store and one server for each function; each leaves them working.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.config import Settings
from core.retraining import train_from_file
from core.spec import load_spec
from core.state import State
from core.store import MemoryStore, ObjectStore
from core.tokens import create_token, export_records
from core.worker import build_workshop
from scripts.package import build
from tests.emulators.gcs import Gcs
from tests.gcp.google import Google, payload
from tests.mood import SPEC, rows
from tests.runtimes.gcp_eventarc import Eventarc, headers_of
from tests.runtimes.gcp_server import FunctionServer, Reply, wait_for

QUESTION = b'{"text": "cake and a friend and a gift"}'
MALFORMED = Path(__file__).parents[1] / "events" / "gcp" / "malformed.json"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Site(NamedTuple):
    """A bucket with one trained model, and what is needed to reach it."""

    emulator: Gcs
    url: str
    store: ObjectStore
    token: str
    packages: Mapping[str, Path]

    def start(self, target: str, **more: str) -> FunctionServer:
        """Return the server of a function, to be entered."""
        env = {
            **self.emulator.env(),
            "POLYSKY_STORE": self.url,
            "POLYSKY_REFRESH_S": "0.1",
            "POLYSKY_MIN_UPLOAD_AGE_S": "0",
            **more,
        }
        return FunctionServer(self.packages["predict" if target == "http" else "train"], target, env)

    def upload(self, name: str, text: str) -> str:
        """Put a file into the inbox as a person does; return its key."""
        key = f"uploads/mood/{name}"
        self.emulator.upload(self.url, key, text.encode())
        return key

    def state(self) -> State:
        return build_workshop(Settings(), self.store, actor="test").registry.state("mood")

    def source(self, key: str) -> Any:
        """Return what the log says of the newest generation of an upload, None if nothing."""
        return next((found for found in reversed(self.state().sources.values()) if found.key == key), None)

    def production(self) -> str:
        return str(self.state().aliases["production"].splits[0].version)

    def predict(self, server: FunctionServer, **headers: str) -> Reply:
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        return server.ask("POST", "/predict/mood", QUESTION, given)

    def serving(self, server: FunctionServer) -> str:
        return self.predict(server).headers["x-model-version"]


@pytest.fixture(scope="module")
def site(gcs: Gcs, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    packages = {name: build(f"gcp-{name}", folder / name) for name in ("predict", "train")}
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    url = gcs.new_store_url()
    store = gcs.open(url)
    shop = build_workshop(Settings(), store, actor="test")
    train_from_file(shop, load_spec(str(folder / "mood.toml")), str(folder / "data.csv"))
    token, _ = create_token(store, "admin", clock=time.time, random_bytes=os.urandom)
    return Site(gcs, url, store, token, packages)


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[FunctionServer]:
    with site.start("http", THREADS="4") as server:
        yield server


@pytest.fixture(scope="module")
def job(site: Site) -> Iterator[FunctionServer]:
    with site.start("job", THREADS="8", POLYSKY_LEASE_S="3") as server:
        yield server


@pytest.fixture(scope="module")
def tick(site: Site) -> Iterator[FunctionServer]:
    with site.start("tick") as server:
        yield server


@pytest.fixture
def eventarc(site: Site, job: FunctionServer) -> Iterator[Eventarc]:
    with Eventarc(site.emulator, site.url, job) as trigger:
        yield trigger


def test_a_cold_start_answers_with_the_version_in_production(site: Site, http: FunctionServer) -> None:
    answer = site.predict(http)
    assert (answer.status, answer.json()["predictions"][0]["label"]) == (200, "glad")
    assert answer.headers["x-model-version"] == site.production()


def test_every_worker_that_is_forked_can_read(site: Site) -> None:
    with site.start("http", WORKERS="2", THREADS="1") as server:
        wait_for(lambda: len(server.lines("request")) >= 2, 20, what=server.log)  # both have warmed up
        assert site.predict(server).status == 200
        before = set(server.workers())
        server.kill_workers()
        wait_for(lambda: len(set(server.workers()) - before) == 2, 20, what=server.log)
        assert site.predict(server).status == 200


def test_core_answers_every_path_as_it_was_sent(site: Site, http: FunctionServer) -> None:
    headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "application/json"}
    assert http.ask("POST", "/predict/%6Dood?x=%2B+%C3%BC", QUESTION, headers).status == 200
    for path in ("/predict%2Fmood", "//predict/mood", "/predict//mood", "/robots.txt", "/favicon.ico", "/a%0Ab"):
        answer = http.ask("POST", path, QUESTION, headers)
        assert (answer.status, answer.json()["code"]) == (404, "not_found"), path
    assert http.ask("POST", "/predict/m%C3%B6d", QUESTION, headers).json()["code"] == "invalid_name"
    assert http.ask("POST", "/predict/mood", b"x" * 2_000_000, headers).status == 413
    assert http.ask("POST", "/predict/mood", QUESTION).status == 401
    assert http.ask("GET", "/models/mood/versions", headers=headers).status == 404
    head = http.ask("HEAD", "/health/live")
    assert (head.status, head.body, head.headers.get("content-length")) == (200, b"", None)
    assert "content-type" not in http.ask("OPTIONS", "/predict/mood", headers=headers).headers


def test_a_request_is_logged_with_its_trace_and_its_numbers(site: Site, http: FunctionServer) -> None:
    assert site.predict(http, traceparent=f"00-{TRACE}-{SPAN}-01").status == 200

    def mine() -> list[dict[str, Any]]:
        trace = f"projects/polysky-test/traces/{TRACE}"
        return [line for line in http.lines("request") if line.get("logging.googleapis.com/trace") == trace]

    line = wait_for(mine, 10, what=http.log)[0]
    assert (line["severity"], line["endpoint"], line["status"]) == ("INFO", "/predict/{model}", 200)
    assert (line["logging.googleapis.com/spanId"], line["logging.googleapis.com/trace_sampled"]) == (SPAN, True)
    assert len(line["logging.googleapis.com/labels"]["execution_id"]) == 12
    counts = [told["metrics"].get("app_request_count") for told in http.lines("metrics")]
    assert {"value": 1, "count": 1, "method": "POST", "endpoint": "/predict/{model}", "status": "200"} in counts
    assert site.token not in http.log()


def test_tokens_may_lie_in_secret_manager(site: Site) -> None:
    aside = MemoryStore()
    token, _ = create_token(aside, "predictor", clock=time.time, random_bytes=os.urandom)
    document = json.dumps(export_records(aside, now=time.time())).encode()
    with Google() as google, site.start("http", **google.env(), POLYSKY_TOKENS_SECRET="tokens") as server:
        google.put("polysky-test/secrets/tokens/versions/latest", 200, payload(document))
        assert site.predict(server, Authorization=f"Bearer {token}").status == 200
        assert site.predict(server).status == 401  # the tokens in the bucket do not count
        assert server.ask("POST", "/predict/mood", QUESTION).status == 401
        assert len(google.asked) == 2
        assert token not in server.log()


def test_an_upload_retrains_and_the_warm_predictor_changes_over(
    site: Site, http: FunctionServer, job: FunctionServer, eventarc: Eventarc
) -> None:
    before, workers = site.serving(http), http.workers()
    key = site.upload("neue Daten (1) 数据.csv", rows(1000, 60))
    eventarc.settle()
    source = site.source(key)
    assert (source.status, source.version) == ("published", site.production())
    assert source.version != before
    wait_for(lambda: site.serving(http) == source.version, 10, what=http.log)
    assert http.workers() == workers
    own = {event["name"] for event in eventarc.resources} - {key}
    assert {name.partition("/")[0] for name in own} == {"reg"}
    assert {delivery.status for delivery in eventarc.deliveries} == {200}
    assert not [line for line in job.lines("event_ignored") if line["severity"] != "INFO"]


def test_an_event_delivered_five_times_and_out_of_order_has_one_effect(
    site: Site, job: FunctionServer, tick: FunctionServer
) -> None:
    before = set(site.state().versions)
    with Eventarc(site.emulator, "gs://elsewhere", job) as silent:
        resources: list[dict[str, Any]] = []
        site.emulator.watch(resources.append)
        key = site.upload("twice.csv", rows(2000, 40))
        site.upload("twice.csv", rows(2500, 60))
        site.emulator.unwatch(resources.append)
        old, new = (found for found in resources if found["name"] == key)
        for event in (new, new, old, new, new, old, new):
            silent.send(event)
        silent.settle()
        assert tick.ask("POST", "/").status == 200
        fresh = set(site.state().versions) - before
        assert fresh == {site.production()}
        for event in (old, new, old):
            assert silent.post(event) == 200
    assert set(site.state().versions) - before == fresh


def test_malformed_and_foreign_events_are_taken_and_ignored(site: Site, job: FunctionServer) -> None:
    before = site.state().head
    for event in json.loads(MALFORMED.read_text()):
        answer = job.ask("POST", "/", event["body"].encode(), event["headers"])
        assert (answer.status, answer.json()) == (200, {"outcomes": []}), event
    bucket = site.url.removeprefix("gs://")
    for name in ("elsewhere/x.csv", "reg/_models/mood.json", "uploads/../reg/x", "uploads/mood/never-was.csv"):
        resource = {"bucket": bucket, "name": name, "generation": "1", "timeCreated": "2026-11-21T10:00:00Z"}
        assert job.ask("POST", "/", json.dumps(resource).encode(), headers_of(resource)).status == 200
    assert site.state().head - before <= 2  # the last one is an upload that is gone: claimed and rejected
    assert len(job.lines("event_dropped")) >= 5


def test_a_file_that_cannot_be_trained_on_is_rejected_and_its_event_is_done_with(
    site: Site, eventarc: Eventarc
) -> None:
    before = site.production()
    key = site.upload("wrong.csv", "txt,lbl\nsunny,glad\n")
    eventarc.settle()
    assert (site.source(key).status, site.production()) == ("rejected", before)
    assert [delivery.status for delivery in eventarc.deliveries if delivery.name == key] == [200]


def test_a_store_that_is_away_has_the_event_delivered_again_and_predictions_go_on(
    site: Site, http: FunctionServer, job: FunctionServer, eventarc: Eventarc
) -> None:
    version = site.serving(http)
    key = site.upload("patient.csv", rows(3000, 40))
    with site.emulator.outage():
        event = wait_for(lambda: eventarc.of(key), 10)[0]
        assert eventarc.post(event) == 503
        assert site.serving(http) == version
    eventarc.settle()
    assert site.source(key).status == "published"


def test_the_scheduler_finds_what_no_event_told_of(site: Site, tick: FunctionServer) -> None:
    key = site.upload("silent.csv", rows(3500, 40))
    answer = tick.ask("POST", "/", b"", {"User-Agent": "Google-Cloud-Scheduler"})
    assert answer.status == 200
    assert {"key": key, "status": "promoted", "version": site.production()} in answer.json()["outcomes"]


def test_the_control_plane_takes_an_upload_over_http(site: Site, tick: FunctionServer) -> None:
    with site.start("control") as control:
        headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "text/csv"}
        answer = control.ask("POST", "/retrain/mood", rows(4000, 40).encode(), headers)
        assert answer.status == 202
        assert tick.ask("POST", "/").status == 200
        found = control.ask("GET", f"/jobs/{answer.json()['job_id']}", headers=headers)
        assert found.json()["status"] == "succeeded"


class Reaper:
    """Kills a function's worker when it stores an artifact of an upload: it has trained, and has not published."""

    def __init__(self, server: FunctionServer, times: int) -> None:
        self._server = server
        self.left, self.kills = times, 0

    def __call__(self, resource: Mapping[str, Any]) -> None:
        if self.left and "/art/" in resource["name"]:
            self.left -= 1
            self.kills += self._server.kill_workers() > 0


def test_a_function_killed_in_the_middle_of_a_job_finishes_it_at_the_next_delivery(
    site: Site, job: FunctionServer
) -> None:
    reaper = Reaper(job, 1)
    site.emulator.watch(reaper)
    with Eventarc(site.emulator, site.url, job, backoff_s=3.2) as eventarc:  # the lease of the dead is 3 s
        key = site.upload("fatal once.csv", rows(5000, 60))
        eventarc.settle()
    site.emulator.unwatch(reaper)
    source = site.source(key)
    assert (reaper.kills, source.status, source.attempt) == (1, "published", 2)
    assert source.version == site.production()
    statuses = [delivery.status for delivery in eventarc.deliveries if delivery.name == key]
    assert statuses == [0, 200]


def test_a_file_that_kills_every_process_is_parked_and_the_others_succeed(
    site: Site, http: FunctionServer
) -> None:
    with site.start("job", POLYSKY_LEASE_S="1") as job, Eventarc(site.emulator, "gs://elsewhere", job) as eventarc:
        reaper = Reaper(job, 99)
        resources: list[dict[str, Any]] = []
        site.emulator.watch(resources.append)
        poison = site.upload("poison.csv", rows(6000, 60))
        site.emulator.unwatch(resources.append)
        site.emulator.watch(reaper)
        wait_for(lambda: eventarc.post(resources[0]) and site.source(poison).status == "parked", 60, what=job.log)
        site.emulator.unwatch(reaper)
        assert (reaper.kills, site.source(poison).attempt) == (3, 3)
        with Eventarc(site.emulator, site.url, job) as trigger:
            good = site.upload("good.csv", rows(7000, 60))
            trigger.settle()
        assert (site.source(good).status, site.source(poison).status) == ("published", "parked")
    wait_for(lambda: site.serving(http) == site.production(), 10, what=http.log)
