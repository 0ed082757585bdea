"""The worker's top: events that are none of its business, work nobody told of, and runs that go wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import training
from core.building import Builder
from core.errors import Denied, FitFailed, Unavailable
from core.worker import MEND_S, Event, Worker
from tests.core.plant import UPLOAD, Crash, FaultyStore, MarkedStore, Plant, down
from tests.core.toys import csv, messages, text_spec


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = Plant()
    plant.train(tmp_path_factory.mktemp("data"))
    return plant


@pytest.fixture
def plant(trained: Plant) -> Plant:
    return trained.copy()


def _raising(error: BaseException, *, only: int | None = None) -> Builder:
    """Return a builder whose training raises, always or only for data of so many rows."""

    def train(spec: Any, data: Any, **options: Any) -> training.TrainedModel:
        if only is None or data.n_rows == only:
            raise error
        return training.train(spec, data, **options)

    return Builder(train=train)


def _events(plant: Plant, name: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, plant.lines) if line["event"] == name]


def _counted(plant: Plant, status: str, model: str = "toy") -> bool:
    return (
        f'retraining_events_count{{model="{model}",outcome="{status}"}}' in plant.telemetry.exposition().decode()
    )


# --- what is not the worker's business


def test_no_key_that_the_system_writes_starts_a_training(plant: Plant) -> None:
    plant.upload(messages(60, seed=1))
    plant.first.handle(Event(UPLOAD))
    head = plant.state().head
    keys = [entry.key for entry in plant.store.list("")]
    assert len(keys) > 10
    for key in keys:
        if key != UPLOAD:
            assert plant.first.handle(Event(key)).status == "ignored"
    assert plant.first.handle(Event(UPLOAD)).status == "done"
    assert plant.state().head == head


_ODD_KEYS = (
    "",
    "x",
    "uploads/",
    "uploads/toy",
    "uploads/../reg/x",
    "uploads/TOY/x.csv",
    "/uploads/toy/x",
    "uploads/toy/a\\b",
    "uploads/toy/\0",
    "uploads/toy/" + "a" * 2000,
    "uploads/toy/\ud800",
    "jobs/toy/x.txt",
    "jobs/toy/a/b.json",
)


@pytest.mark.parametrize("key", _ODD_KEYS, ids=range(len(_ODD_KEYS)))
def test_malformed_and_foreign_keys_are_ignored(plant: Plant, key: str) -> None:
    head = plant.state().head
    assert plant.first.handle(Event(key)).status == "ignored"
    assert plant.state().head == head


def test_a_forged_key_is_a_warning_and_a_side_file_is_not(plant: Plant) -> None:
    plant.first.handle(Event("../etc/passwd"))
    plant.first.handle(Event("uploads/toy/new.csv.sha256"))
    plant.first.handle(Event("reg/toy/alias/production.json"))
    assert [line["level"] for line in _events(plant, "event_ignored")] == ["warning", "info", "info"]


# --- what nobody told of


def test_uploads_whose_events_were_lost_are_found_and_trained_together(plant: Plant) -> None:
    for n in range(12):
        plant.upload(messages(20, seed=n + 1), f"uploads/toy/{n}.csv")
    outcomes = plant.first.tick()
    assert {outcome.status for outcome in outcomes} == {"promoted"}
    assert len({outcome.version for outcome in outcomes}) == 1
    done = plant.outcomes()
    assert [done[f"uploads/toy/{n}.csv"] for n in range(12)] == ["published"] * 12
    assert plant.first.tick() == []


def test_an_event_takes_the_other_waiting_uploads_along(plant: Plant) -> None:
    plant.upload(messages(30, seed=1), "uploads/toy/a.csv")
    plant.upload(messages(30, seed=2), "uploads/toy/b.csv")
    first = plant.first.handle(Event("uploads/toy/b.csv"))
    second = plant.first.handle(Event("uploads/toy/a.csv"))
    assert (first.status, second.status) == ("promoted", "done")
    assert first.version == second.version


def test_a_bad_upload_among_many_is_rejected_alone(plant: Plant) -> None:
    plant.upload(messages(30, seed=1), "uploads/toy/a.csv")
    plant.upload(b"text,wrong\nx,y\n", "uploads/toy/b.csv")
    plant.upload(messages(30, seed=2), "uploads/toy/c.csv")
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted", "rejected", "promoted"]


def test_a_first_bad_upload_leaves_the_run_to_the_others(plant: Plant) -> None:
    plant.upload(b"", "uploads/toy/a.csv")
    plant.upload(messages(30, seed=2), "uploads/toy/c.csv")
    assert [outcome.status for outcome in plant.first.tick()] == ["rejected", "promoted"]


def test_uploads_that_fail_together_are_tried_one_by_one(plant: Plant) -> None:
    plant.upload(messages(30, seed=1), "uploads/toy/a.csv")
    strange = csv(messages(30, seed=2, topics=("login", "billing"))).replace(b",login", b",unheard")
    plant.upload(strange, "uploads/toy/b.csv")
    assert [outcome.status for outcome in plant.first.tick()] == ["failed", "failed"]
    assert sorted(outcome.status for outcome in plant.first.tick()) == ["promoted", "rejected"]
    assert not plant.waiting()


def test_an_upload_that_may_still_grow_is_left_for_later(plant: Plant) -> None:
    plant.store.put(UPLOAD, csv(messages(30, seed=1)))
    assert plant.first.tick() == []
    plant.clock.now += 5
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted"]


def test_an_expired_claim_is_taken_up(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    with pytest.raises(Crash):
        plant.worker(builder=_raising(Crash())).handle(Event(UPLOAD))
    assert plant.first.handle(Event(UPLOAD)).status == "in_progress"
    assert plant.first.tick() == []
    plant.clock.now += 1000
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted"]


# --- runs that go wrong


def test_a_source_that_always_fails_is_parked_and_others_are_not_affected(plant: Plant) -> None:
    poisoned = plant.worker(builder=_raising(ZeroDivisionError("31337"), only=None))
    plant.upload(messages(30, seed=1), "uploads/toy/poison.csv")
    assert [poisoned.tick()[0].status for _ in range(3)] == ["failed", "failed", "parked"]
    assert poisoned.tick() == []
    assert _counted(plant, "parked")
    plant.upload(messages(30, seed=2), "uploads/toy/good.csv")
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted"]
    assert plant.outcomes()["uploads/toy/poison.csv"] == "parked"


def test_what_went_wrong_is_logged_with_its_place_and_without_values(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    plant.worker(builder=_raising(ZeroDivisionError("31337"))).tick()
    (line,) = _events(plant, "job_failed")
    assert line["kind"] == "ZeroDivisionError"
    assert line["where"].startswith("train:")
    assert "31337" not in "".join(plant.lines)


def test_a_fit_that_fails_is_rejected(tmp_path: Path) -> None:
    plant = Plant()
    spec = text_spec(estimator={"kind": "linear", "algorithm": "logistic_regression"})
    plant.train(tmp_path, spec=spec)
    plant.upload(messages(30, seed=1))
    outcome = plant.worker(builder=_raising(FitFailed("did not fit", reason="fit"))).tick()[0]
    assert (outcome.status, outcome.reason) == ("rejected", "fit: did not fit")


@pytest.mark.parametrize("remaining", [0.0, -5.0, 9.0])
def test_a_run_without_time_left_does_not_start(plant: Plant, remaining: float) -> None:
    plant.upload(messages(30, seed=1))
    head = plant.state().head
    assert plant.first.handle(Event(UPLOAD), deadline=plant.clock.now + remaining).status == "timeout"
    assert plant.state().head == head


def test_a_run_that_would_pass_its_deadline_stops_and_the_next_attempt_runs(plant: Plant) -> None:
    def slow(*args: Any, **options: Any) -> training.TrainedModel:
        plant.clock.now += 100
        options["check"]()
        raise AssertionError

    plant.upload(messages(30, seed=1))
    outcome = plant.worker(builder=Builder(train=slow)).handle(Event(UPLOAD), deadline=plant.clock.now + 60)
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("timeout", "timeout")
    assert [found.status for found in plant.first.tick()] == ["promoted"]


def test_a_lease_ends_soon_after_the_deadline(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    with pytest.raises(Crash):
        plant.worker(builder=_raising(Crash())).handle(Event(UPLOAD), deadline=plant.clock.now + 60)
    plant.clock.now += 91
    assert [found.status for found in plant.first.tick()] == ["promoted"]


def test_memory_that_runs_out_is_a_failure_of_the_moment(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    outcome = plant.worker(builder=_raising(MemoryError())).handle(Event(UPLOAD))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("failed", "resources")
    assert [found.status for found in plant.first.tick()] == ["promoted"]


def _with_room(worker: Worker, free: int, scratch: str | None = None) -> Worker:
    intake = replace(worker.shop.intake, free_bytes=lambda path: free, scratch=scratch)
    worker.shop = replace(worker.shop, intake=intake)
    return worker


def test_a_full_disk_is_a_failure_of_the_moment_and_leaves_no_file(plant: Plant, tmp_path: Path) -> None:
    plant.upload(messages(30, seed=1))
    outcome = _with_room(plant.worker(), 10, str(tmp_path)).handle(Event(UPLOAD))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("failed", "resources")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(28, "failed"), (5, None)])
def test_a_temporary_file_that_fails_is_told_apart_from_a_full_disk(
    plant: Plant, number: int, status: str | None
) -> None:
    class Failing(FaultyStore):
        def fetch(self, key: str, target: Any, token: str | None = None) -> Any:
            raise OSError(number, "told by the test")

    plant.upload(messages(30, seed=1))
    worker = plant.worker(Failing(plant.store))
    if status is None:
        with pytest.raises(Unavailable):
            worker.handle(Event(UPLOAD))
        return
    assert worker.handle(Event(UPLOAD)).status == status


def test_an_upload_over_the_limit_is_rejected_before_it_is_read(plant: Plant) -> None:
    plant.upload(messages(100, seed=1))
    outcome = plant.worker(max_data_bytes=1000).handle(Event(UPLOAD))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("rejected", "too_large")


def test_a_damaged_champion_stops_retraining_and_is_never_replaced_unseen(plant: Plant) -> None:
    record = plant.state().versions[plant.production()]
    data = bytearray(plant.store.get(record.artifact_key).data)
    data[-1] ^= 1
    plant.store.put(record.artifact_key, bytes(data))
    plant.upload(messages(30, seed=1))
    outcome = plant.first.handle(Event(UPLOAD))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("failed", "integrity_failure")
    assert plant.first.tick() == []  # it rests before the next attempt


# --- a store that is down


class _Down(FaultyStore):
    """A store that does not answer once `at` calls were made."""

    def _call(self, name: str, *args: Any) -> Any:
        self.calls += 1
        if self.calls > self._at:
            raise down()
        return getattr(self._store, name)(*args)


@pytest.mark.parametrize("at", [0, 12, 22])
def test_a_store_that_is_down_makes_the_event_come_again(plant: Plant, at: int) -> None:
    token = plant.upload(messages(30, seed=1))
    with pytest.raises(Unavailable) as refusal:
        plant.worker(_Down(plant.store, at)).handle(Event(UPLOAD, token))
    assert refusal.value.fields["retry_after_s"] > 0
    plant.clock.now += 10_000
    assert plant.worker().handle(Event(UPLOAD, token)).status == "promoted"


def test_a_tick_of_a_store_that_is_down_says_so(plant: Plant) -> None:
    with pytest.raises(Unavailable):
        plant.worker(_Down(plant.store, 0)).tick()


def test_a_refused_listing_is_not_an_empty_inbox(plant: Plant) -> None:
    with pytest.raises(Unavailable):
        plant.worker(FaultyStore(plant.store, 0, fault=lambda: Denied("no"))).tick()


# --- tidying and telling


def test_a_tick_repairs_alias_documents_and_counts_jobs(plant: Plant) -> None:
    plant.store.delete("reg/toy/alias/production.json")
    plant.upload(b"")
    plant.first.tick()
    assert b"rev" in plant.store.get("reg/toy/alias/production.json").data
    (line,) = _events(plant, "tidied")
    assert line["mended"] == 1
    text = plant.telemetry.exposition().decode()
    assert 'jobs_count{model="toy",status="rejected"} 1' in text
    assert "job_duration_seconds_count" in text
    plant.store.delete("reg/toy/alias/production.json")
    plant.first.tick()
    assert len(_events(plant, "tidied")) == 1
    plant.clock.now += MEND_S + 1  # nobody waits an hour for a move that its writer could not show
    plant.first.tick()
    assert len(_events(plant, "tidied")) == 2
    (version,) = plant.first.shop.registry.state("toy").versions
    plant.store.delete(f"reg/toy/alias/{version}.json")
    plant.clock.now += MEND_S + 1
    plant.first.tick()
    assert len(_events(plant, "tidied")) == 2
    plant.clock.now += 3601
    plant.first.tick()
    assert len(_events(plant, "tidied")) == 3


def test_orphans_of_a_dead_attempt_are_collected(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    before = {entry.key for entry in plant.store.list("reg/toy/art/")}
    with pytest.raises(Crash):
        plant.worker(MarkedStore(plant.store, b'"op":"publish"')).handle(Event(UPLOAD))
    orphans = {entry.key for entry in plant.store.list("reg/toy/art/")} - before
    assert len(orphans) == 2
    plant.clock.now += 10_000
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted"]
    assert not orphans & {entry.key for entry in plant.store.list("reg/toy/art/")}


def test_a_broken_log_does_not_stop_the_other_models(plant: Plant, tmp_path: Path) -> None:
    plant.train(tmp_path, spec=text_spec(name="other"))
    plant.store.put("reg/other/log/000000000001.json", b"{}")
    plant.upload(messages(30, seed=1))
    worker = plant.worker()
    assert [outcome.status for outcome in worker.tick()] == ["promoted"]
    assert [line["model"] for line in _events(plant, "alert")] == ["other"]
    assert _events(plant, "tidy_failed")


def test_each_outcome_is_counted_and_logged_once(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    plant.first.handle(Event(UPLOAD))
    plant.first.handle(Event(UPLOAD))
    assert [line["status"] for line in _events(plant, "job_outcome")] == ["promoted", "done"]
    assert _counted(plant, "promoted")
    assert _counted(plant, "done")


def test_a_verdict_that_fails_rests_before_it_is_tried_again(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    with pytest.raises(Crash):
        plant.worker(MarkedStore(plant.store, b'"op":"alias"')).handle(Event(UPLOAD))
    champion = plant.state().versions[plant.production()]
    sound = plant.store.get(champion.artifact_key).data
    plant.store.put(champion.artifact_key, sound[:-1])
    plant.clock.now += 10_000
    assert [outcome.status for outcome in plant.first.tick()] == ["failed"]
    assert plant.first.tick() == []
    plant.store.put(champion.artifact_key, sound)
    plant.clock.now += 31
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted"]


def test_a_request_that_loses_its_claim_to_another_is_in_progress(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))

    class Slow(FaultyStore):
        """Another worker claims between the look and the claim."""

        done = False

        def put_if_absent(self, key: str, data: bytes) -> str:
            if b'"op":"claim"' in data and not self.done:
                self.done = True
                with pytest.raises(Crash):
                    plant.worker(builder=_raising(Crash())).handle(Event(UPLOAD))
            return super().put_if_absent(key, data)

    assert plant.worker(Slow(plant.store)).handle(Event(UPLOAD)).status == "in_progress"


def test_a_source_that_was_settled_meanwhile_keeps_its_outcome(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))

    def overtaken(*args: Any, **options: Any) -> training.TrainedModel:
        plant.clock.now += 1000
        plant.worker().tick()
        raise FitFailed("too late", reason="fit")

    assert plant.worker(builder=Builder(train=overtaken)).handle(Event(UPLOAD)).status == "overtaken"
    assert plant.outcomes()[UPLOAD] == "published"


def test_a_failure_that_cannot_be_recorded_is_still_an_outcome(plant: Plant) -> None:
    plant.upload(messages(30, seed=1))
    store = _Down(plant.store, 10**9)

    def failing(*args: Any, **options: Any) -> training.TrainedModel:
        store._at = 0  # the store goes down too
        raise ZeroDivisionError

    outcome = plant.worker(store, Builder(train=failing)).handle(Event(UPLOAD))
    assert (outcome.status, outcome.reason) == ("failed", "error: ZeroDivisionError")


def test_a_tick_whose_store_goes_down_while_tidying_says_so_and_goes_on(plant: Plant) -> None:
    for at in range(1, 40):
        worker = plant.worker(_Down(plant.store, at))
        try:
            worker.tick()
        except Unavailable:
            continue
        break
    assert _events(plant, "tidy_failed")
