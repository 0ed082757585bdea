"""One job from end to end on real scikit-learn: trained, proved, published, judged, and once only."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import artifact, training
from core.building import Builder
from core.errors import Conflict, DataRejected, FitFailed
from core.local_store import LocalStore
from core.model import Predictions
from core.retraining import train_from_file
from core.schema import Batch
from core.shelf import spec_of
from core.state import Version
from core.worker import Event, Outcome
from tests.core import toys
from tests.core.plant import UPLOAD, Crash, FaultyStore, MarkedStore, Plant, down
from tests.core.toys import TOPICS, Rows, csv, messages, text_spec


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = Plant()
    plant.train(tmp_path_factory.mktemp("data"))
    return plant


@pytest.fixture
def plant(trained: Plant) -> Plant:
    return trained.copy()


def _publishes(plant: Plant) -> list[dict[str, Any]]:
    registry = plant.worker().shop.registry
    return [entry for entry in registry.history("toy", limit=1000).entries if entry["op"] == "publish"]


def _record(plant: Plant, version: str) -> Version:
    return plant.state().versions[version]


def _facts(plant: Plant, version: str) -> dict[str, Any]:
    facts: dict[str, Any] = plant.shop.shelf.model(_record(plant, version)).manifest["facts"]
    return facts


def _flipped(rows: Rows, share: float = 1.0) -> Rows:
    after = dict(zip(toys.TOPICS, (*toys.TOPICS[1:], toys.TOPICS[0]), strict=True))
    stop = int(share * rows.n_rows)
    return Rows(rows.batch, [after[label] if i < stop else label for i, label in enumerate(rows.labels)])


# --- an operator's training


def test_a_first_training_takes_production_and_tells_how_good_it_is(tmp_path: Path) -> None:
    plant = Plant()
    outcome = plant.train(tmp_path)
    assert outcome.alias == "production"
    assert plant.production() == outcome.version
    assert outcome.metrics["accuracy"] > 0.8
    assert outcome.gate["passed"] is True
    facts = _facts(plant, outcome.version)
    assert facts["parity"]["max_abs_diff"] <= facts["parity"]["bound"] == 1e-9
    assert facts["metrics"] == outcome.metrics
    assert facts["data"]["train_rows"] + facts["data"]["holdout_rows"] == 200
    assert set(facts["libraries"]) >= {"scikit-learn", "numpy"}


def test_the_published_version_answers_from_its_artifact_alone(plant: Plant) -> None:
    record = _record(plant, plant.production())
    model = artifact.load(plant.store.get(record.artifact_key).data, record.manifest_sha256)
    test = messages(50, seed=8)
    found = model.predict(test.batch).labels
    assert sum(a == b for a, b in zip(found or (), test.labels, strict=True)) >= 40


def test_the_same_file_and_spec_give_the_same_version_and_are_trained_once(tmp_path: Path) -> None:
    plant, fits = Plant(), []

    def counting(*args: Any, **options: Any) -> training.TrainedModel:
        fits.append(1)
        return training.train(*args, **options)

    first = plant.train(tmp_path)
    plant.first = plant.worker(builder=Builder(train=counting))
    again = plant.train(tmp_path)
    assert (again.version, again.alias, again.metrics, again.gate) == (
        first.version,
        first.alias,
        first.metrics,
        first.gate,
    )
    assert not fits
    assert len(_publishes(plant)) == 1


def test_the_same_file_gives_the_same_bytes_in_another_store(tmp_path: Path) -> None:
    one, two = Plant(), Plant(LocalStore(str(tmp_path / "store"), fsync=False))
    shas = set()
    for plant in (one, two):
        version = plant.train(tmp_path).version
        shas.add(hashlib.sha256(plant.store.get(_record(plant, version).artifact_key).data).hexdigest())
    assert len(shas) == 1


def test_another_file_is_judged_against_the_champion_on_its_own_holdout(plant: Plant, tmp_path: Path) -> None:
    before = plant.production()
    outcome = plant.train(tmp_path, messages(300, seed=5, noise=0.05))
    assert outcome.gate["compared"]["champion"]["version"] == before
    assert "recent" not in outcome.gate["compared"]


def test_a_worse_file_goes_to_staging_with_the_reason(plant: Plant, tmp_path: Path) -> None:
    before = plant.production()
    weak = text_spec(columns={"text": {"kind": "text", "max_features": 1}})
    outcome = plant.train(tmp_path, messages(300, seed=5), weak)
    assert outcome.alias == "staging"
    assert plant.production() == before
    assert "accuracy" in outcome.gate["reasons"][0]


def test_minimums_keep_a_first_version_in_staging_and_an_upload_starts_from_it(tmp_path: Path) -> None:
    plant = Plant()
    outcome = plant.train(tmp_path, spec=text_spec(gate={"minimum": {"accuracy": 0.999}}))
    assert outcome.alias == "staging"
    assert "production" not in plant.state().aliases
    plant.upload(messages(50, seed=3))
    assert plant.first.handle(Event(UPLOAD)).status in ("staged", "promoted")


def test_an_alias_other_than_production_is_given_without_a_gate(tmp_path: Path) -> None:
    plant, path = Plant(), tmp_path / "data.csv"
    path.write_bytes(csv(messages(100, noise=0.3)))
    spec = text_spec(gate={"minimum": {"accuracy": 1.0}})
    outcome = train_from_file(plant.shop, spec, str(path), target="trial")
    assert outcome.alias == "trial"
    assert outcome.gate["passed"] is False
    assert train_from_file(plant.shop, spec, str(path), target="trial").alias == "trial"


def test_a_champion_of_other_columns_is_not_compared_and_that_is_said(plant: Plant, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(csv(messages(100)).replace(b"text,", b"body,"))
    spec = text_spec(columns={"body": {"kind": "text"}})
    outcome = train_from_file(plant.shop, spec, str(path))
    assert outcome.alias == "production"
    assert "not compared" in outcome.gate["reasons"][-1]


def test_a_file_that_failed_half_way_is_trained_by_the_next_call(tmp_path: Path) -> None:
    plant = Plant()
    path = tmp_path / "data.csv"
    path.write_bytes(csv(messages(100)))
    builder = _quick()
    for at in range(200):
        store = FaultyStore(plant.store, at)
        try:
            done = train_from_file(plant.worker(store, builder).shop, text_spec(), str(path))
            break
        except Crash:
            continue
    assert done.alias == "production"
    assert len(_publishes(plant)) == 1
    assert not plant.waiting()


def test_a_dead_training_from_a_file_is_closed_and_can_be_repeated(tmp_path: Path) -> None:
    plant = Plant()
    path = tmp_path / "data.csv"
    path.write_bytes(csv(messages(100)))
    with pytest.raises(Crash):
        train_from_file(plant.worker(MarkedStore(plant.store, b'"op":"publish"')).shop, text_spec(), str(path))
    plant.clock.now += 10_000
    assert [outcome.reason for outcome in plant.worker().tick()] == ["gone"]
    assert train_from_file(plant.shop, text_spec(), str(path)).alias == "production"


def test_bad_data_and_bad_parameters_are_told_to_the_operator(tmp_path: Path) -> None:
    plant = Plant()
    with pytest.raises(DataRejected) as rejection:
        plant.train(tmp_path, messages(50, topics=("login",)))
    assert rejection.value.reason == "classes"
    negative = {"kind": "linear", "algorithm": "logistic_regression", "params": {"C": -1.0}}
    with pytest.raises(FitFailed):
        plant.train(tmp_path, spec=text_spec(estimator=negative))
    assert plant.state().head == -1


def test_a_column_that_gives_the_label_away_is_rejected(tmp_path: Path) -> None:
    plant, rows = Plant(), messages(200)
    path = tmp_path / "data.csv"
    lines = [
        f"{t},{toys.TOPICS.index(y)},{y}" for t, y in zip(rows.batch.columns["text"], rows.labels, strict=True)
    ]
    path.write_text("\n".join(["text,code,topic", *lines]) + "\n")
    columns = {"text": {"kind": "text"}, "code": {"kind": "number"}}
    with pytest.raises(DataRejected) as rejection:
        train_from_file(plant.shop, text_spec(columns=columns), str(path))
    assert rejection.value.reason == "leakage"
    allowed = text_spec(columns=columns, gate={"allow_leakage": True})
    assert train_from_file(plant.shop, allowed, str(path)).alias == "production"


# --- an upload


def test_an_upload_becomes_a_version_on_the_union_and_the_frozen_holdout(plant: Plant) -> None:
    before = plant.production()
    plant.upload(messages(100, seed=1, noise=0.05))
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "promoted"
    assert plant.production() == outcome.version != before
    old, new = _facts(plant, before)["data"], _facts(plant, outcome.version)["data"]
    assert new["holdout_rows"] == old["holdout_rows"]
    assert [p for p in new["parts"] if p["kind"] == "holdout"] == [
        p for p in old["parts"] if p["kind"] == "holdout"
    ]
    assert new["train_rows"] == old["train_rows"] + new["uploads"]["new"]
    assert new["uploads"]["new"] + new["uploads"]["set_aside"] == 100


def test_both_models_are_told_apart_on_the_uploaded_rows_that_were_set_aside(plant: Plant) -> None:
    plant.upload(messages(200, seed=1))
    facts = _facts(plant, plant.first.handle(Event(UPLOAD)).version)
    aside = facts["upload_holdout"]
    assert aside["challenger"]["n"] == aside["champion"]["n"] == facts["data"]["uploads"]["set_aside"]


def test_the_new_version_keeps_the_spec_of_the_champion(plant: Plant) -> None:
    before = plant.shop.shelf.model(_record(plant, plant.production()))
    plant.upload(messages(100, seed=1))
    after = plant.shop.shelf.model(_record(plant, plant.first.handle(Event(UPLOAD)).version))
    assert spec_of(after) == spec_of(before)


def test_the_next_upload_builds_on_the_one_before(plant: Plant) -> None:
    plant.upload(messages(100, seed=1))
    first = plant.first.handle(Event(UPLOAD))
    plant.upload(messages(100, seed=2), "uploads/toy/more.csv")
    second = plant.first.handle(Event("uploads/toy/more.csv"))
    assert (first.status, second.status) == ("promoted", "promoted")
    counts = [_facts(plant, outcome.version)["data"] for outcome in (first, second)]
    assert counts[1]["train_rows"] == counts[0]["train_rows"] + counts[1]["uploads"]["new"]


def test_flipped_labels_stay_in_staging_and_the_last_good_version_serves(plant: Plant) -> None:
    before = plant.production()
    plant.upload(_flipped(messages(300, seed=1)))
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "staged"
    assert plant.production() == before
    assert "below" in outcome.reason
    gate = _record(plant, outcome.version).gate
    assert gate is not None
    assert gate["passed"] is False
    plant.upload(messages(100, seed=2), "uploads/toy/clean.csv")
    clean = plant.first.handle(Event("uploads/toy/clean.csv"))
    assert clean.status == "promoted"  # the poisoned rows are not part of what it builds on
    assert _facts(plant, clean.version)["data"]["train_rows"] < 300


def test_labels_unlike_the_known_ones_stay_in_staging_and_the_reason_has_figures(plant: Plant) -> None:
    plant.upload(messages(300, seed=1))
    clean = plant.first.handle(Event(UPLOAD))
    plant.upload(_flipped(messages(200, seed=2), 0.3), "uploads/toy/odd.csv")
    odd = plant.first.handle(Event("uploads/toy/odd.csv"))
    assert (clean.status, odd.status) == ("promoted", "staged")
    assert "of 200 new rows look wrongly labelled" in odd.reason
    gate = _record(plant, odd.version).gate
    assert gate is not None
    assert gate["compared"]["upload"]["wrong_share"] > 0.15


def test_a_spec_may_let_suspicious_labels_in_with_a_warning(tmp_path: Path) -> None:
    plant = Plant()
    gate = {"allow_suspicion": True, "max_drop": 1.0}
    plant.train(tmp_path, messages(300, noise=0.1), text_spec(gate=gate))
    plant.upload(_flipped(messages(200, seed=2), 0.3))
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "promoted"
    assert "warning: labels: about" in outcome.reason


def test_an_upload_that_looks_wrong_holds_no_other_back(plant: Plant) -> None:
    plant.upload(messages(200, seed=1), "uploads/toy/a.csv")
    plant.upload(_flipped(messages(200, seed=2), 0.4), "uploads/toy/b.csv")
    plant.upload(messages(200, seed=3), "uploads/toy/c.csv")
    first = {outcome.key[-5]: outcome.status for outcome in plant.first.tick()}
    assert (first["a"], first["c"]) == ("promoted", "promoted")
    second = {outcome.key[-5]: outcome.status for outcome in plant.first.tick()}
    assert second == {"b": "staged"}
    assert plant.first.tick() == []


def test_uploads_that_all_look_wrong_are_each_looked_at_alone(plant: Plant) -> None:
    before = plant.production()
    for n in range(3):
        plant.upload(_flipped(messages(200, seed=n + 1), 0.4), f"uploads/toy/{n}.csv")
    told = [[(o.key[-5], o.status) for o in plant.first.tick() if o.status != "failed"] for _ in range(3)]
    assert told == [[("0", "staged")], [("1", "staged"), ("2", "staged")], []]
    assert plant.production() == before


def test_known_rows_with_other_labels_are_suspicious_however_few_they_are(plant: Plant) -> None:
    known = messages(200, noise=0.1)
    labels = [*known.labels[:100], *(TOPICS[TOPICS.index(label) - 1] for label in known.labels[100:112])]
    texts = known.batch.columns["text"][:112]
    fresh = messages(100, seed=5)
    rows = Rows(Batch(212, {"text": [*texts, *fresh.batch.columns["text"]]}), [*labels, *fresh.labels])
    plant.upload(rows)
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "staged"
    assert "relabelled: 12 of 112 known rows" in outcome.reason


def test_rows_of_the_holdout_are_never_learnt_even_if_they_are_uploaded(plant: Plant) -> None:
    version = plant.production()
    shelf = plant.shop.shelf
    model = shelf.model(_record(plant, version))
    holdout = shelf.holdout(_record(plant, version), spec_of(model))
    upload = messages(30, seed=1)
    texts = [*upload.batch.columns["text"], *holdout.batch.columns["text"]]
    lines = [f"{text},login" for text in texts]
    plant.upload(("\n".join(["text,topic", *lines]) + "\n").encode())
    outcome = plant.first.handle(Event(UPLOAD))
    facts = _facts(plant, outcome.version)
    assert facts["data"]["uploads"]["in_holdout"] == holdout.n_rows


def test_an_upload_of_known_rows_alone_is_rejected(plant: Plant) -> None:
    plant.upload(messages(200, noise=0.1))
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "rejected"
    assert outcome.reason.startswith("rows: 0 rows are new")


def test_an_upload_for_an_unknown_model_is_rejected(plant: Plant) -> None:
    plant.upload(messages(20), "uploads/other/new.csv")
    outcome = plant.first.handle(Event("uploads/other/new.csv"))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("rejected", "no_model")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"text,wrong\na,b\n", "schema"),
        (csv(messages(40, seed=1, topics=("login", "billing"))).replace(b"login", b"unheard"), "classes"),
        (b"\x00\x01\x02", "format"),
    ],
)
def test_bad_uploads_are_rejected_with_their_reason_and_the_champion_stays(
    plant: Plant, data: bytes, reason: str
) -> None:
    before = plant.production()
    plant.upload(data)
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "rejected"
    assert reason in outcome.reason or reason == "format"
    assert plant.production() == before
    assert plant.first.handle(Event(UPLOAD)).status == "done"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, -1])
def test_a_cut_upload_with_a_promised_hash_is_rejected_as_truncated(plant: Plant, share: float) -> None:
    data = csv(messages(100, seed=1))
    cut = data[: int(len(data) * share)] if share > 0 else data[:-1]
    plant.store.put(UPLOAD + ".sha256", hashlib.sha256(data).hexdigest().encode())
    plant.upload(cut)
    assert plant.first.handle(Event(UPLOAD)).reason.startswith("truncated")
    plant.upload(data)
    assert plant.first.handle(Event(UPLOAD)).status == "promoted"


def test_only_the_upload_is_learnt_from_where_the_spec_says_so(tmp_path: Path) -> None:
    plant = Plant()
    plant.train(tmp_path, spec=text_spec(retrain={"data": "upload"}))
    plant.upload(messages(150, seed=1))
    facts = _facts(plant, plant.first.handle(Event(UPLOAD)).version)
    assert facts["data"]["train_rows"] == facts["data"]["uploads"]["new"] < 150


def test_an_older_upload_does_not_replace_a_newer_one_where_uploads_stand_alone(tmp_path: Path) -> None:
    plant = Plant()
    plant.train(tmp_path, spec=text_spec(retrain={"data": "upload"}))
    plant.upload(messages(150, seed=1), "uploads/toy/old.csv")
    plant.upload(messages(150, seed=2), "uploads/toy/new.csv")
    held = plant.worker(min_upload_age_s=3600.0)  # so that the two are not taken together
    newer, older = (held.handle(Event(f"uploads/toy/{name}.csv")) for name in ("new", "old"))
    assert newer.status == "promoted"
    assert (older.status, older.reason.partition(":")[0]) == ("rejected", "superseded")


# --- requests


def test_a_request_trains_again_on_what_is_known(plant: Plant) -> None:
    before = plant.production()
    plant.store.put("jobs/toy/again.json", b'{"kind":"train","model":"toy","actor":"ann"}')
    outcome = plant.first.handle(Event("jobs/toy/again.json"))
    assert outcome.status == "promoted"
    assert outcome.version != before
    assert _facts(plant, outcome.version)["metrics"] == _facts(plant, before)["metrics"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"kind":"delete"}', b'{"kind":"train","model":"other"}', b"\xff"])
def test_a_malformed_request_is_rejected(plant: Plant, body: bytes) -> None:
    plant.store.put("jobs/toy/odd.json", body)
    outcome = plant.first.handle(Event("jobs/toy/odd.json"))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("rejected", "malformed")


# --- events that come twice, late, or for nothing


def test_a_file_that_was_learnt_from_comes_again_without_effect_even_after_a_rollback(plant: Plant) -> None:
    rows = messages(120, noise=0.1, seed=7)
    plant.upload(rows)
    (done,) = plant.first.tick()
    before = plant.shop.registry.rollback("toy", op_id="back")
    for key in (UPLOAD, "uploads/toy/copied.csv"):  # touched, and under another name
        plant.upload(rows, key)
        (again,) = plant.first.tick()
        assert (again.status, again.reason.partition(":")[0]) == ("rejected", "duplicate")
        assert str(done.version) in again.reason
    assert plant.production() != done.version
    assert before is not None


def test_a_request_is_the_same_in_a_copy_of_the_store(plant: Plant) -> None:
    plant.upload(b'{"kind": "train"}', "jobs/toy/one.json")
    assert [outcome.status for outcome in plant.first.tick()] == ["promoted"]
    plant.upload(b'{"kind": "train"}', "jobs/toy/one.json")  # a copy has other generations
    assert plant.first.tick() == []


def test_five_deliveries_of_one_event_have_one_effect(plant: Plant) -> None:
    token = plant.upload(messages(100, seed=1))
    outcomes = [plant.worker().handle(Event(UPLOAD, token)) for _ in range(5)]
    assert [outcome.status for outcome in outcomes] == ["promoted", "done", "done", "done", "done"]
    assert len({outcome.version for outcome in outcomes}) == 1
    assert len(_publishes(plant)) == 2  # the first training and this one


def test_ten_deliveries_at_once_have_one_effect(plant: Plant) -> None:
    token = plant.upload(messages(100, seed=1))
    gate, outcomes = threading.Barrier(10), list[Outcome]()

    def deliver() -> None:
        worker = plant.worker()
        gate.wait()
        outcomes.append(worker.handle(Event(UPLOAD, token)))

    threads = [threading.Thread(target=deliver) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(outcome.status for outcome in outcomes)
    assert len(outcomes) == 10
    assert statuses.count("promoted") == 1
    assert set(statuses) <= {"promoted", "in_progress", "done"}
    assert len(_publishes(plant)) == 2


def test_an_event_of_a_replaced_generation_is_recorded_superseded(plant: Plant) -> None:
    old = plant.upload(messages(100, seed=1))
    new = plant.upload(messages(100, seed=2))
    late = plant.first.handle(Event(UPLOAD, new))
    early = plant.first.handle(Event(UPLOAD, old))
    assert late.status == "promoted"
    assert (early.status, early.reason) == ("rejected", "superseded")
    assert plant.production() == late.version


def test_an_event_for_a_removed_object_is_recorded_gone(plant: Plant) -> None:
    token = plant.upload(messages(100, seed=1))
    plant.store.delete(UPLOAD)
    outcome = plant.first.handle(Event(UPLOAD, token))
    assert (outcome.status, outcome.reason) == ("rejected", "gone")
    assert plant.first.handle(Event(UPLOAD)).status == "ignored"


class _Replacing(FaultyStore):
    """A store whose object is replaced, or removed, while it is read."""

    def __init__(self, store: Any, change: Callable[[], None]) -> None:
        super().__init__(store)
        self._change = change

    def fetch(self, key: str, target: Any, token: str | None = None) -> Any:
        target.write(b"half of the old")
        self._change()
        return super().fetch(key, target, token)


def test_an_object_replaced_while_it_is_read_is_never_mixed(plant: Plant) -> None:
    token = plant.upload(messages(100, seed=1))
    worker = plant.worker(_Replacing(plant.store, lambda: plant.store.put(UPLOAD, csv(messages(100, seed=2)))))
    outcome = worker.handle(Event(UPLOAD, token))
    assert (outcome.status, outcome.reason.partition(":")[0]) == ("rejected", "superseded")
    plant.clock.now += 10
    (after,) = plant.worker().tick()
    assert after.status == "promoted"


def test_an_object_removed_while_it_is_read_is_recorded_gone(plant: Plant) -> None:
    plant.upload(messages(100, seed=1))
    worker = plant.worker(_Replacing(plant.store, lambda: plant.store.delete(UPLOAD)))
    assert worker.handle(Event(UPLOAD)).reason.startswith("gone")


def test_a_read_that_was_cut_on_its_way_is_repeated(plant: Plant) -> None:
    plant.upload(messages(100, seed=1))
    left = [2]

    class Cutting(FaultyStore):
        def fetch(self, key: str, target: Any, token: str | None = None) -> Any:
            entry = super().fetch(key, target, token)
            if left[0]:
                left[0] -= 1
                target.truncate(10)
                target.seek(10)
            return entry

    assert plant.worker(Cutting(plant.store)).handle(Event(UPLOAD)).status == "promoted"


# --- crashes, zombies and two at once


def _quick() -> Builder:
    """Return a builder that fits each data set once in this process."""
    fitted: dict[tuple[Any, ...], training.TrainedModel] = {}

    def train(spec: Any, data: Any, **options: Any) -> training.TrainedModel:
        key = (spec.digest(), tuple(data.labels), data.n_rows)
        if key not in fitted:
            fitted[key] = training.train(spec, data, **options)
        return fitted[key]

    return Builder(train=train)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_store_call_is_made_good_by_one_retry(plant: Plant, after: bool) -> None:
    builder = _quick()
    token = plant.upload(messages(60, seed=1))
    counting = FaultyStore(plant.copy().store)
    assert plant.copy().worker(counting, builder).handle(Event(UPLOAD, token)).status == "promoted"
    assert counting.calls > 20
    for at in range(counting.calls):
        broken = plant.copy()
        with pytest.raises(Crash):
            broken.worker(FaultyStore(broken.store, at, after=after), builder).handle(Event(UPLOAD, token))
        broken.clock.now += 10_000
        outcomes = broken.worker(builder=builder).tick()
        assert [outcome.status for outcome in outcomes if outcome.status != "promoted"] == [], at
        assert broken.outcomes()[UPLOAD] == "published", at
        assert len(_publishes(broken)) == 2, at
        assert not broken.waiting(), at
        state = broken.state()
        assert state.versions[broken.production()].src == _publishes(broken)[0]["src"], at
        alias = state.aliases["production"]
        document = broken.store.get("reg/toy/alias/production.json").data.decode()
        assert f'"rev":{alias.rev}' in document, at
        assert alias.splits[0].version in document, at


@pytest.mark.parametrize("after", [False, True])
def test_a_single_failure_of_any_store_call_is_retried_on_the_spot(plant: Plant, after: bool) -> None:
    builder = _quick()
    token = plant.upload(messages(60, seed=1))
    counting = FaultyStore(plant.copy().store)
    plant.copy().worker(counting, builder).handle(Event(UPLOAD, token))
    for at in range(counting.calls):
        shaky = plant.copy()
        store = FaultyStore(shaky.store, at, after=after, fault=down)
        assert shaky.worker(store, builder).handle(Event(UPLOAD, token)).status == "promoted", at
        assert len(_publishes(shaky)) == 2, at


def test_a_zombie_that_wakes_after_its_lease_cannot_publish(plant: Plant) -> None:
    plant.upload(messages(100, seed=1))
    woken: list[Outcome] = []

    def freeze(*args: Any, **options: Any) -> training.TrainedModel:
        plant.clock.now += 1000.0  # the lease passes, and another worker does it all
        woken.extend(plant.worker().tick())
        return training.train(*args, **options)

    outcome = plant.worker(builder=Builder(train=freeze)).handle(Event(UPLOAD))
    assert [other.status for other in woken] == ["promoted"]
    assert outcome.status == "overtaken"
    assert plant.production() == woken[0].version
    assert len(_publishes(plant)) == 2


def test_a_run_whose_champion_changed_meanwhile_learns_from_the_new_one_too(plant: Plant) -> None:
    plant.upload(messages(100, seed=1))
    other = "uploads/toy/other.csv"
    done: list[Outcome] = []

    def slow(*args: Any, **options: Any) -> training.TrainedModel:
        if not done:
            plant.store.put(other, csv(messages(100, seed=2)))
            plant.clock.now += 10
            done.append(plant.worker().handle(Event(other)))
        return training.train(*args, **options)

    outcome = plant.worker(builder=Builder(train=slow)).handle(Event(UPLOAD))
    assert (done[0].status, outcome.status) == ("promoted", "promoted")
    known, grown = (_facts(plant, found.version)["data"] for found in (done[0], outcome))
    assert grown["train_rows"] == known["train_rows"] + grown["uploads"]["new"]


def test_a_version_without_a_verdict_is_judged_by_the_reconciler(plant: Plant) -> None:
    plant.upload(messages(60, seed=1))
    before = plant.production()
    with pytest.raises(Crash):
        plant.worker(MarkedStore(plant.store, b'"op":"alias"')).handle(Event(UPLOAD))
    assert len(_publishes(plant)) == 2
    assert plant.production() == before
    plant.clock.now += 10_000
    (outcome,) = plant.worker().tick()
    assert (outcome.status, outcome.version) == ("promoted", plant.production())


def test_a_verdict_is_given_once_even_by_two_judges(plant: Plant) -> None:
    from core.promotion import promote

    plant.upload(messages(60, seed=1))
    version = plant.first.handle(Event(UPLOAD)).version
    again = promote(plant.shop.registry, plant.shop.shelf, "toy", version)
    assert again.alias == "production"
    moves = [move for move in plant.state().moves if move.name == "production"]
    assert len(moves) == 2


def test_a_judge_that_always_loses_the_race_gives_up(plant: Plant) -> None:
    from core.promotion import promote

    plant.upload(messages(60, seed=1))

    class Racing(FaultyStore):
        moving = False

        def put_if_absent(self, key: str, data: bytes) -> str:
            if b'"op":"alias"' in data and not self.moving:
                self.moving = True
                registry = plant.worker().shop.registry
                version = next(iter(plant.state().versions))
                registry.move("toy", "production", version, op_id=f"race-{self.calls}")
                self.moving = False
            return super().put_if_absent(key, data)

    worker = plant.worker(Racing(plant.store))
    outcome = worker.handle(Event(UPLOAD))
    assert outcome.status == "in_progress"
    assert "published" in plant.outcomes().values()
    plant.clock.now += 10_000
    assert plant.worker().tick()[0].status == "promoted"
    with pytest.raises(KeyError):
        promote(plant.shop.registry, plant.shop.shelf, "toy", "v-000000000000")


def test_the_same_answers_come_from_a_folder(tmp_path: Path) -> None:
    plant = Plant(LocalStore(str(tmp_path / "store"), fsync=False))
    plant.train(tmp_path)
    plant.upload(messages(100, seed=1))
    plant.clock.now = 4e9  # a folder's times are the machine's
    outcome = plant.first.handle(Event(UPLOAD))
    assert outcome.status == "promoted"
    model = plant.shop.shelf.model(_record(plant, outcome.version))
    found: Predictions = model.predict(messages(20, seed=9).batch)
    assert found.labels is not None


def test_two_trainings_of_one_file_at_once_end_as_one_version(tmp_path: Path) -> None:
    plant, path = Plant(), tmp_path / "data.csv"
    path.write_bytes(csv(messages(100)))
    faster: list[str] = []

    def slow(*args: Any, **options: Any) -> training.TrainedModel:
        faster.append(train_from_file(plant.worker().shop, text_spec(), str(path)).version)
        return training.train(*args, **options)

    outcome = train_from_file(plant.worker(builder=Builder(train=slow)).shop, text_spec(), str(path))
    assert [outcome.version] == faster
    assert len(_publishes(plant)) == 1


def test_a_training_that_cannot_be_published_raises(tmp_path: Path) -> None:
    plant, path = Plant(), tmp_path / "data.csv"
    path.write_bytes(csv(messages(100)))
    store = MarkedStore(plant.store, b'"op":"publish"', fault=lambda: Conflict("told by the test", rule="part"))
    with pytest.raises(Conflict):
        train_from_file(plant.worker(store).shop, text_spec(), str(path))


def test_a_champion_that_never_stands_still_does_not_hold_a_run_up_for_ever(plant: Plant) -> None:
    plant.upload(messages(60, seed=1))
    fits: list[str] = []

    def racing(*args: Any, **options: Any) -> training.TrainedModel:
        fits.append("")
        if len(fits) < 10:
            key = f"jobs/toy/race-{len(fits)}.json"
            plant.store.put(key, b'{"kind":"train"}')
            fits.append(plant.worker().handle(Event(key)).version)
        return training.train(*args, **options)

    outcome = plant.worker(builder=Builder(train=racing)).handle(Event(UPLOAD))
    assert outcome.status == "promoted"
    assert len(fits) == 2 * 3


def test_a_retired_version_is_trained_anew_from_its_file(plant: Plant, tmp_path: Path) -> None:
    first = plant.production()
    again = plant.train(tmp_path, messages(300, seed=5, noise=0.05))
    last = plant.train(tmp_path, messages(300, seed=6, noise=0.0))
    for version, op_id in ((again.version, "a"), (last.version, "b")):
        plant.shop.registry.move("toy", "production", version, op_id=op_id)
    plant.shop.registry.retire("toy", first, op_id="retire")
    renewed = plant.train(tmp_path)
    assert renewed.version not in (first, again.version, last.version)
