"""The packaged function apps on Microsoft's Python worker runtime, with Azurite for a store and Event Grid's ways.

The tests of one fixture share its processes and store; each leaves them working.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
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
from scripts.packaging.installation import InstallFailed
from tests.emulators.azurite import ACCOUNT
from tests.emulators.emulator import Emulator
from tests.emulators.missing import absent
from tests.mood import SPEC, rows
from tests.runtimes.azure_app import Answer, EventGrid, FunctionApp, until

QUESTION = b'{"text": "cake and a friend and a gift"}'
MALFORMED = Path(__file__).parents[1] / "events" / "azure" / "malformed.json"


class Plant(NamedTuple):
    """A store with one trained model, and what is needed to reach it."""

    emulator: Emulator
    url: str
    store: ObjectStore
    token: str

    def env(self, **more: str) -> dict[str, str]:
        return {
            **self.emulator.env(),
            "POLYSKY_STORE": self.url,
            "POLYSKY_REFRESH_S": "0.1",
            "POLYSKY_MIN_UPLOAD_AGE_S": "0",
            **more,
        }

    def grid(self, app: FunctionApp) -> EventGrid:
        return EventGrid(app, ACCOUNT, self.url.removeprefix("az://"))

    def upload(self, name: str, text: str) -> tuple[str, str]:
        """Put a file into the inbox as a person does; return its key and ETag."""
        key = f"uploads/mood/{name}"
        self.emulator.upload(self.url, key, text.encode())
        return key, self.store.head(key).token

    def state(self) -> State:
        return build_workshop(Settings(), self.store, actor="test").registry.state("mood")

    def source(self, key: str) -> Any:
        """Return what the log says of an upload, None if nothing."""
        return next((source for source in self.state().sources.values() if source.key == key), None)

    def production(self) -> str:
        return str(self.state().aliases["production"].splits[0].version)

    def predict(self, app: FunctionApp) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        return app.ask("POST", "/predict/mood", QUESTION, headers)

    def serving(self, app: FunctionApp) -> str:
        return self.predict(app).headers["x-model-version"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    try:
        return {name: build(f"azure-{name}", folder / name) for name in ("predict", "train")}
    except InstallFailed:
        absent("the requirements of the packages (from a package index)")


@pytest.fixture(scope="module")
def plant(azurite: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("data")
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    url = azurite.new_store_url()
    store = azurite.open(url)
    shop = build_workshop(Settings(), store, actor="test")
    train_from_file(shop, load_spec(str(folder / "mood.toml")), str(folder / "data.csv"))
    token, _ = create_token(store, "admin", clock=time.time, random_bytes=os.urandom)
    return Plant(azurite, url, store, token)


@pytest.fixture(scope="module")
def predict(packages: dict[str, Path], plant: Plant) -> Iterator[FunctionApp]:
    with FunctionApp(packages["predict"], plant.env()) as app:
        yield app


@pytest.fixture(scope="module")
def train(packages: dict[str, Path], plant: Plant) -> Iterator[FunctionApp]:
    with FunctionApp(packages["train"], plant.env()) as app:
        yield app


@pytest.fixture(scope="module")
def mortal(packages: dict[str, Path], plant: Plant) -> Iterator[FunctionApp]:
    """The app that trains, whose process does not survive files with `deadly` in their names."""
    with FunctionApp(packages["train"], plant.env(POLYSKY_LEASE_S="1"), mortal="deadly") as app:
        yield app


def test_a_cold_start_answers_with_the_version_in_production(predict: FunctionApp, plant: Plant) -> None:
    assert predict.functions == ["http"]
    answer = plant.predict(predict)
    assert (answer.status, answer.json()["predictions"][0]["label"]) == (200, "glad")
    assert answer.headers["x-model-version"] == plant.production()


def test_the_app_that_predicts_checks_tokens_and_has_no_control_plane(predict: FunctionApp, plant: Plant) -> None:
    assert predict.ask("POST", "/predict/mood", QUESTION).status == 401
    token = {"Authorization": f"Bearer {plant.token}"}
    assert predict.ask("GET", "/models/mood/versions", headers=token).status == 404


def test_the_path_arrives_as_it_was_sent(predict: FunctionApp, plant: Plant) -> None:
    headers = {"Authorization": f"Bearer {plant.token}", "Content-Type": "application/json"}
    assert predict.ask("POST", "/predict/%6Dood?x=%2B+%C3%BC", QUESTION, headers).status == 200
    assert predict.ask("POST", "/predict%2Fmood", QUESTION, headers).status == 404
    assert predict.ask("POST", "/predict/m%C3%B6d", QUESTION, headers).json()["code"] == "invalid_name"


def test_an_invocation_is_logged_with_its_dimensions_trace_and_numbers(predict: FunctionApp, plant: Plant) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"Authorization": f"Bearer {plant.token}", "traceparent": f"00-{trace}-{span}-01"}
    assert predict.ask("GET", "/models", headers=headers).status == 200
    line = until(lambda: [e for e in predict.events("request") if e.get("trace_id") == trace], 10)[0]
    assert (line["span_id"], line["endpoint"], line["status"]) == (span, "/models", 200)
    told = until(lambda: [e for e in predict.events("metrics") if e.get("trace_id") == trace], 10)[0]
    counts = [m for m in json.loads(told["metrics"]) if m["name"] == "app_request_count"]
    assert counts[0]["dimensions"] == {"method": "GET", "endpoint": "/models", "status": "200"}


def test_event_grid_gets_its_handshake(train: FunctionApp, plant: Plant) -> None:
    assert train.functions == ["control", "job", "tick"]
    answer = plant.grid(train).handshake("512d38b6-c7b8-40c8-89fe-f46f9e9622b6")
    assert (answer.status, answer.json()["validationResponse"]) == (200, "512d38b6-c7b8-40c8-89fe-f46f9e9622b6")


def test_an_upload_retrains_and_the_warm_predictor_changes_over(
    predict: FunctionApp, train: FunctionApp, plant: Plant
) -> None:
    before = plant.serving(predict)
    key, etag = plant.upload("neue Daten (1).csv", rows(1000, 60))
    assert plant.grid(train).deliver(plant.grid(train).created(key, etag)) == [202]
    source = plant.source(key)
    assert (source.status, source.version) == ("published", plant.production())
    assert source.version != before
    until(lambda: plant.serving(predict) == source.version, 10)
    assert predict.starts == 1


def test_an_event_delivered_five_times_and_out_of_order_has_one_effect(train: FunctionApp, plant: Plant) -> None:
    grid, before = plant.grid(train), set(plant.state().versions)
    key, first = plant.upload("twice.csv", rows(2000, 40))
    old = grid.created(key, first)
    key, second = plant.upload("twice.csv", rows(2500, 60))
    new = grid.created(key, second)
    grid.deliver_all([new, new, old, new, new, old, new], at_once=4)
    train.tick()
    fresh = set(plant.state().versions) - before
    assert fresh == {plant.production()}
    assert set(grid.deliver_all([old, new], at_once=1)[1]) == {202}
    assert set(plant.state().versions) - before == fresh


def test_malformed_and_foreign_events_are_taken_and_ignored(train: FunctionApp, plant: Plant) -> None:
    grid, before = plant.grid(train), plant.state().head
    events = json.loads(MALFORMED.read_text())
    assert [grid.post(event).status for event in events] == [202] * len(events)
    plant.emulator.upload(plant.url, "elsewhere/x.csv", b"a,b\n")
    for key in ("elsewhere/x.csv", "reg/_models/mood.json", "uploads/../reg/x"):
        assert grid.deliver(grid.created(key, "0x1")) == [202]
    assert (plant.state().head, train.starts) == (before, 1)


def test_an_event_of_a_blob_that_is_gone_is_taken_and_told_of_in_the_log(train: FunctionApp, plant: Plant) -> None:
    grid, key = plant.grid(train), "uploads/mood/never-was.csv"
    assert grid.deliver_all([grid.created(key, "0x8D4BCC2E4835CD0")] * 2, at_once=1) == [[202], [202]]
    assert (plant.source(key).status, plant.source(key).reason) == ("rejected", "gone")


def test_the_timer_finds_what_no_event_told_of(train: FunctionApp, plant: Plant) -> None:
    key, _ = plant.upload("silent.csv", rows(3000, 40))
    assert train.tick().status == 202
    assert plant.source(key).status == "published"


def test_the_control_plane_takes_an_upload_over_http(train: FunctionApp, plant: Plant) -> None:
    headers = {"Authorization": f"Bearer {plant.token}", "Content-Type": "text/csv"}
    answer = train.ask("POST", "/retrain/mood", rows(4000, 40).encode(), headers)
    assert answer.status == 202
    train.tick()
    job = train.ask("GET", f"/jobs/{answer.json()['job_id']}", headers=headers)
    assert job.json()["status"] == "succeeded"


def test_a_function_killed_in_the_middle_of_a_job_finishes_it_at_the_next_delivery(
    mortal: FunctionApp, plant: Plant
) -> None:
    grid, starts = plant.grid(mortal), mortal.starts
    key, etag = plant.upload("deadly once.csv", rows(5000, 60))
    event = grid.created(key, etag)
    assert grid.post(event).status == 0
    assert plant.source(key).status == "claimed"
    mortal.mortal = ""
    time.sleep(1.0)  # the lease of the dead
    grid.deliver(event)
    mortal.mortal = "deadly"
    source = plant.source(key)
    assert (source.status, source.attempt) == ("published", 2)
    assert (mortal.starts, source.version) == (starts + 1, plant.production())


def test_a_file_that_kills_every_process_is_parked_and_the_others_succeed(
    mortal: FunctionApp, predict: FunctionApp, plant: Plant
) -> None:
    mortal.kill()
    grid = plant.grid(mortal)
    key, etag = plant.upload("deadly.csv", rows(6000, 60))
    poison, answers = grid.created(key, etag), list[int]()

    def is_parked() -> bool:
        mortal.keep_alive()
        answers.append(grid.post(poison).status)
        source = plant.source(key)
        return source is not None and source.status == "parked"

    until(is_parked, 60)
    assert (answers.count(0), plant.source(key).attempt) == (3, 3)
    assert set(answers) == {0, 202}
    good, etag = plant.upload("good.csv", rows(7000, 60))
    assert grid.deliver(grid.created(good, etag)) == [202]
    assert plant.source(good).status == "published"
    assert plant.source(key).status == "parked"
    until(lambda: plant.serving(predict) == plant.production(), 10)
