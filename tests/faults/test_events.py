"""Uploads whose events come often, late, in any order or never: one outcome each, and none from our own writes."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.building import Builder, Built, Snapshot
from core.corpus import TRAIN
from core.dataset.snapshot import write_snapshot
from core.fold import MAX_COVERS
from core.keys import log_key
from core.ledger import digest_of
from core.model import Model
from core.worker import Event, Worker, handle_all
from tests.core.plant import Plant
from tests.core.toys import csv, messages
from tests.faults.provider_events import PROVIDERS
from tests.faults.scoreboard import record
from tests.faults.sizes import size

SEED = 4
WAVE = 50


@dataclass(frozen=True, slots=True)
class Cheap(Builder):
    """Builds the first model again whatever comes, and counts how often."""

    artifact: bytes = b""
    built: list[int] = field(default_factory=list)

    def build(
        self, spec: Any, rows: Any, checked: Any, *, champion: Model | None = None, suspicion: Any = None
    ) -> Built:
        """Return the champion as if it had been learnt anew."""
        assert champion is not None
        self.built.append(rows.train.n_rows)
        data = write_snapshot(rows.fresh)
        snapshot = Snapshot(data, digest_of(data), rows.fresh.n_rows, TRAIN)
        return Built(champion, self.artifact, (snapshot,), champion.manifest["facts"]["metrics"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = Plant()
    plant.train(tmp_path_factory.mktemp("data"))
    return plant


def _cheap(plant: Plant) -> Cheap:
    state = plant.state()
    return Cheap(artifact=plant.store.get(state.versions[plant.production()].artifact_key).data)


def _bodies(n: int) -> list[bytes]:
    """Return uploads of two rows; every seventh is no table."""
    rows = csv(messages(2 * n, seed=9)).splitlines(keepends=True)
    good = [rows[0] + rows[1 + 2 * i] + rows[2 + 2 * i] for i in range(n)]
    return [b"no,table\n" if i % 7 == 3 else body for i, body in enumerate(good)]


def _put(plant: Plant, n: int) -> list[tuple[str, str]]:
    """Put n uploads; return key and token of each."""
    keys = [f"uploads/toy/{i % 9}/file {i}+ü.csv" for i in range(n)]
    return [(key, plant.store.put(key, body)) for key, body in zip(keys, _bodies(n), strict=True)]


def _faults(plant: Plant, put: list[tuple[str, str]]) -> list[str]:
    """Return what is wrong: uploads without just one outcome, and versions of a source that has another."""
    state = plant.state()
    ends = Counter(source.key for source in state.sources.values() if source.status in ("published", "rejected"))
    wrong = [f"{key}: {ends[key]} outcomes" for key, _ in put if ends[key] != 1]
    wrong += [f"{state.sources[src].key} is {state.sources[src].status}" for src in sorted(state.open)]
    bad = sum(source.status == "rejected" for source in state.sources.values())
    expected = sum(i % 7 == 3 for i in range(len(put)))
    return wrong + ([] if bad == expected else [f"{bad} rejected, not {expected}"])


def _deliver(worker: Worker, rng: random.Random, key: str, token: str) -> None:
    provider = rng.choice(PROVIDERS)
    provider.deliver(worker, provider.parse(provider.event(key, token)))


def test_every_upload_has_one_outcome_however_its_events_come(trained: Plant) -> None:
    n, started, rng = size(300, 10_000), time.perf_counter(), random.Random(SEED)
    plant = trained.copy()
    cheap = _cheap(plant)
    worker = plant.worker(builder=cheap)
    put, late = [], list[tuple[str, str]]()
    everything = dict(zip([f"uploads/toy/{i % 9}/file {i}+ü.csv" for i in range(n)], _bodies(n), strict=True))
    keys = list(everything)
    for low in range(0, n, WAVE):
        wave = [(key, plant.store.put(key, everything[key])) for key in keys[low : low + WAVE]]
        put += wave
        plant.clock.now += 10.0
        lost = 1.0 if low + WAVE >= n else 0.1  # of the last ones no event comes
        told = [item for item in wave if rng.random() >= lost]
        due = late + [item for item in told for _ in range(rng.randint(1, 5))]
        rng.shuffle(due)
        due, late = due[len(due) // 4 :], due[: len(due) // 4]
        for key, token in due:
            _deliver(worker, rng, key, token)
    assert _faults(plant, put), "nothing is left to the reconciler"
    for _ in range(2):
        worker.tick()
    wrong = _faults(plant, put)
    for key, token in late:
        _deliver(worker, rng, key, token)
    built = len(cheap.built)
    wrong += _faults(plant, put) + _recursion(plant, worker)
    if len(cheap.built) != built:
        wrong.append("an event of a settled or of an own object was trained on")
    record("events: one outcome each, 0 duplicates, 0 recursion", n, len(wrong), time.perf_counter() - started)
    assert wrong == [], f"seed {SEED}"


def _recursion(plant: Plant, worker: Worker) -> list[str]:
    """Return what the events of all objects in the store, the system's own among them, started."""
    head = plant.state().head
    for entry in list(plant.store.list("")):
        for provider in PROVIDERS:
            provider.deliver(worker, provider.parse(provider.event(entry.key, entry.token)))
    return [] if plant.state().head == head else ["an event of an object that the system wrote had an effect"]


