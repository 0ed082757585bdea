"""What was published comes back as it was, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import DataRejected, IntegrityError
from core.promotion import promote
from core.shelf import Shelf, holdout_sha256, spec_of
from core.state import Version
from core.worker import Event
from tests.core.plant import UPLOAD, Plant
from tests.core.toys import messages, text_spec


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = Plant()
    plant.train(tmp_path_factory.mktemp("data"))
    return plant


@pytest.fixture
def record(plant: Plant) -> Version:
    return plant.state().versions[plant.production()]


@pytest.fixture
def shelf(plant: Plant) -> Shelf:
    return plant.shop.shelf


def test_a_version_comes_back_with_its_model_spec_and_rows(shelf: Shelf, record: Version) -> None:
    spec = spec_of(shelf.model(record))
    assert spec == text_spec()
    known = shelf.known(record, spec)
    assert known.train.n_rows + known.holdout.n_rows == 200
    assert shelf.holdout(record, spec).labels == known.holdout.labels


def test_a_version_without_rows_cannot_be_retrained(shelf: Shelf, record: Version) -> None:
    bare = record._replace(parts=())
    for ask in (shelf.known, shelf.holdout):
        with pytest.raises(DataRejected) as rejection:
            ask(bare, text_spec())
        assert rejection.value.reason == "no_data"
    assert holdout_sha256(bare) is None


def test_a_holdout_that_does_not_match_the_log_is_refused(shelf: Shelf, record: Version) -> None:
    forged = record._replace(parts=tuple({**part, "sha256": "0" * 64} for part in record.parts))
    with pytest.raises(IntegrityError):
        shelf.holdout(forged, text_spec())


def test_a_model_without_a_spec_cannot_be_retrained(shelf: Shelf, record: Version) -> None:
    model: Any = shelf.model(record)
    model.manifest = {**model.manifest, "facts": {}}
    with pytest.raises(DataRejected) as rejection:
        spec_of(model)
    assert rejection.value.reason == "no_spec"


def test_an_artifact_that_does_not_match_the_log_is_refused(shelf: Shelf, record: Version) -> None:
    with pytest.raises(IntegrityError):
        shelf.model(record._replace(manifest_sha256="0" * 64))


def _published(plant: Plant, parts: tuple[Any, ...]) -> str:
    """Publish a copy of the production version under another source; return its id."""
    state = plant.state()
    record = state.versions[plant.production()]
    registry, src, version = plant.shop.registry, "ab" * 16, "v-abababababab"
    entry = {"op": "claim", "src": src, "attempt": 1, "until": 0.0, "key": "file/x", "kind": "file"}
    registry.append("toy", lambda _: entry, op_id="claim-copy")
    key, _ = registry.put_artifact("toy", src, 1, plant.store.get(record.artifact_key).data)
    about: dict[str, Any] = {"manifest_sha256": record.manifest_sha256, "metrics": record.metrics, "parts": parts}
    registry.publish(
        "toy", src=src, attempt=1, version=version, artifact_key=key, size=record.size, op_id="copy", **about
    )
    return version


def test_a_version_published_without_a_holdout_is_left_to_people(plant: Plant) -> None:
    copied = plant.copy()
    before = copied.production()
    version = _published(copied, ())
    (outcome,) = copied.first.tick()
    assert (outcome.status, outcome.version) == ("staged", version)
    gate = copied.state().versions[version].gate
    assert gate is not None
    assert "by hand" in gate["reasons"][0]
    assert copied.production() == before


def test_two_judges_with_different_verdicts_leave_the_first(plant: Plant) -> None:
    copied = plant.copy()
    version = _published(copied, tuple(copied.state().versions[copied.production()].parts))
    shop = copied.worker().shop
    gate = {"passed": False, "reasons": ["told by the other judge"], "version": version}
    original = shop.registry.move

    def late(*args: Any, **options: Any) -> Any:
        copied.shop.registry.move("toy", "staging", version, op_id=f"{version}.gate", gate=gate)
        return original(*args, **options)

    shop.registry.move = late  # type: ignore[method-assign]
    found = promote(shop.registry, shop.shelf, "toy", version)
    assert (found.alias, found.gate["reasons"]) == ("staging", ["told by the other judge"])


def test_a_retired_version_is_no_longer_held_against_a_challenger(plant: Plant) -> None:
    copied = plant.copy()
    first = copied.production()
    copied.upload(messages(100, seed=1))
    assert _handled(copied) != first
    copied.upload(messages(100, seed=2), "uploads/toy/c.csv")
    third = _handled(copied, "uploads/toy/c.csv")
    registry = copied.shop.registry
    registry.move("toy", "production", third, op_id="settle")
    registry.retire("toy", first, op_id="retire")
    copied.upload(messages(100, seed=3), "uploads/toy/d.csv")
    fourth = _handled(copied, "uploads/toy/d.csv")
    gate = copied.state().versions[fourth].gate
    assert gate is not None
    assert first not in str(gate["compared"])


def _handled(plant: Plant, key: str = UPLOAD) -> str:
    return plant.first.handle(Event(key)).version