def test_a_thousand_uploads_at_once_are_few_trainings_and_none_is_lost(trained: Plant) -> None:
    n, started = size(60, 1000), time.perf_counter()
    plant = trained.copy()
    cheap = _cheap(plant)
    put = _put(plant, n)
    plant.clock.now += 10.0
    workers = [plant.worker(builder=cheap) for _ in range(8)]
    threads = [threading.Thread(target=_work, args=(worker, put[i::8])) for i, worker in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        plant.clock.now += 1000.0
        plant.first.tick()
    wrong = _faults(plant, put)
    bound = 3 * (n // MAX_COVERS + 1 + len(workers))
    if len(cheap.built) > bound:
        wrong.append(f"{len(cheap.built)} trainings, at most {bound} are due")
    goal = f"events: a burst is few trainings ({len(cheap.built)}), no source lost"
    record(goal, n, len(wrong), time.perf_counter() - started)
    assert wrong == []


def _work(worker: Worker, put: list[tuple[str, str]]) -> None:
    for key, token in put:
        worker.handle(Event(key, token))


def test_names_too_long_for_one_claim_make_more_runs_and_none_is_lost(trained: Plant) -> None:
    plant = trained.copy()
    folder = "/".join(["\1" * 240] * 4)  # what JSON spells with six characters
    keys = [f"uploads/toy/{folder}/{i}.csv" for i in range(190)]
    put = [(key, plant.store.put(key, body)) for key, body in zip(keys, _bodies(190), strict=True)]
    plant.clock.now += 10.0
    cheap = _cheap(plant)
    worker = plant.worker(builder=cheap)
    worker.handle(Event(*put[0]))
    worker.tick()
    assert _faults(plant, put) == []
    assert 1 < len(cheap.built) < 5


def test_an_event_of_a_model_whose_log_is_broken_does_not_stop_those_of_others(trained: Plant) -> None:
    plant = trained.copy()
    plant.first.shop.registry.append("broken", lambda _: {"op": "note"}, op_id="x")
    plant.store.put(log_key("broken", 0), b"damage")
    broken, good = "uploads/broken/a.csv", "uploads/toy/a.csv"
    for key in (broken, good):
        plant.store.put(key, _bodies(1)[0])
    plant.clock.now += 10.0
    worker = plant.worker(builder=_cheap(plant))
    outcomes = handle_all(worker, [(broken, None), (good, None)], deadline=plant.clock.now + 600.0)
    assert [outcome.status for outcome in outcomes] == ["failed", "promoted"]
    assert any('"log_broken"' in line for line in plant.lines)


def test_what_is_small_by_its_nature_is_not_read_where_it_is_large(
    trained: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = trained.copy()
    read, get = list[int](), plant.store.get

    def noted(key: str, token: str | None = None) -> Any:
        blob = get(key, token)
        read.append(len(blob.data) if key.startswith(("uploads/", "jobs/")) else 0)
        return blob

    monkeypatch.setattr(plant.store, "get", noted)
    plant.store.put("uploads/toy/a.csv", _bodies(1)[0])
    plant.store.put("uploads/toy/a.csv.sha256", b"0" * 5_000_000)
    plant.store.put("jobs/toy/a.json", b'{"kind": "train"}' + b" " * 5_000_000)
    plant.clock.now += 10.0
    outcomes = sorted(plant.worker(builder=_cheap(plant)).tick())
    assert [(found.status, found.reason.partition(":")[0]) for found in outcomes] == [
        ("rejected", "malformed"),
        ("rejected", "truncated"),
    ]
    assert max(read) < 100_000


def test_the_count_sees_a_lost_upload_and_one_with_two_outcomes(trained: Plant) -> None:
    plant = trained.copy()
    put = _put(plant, 4)
    worker = plant.worker(builder=_cheap(plant))
    plant.clock.now += 10.0
    worker.handle(Event(*put[0]))
    assert _faults(plant, put) == []
    assert _faults(plant, [*put, ("uploads/toy/lost.csv", "1")])
    plant.store.put(put[0][0], b"no,table\n")
    worker.handle(Event(put[0][0]))
    assert _faults(plant, put)[0].endswith("2 outcomes")
