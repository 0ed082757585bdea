"""The predictor: which version answers for a model and a reference."""

from __future__ import annotations

import gc
import json
import weakref

import pytest

from core.errors import IntegrityError, InvalidInput, NotFound, Transient, Unavailable
from core.flatfile import FlatFile
from core.inference import MAX_SLOTS
from core.model import Model
from core.versions import RETRY_S, parse_document
from tests.core.house import damaged, table_model, text_model, version_id, wide_model
from tests.core.shelf import ONE, THREE, TWO, Bench, first


@pytest.fixture
def bench() -> Bench:
    """A predictor with version ONE in production."""
    return first()


def ask(model: Model) -> list[str] | None:
    return model.predict(model.schema.batch([{"text": "where is my parcel"}])).labels


# -- the usual way


def test_a_cold_start_takes_two_reads_and_warm_requests_none(bench: Bench) -> None:
    labels, loaded = bench.predictor.run("m", "production", ask)
    assert (labels, loaded.version) == (["delivery"], ONE)
    for _ in range(10):
        bench.version()
    assert bench.shelf.keys == ["reg/m/alias/production.json", f"reg/m/art/{ONE}"]
    bench.later()
    bench.version()
    assert bench.shelf.keys[2:] == ["reg/m/alias/production.json"]


def test_a_moved_alias_is_followed_within_the_refresh_time(bench: Bench) -> None:
    bench.version()
    bench.point("production", 2, bench.put(TWO, text_model(4)))
    bench.later(1.0)
    assert bench.version() == ONE
    bench.later(1.6)
    assert bench.version() == TWO
    names = {(name, labels): value for name, labels, value in bench.telemetry.snapshot()}
    assert names["model_loaded", ("m", "production", TWO)] == 1.0
    assert ("model_loaded", ("m", "production", ONE)) not in names
    assert names["model_accuracy", ("m",)] == 0.79
    assert names["model_score", ("m", "macro_f1")] == 0.5


def test_the_time_between_looks_is_spread_by_a_quarter_each_way() -> None:
    for draw, before, after in ((0.0, 1.49, 1.51), (0.999, 2.49, 2.51)):
        bench = Bench(draws=[draw])
        bench.point("production", 1, bench.put(ONE, text_model()))
        bench.version()
        bench.later(before)
        bench.version()
        assert len(bench.shelf.keys) == 2
        bench.later(after - before)
        bench.version()
        assert len(bench.shelf.keys) == 3


def test_a_request_is_answered_by_one_version_though_the_alias_moves_meanwhile(bench: Bench) -> None:
    def work(model: Model) -> float:
        bench.point("production", 2, bench.put(TWO, text_model(4)))
        bench.later()
        assert bench.version() == TWO
        found: float = model.manifest["facts"]["metrics"]["accuracy"]
        return found

    accuracy, loaded = bench.predictor.run("m", "production", work)
    assert (accuracy, loaded.version) == (0.75, ONE)


def test_errors_of_the_work_itself_are_passed_on(bench: Bench) -> None:
    def work(model: Model) -> None:
        raise InvalidInput("bad")

    with pytest.raises(InvalidInput):
        bench.predictor.run("m", "production", work)
    assert bench.version() == ONE


def test_a_clock_that_went_back_makes_a_look_due(bench: Bench) -> None:
    bench.version()
    bench.point("production", 2, bench.put(TWO, text_model(4)))
    bench.later(-3600.0)
    assert bench.version() == TWO


# -- revisions


def test_a_regressed_document_is_never_served(bench: Bench) -> None:
    two = bench.put(TWO, text_model(4))
    bench.point("production", 5, two)
    assert bench.version() == TWO
    bench.point("production", 4, bench.put(ONE, text_model()))
    for _ in range(3):
        bench.later()
        assert bench.version() == TWO
    assert bench.alerts() == ["alias_document_regressed"] * 3
    bench.point("production", 6, bench.put(ONE, text_model()))
    bench.later()
    assert bench.version() == ONE


def test_a_document_of_the_same_revision_changes_nothing(bench: Bench) -> None:
    bench.version()
    bench.point("production", 1, bench.put(TWO, text_model(4)))
    bench.later()
    assert bench.version() == ONE


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"rev": 1, "splits": [{}]}', b'{"rev": "1", "splits": []}',
     b'{"rev": true, "splits": []}', b'{"rev": 1, "splits": 5}',
     json.dumps({"rev": 1, "splits": [{"version": "../x", "weight": 1, "artifact_key": "k",
                                       "manifest_sha256": "0"}]}).encode(),
     json.dumps({"rev": 1, "splits": [{"version": ONE, "weight": -1, "artifact_key": "k",
                                       "manifest_sha256": "0"}]}).encode(),
     json.dumps({"rev": 1, "splits": [{"version": ONE, "weight": 10**400, "artifact_key": "k",
                                       "manifest_sha256": "0"}]}).encode(),
     json.dumps({"rev": 1, "splits": [{"version": ONE, "weight": 1, "artifact_key": 7,
                                       "manifest_sha256": "0"}]}).encode()],
)  # fmt: skip
def test_a_document_that_is_not_well_formed_is_refused_and_the_served_version_stays(
    bench: Bench, data: bytes
) -> None:
    with pytest.raises(IntegrityError):
        parse_document(data, "reg/m/alias/production.json")
    bench.version()
    bench.shelf.objects["reg/m/alias/production.json"] = data
    bench.later()
    assert bench.version() == ONE
    other = Bench()
    other.shelf.objects["reg/m/alias/production.json"] = data
    with pytest.raises(Unavailable):
        other.version()


def test_a_document_that_vanished_leaves_the_served_version(bench: Bench) -> None:
    bench.version()
    del bench.shelf.objects["reg/m/alias/production.json"]
    bench.later()
    assert bench.version() == ONE
    assert bench.alerts() == ["alias_document_missing"]


# -- pinned versions


def test_a_pinned_version_is_found_by_its_own_document(bench: Bench) -> None:
    bench.point(TWO, 1, bench.put(TWO, text_model(4)))
    assert bench.version(TWO) == TWO
    assert len(bench.shelf.keys) == 2
    assert bench.version() == ONE


def test_a_pinned_version_that_an_alias_serves_is_not_loaded_again(bench: Bench) -> None:
    bench.version()
    bench.point(ONE, 1, bench.put(ONE, text_model()))
    assert bench.predictor.resolve("m", ONE).model is bench.predictor.resolve("m").model
    assert len(bench.shelf.keys) == 3


def test_a_pinned_version_without_a_document_is_known_by_the_alias_that_serves_it(bench: Bench) -> None:
    bench.version()
    assert bench.version(ONE) == ONE
    with pytest.raises(NotFound):
        bench.version(TWO)


def test_a_retired_version_is_not_served_any_more(bench: Bench) -> None:
    bench.point(TWO, 1, bench.put(TWO, text_model(4)))
    assert bench.version(TWO) == TWO
    bench.point(TWO, 2)
    bench.later()
    with pytest.raises(NotFound):
        bench.version(TWO)
    assert bench.predictor.status() == []


def test_a_damaged_pinned_version_is_never_replaced_by_another(bench: Bench) -> None:
    bench.point("previous", 1, bench.put(ONE, text_model()))
    bench.point(TWO, 1, bench.put(TWO, damaged(text_model(4)), sha256=FlatFile(text_model(4)).header_sha256))
    for _ in range(2):
        with pytest.raises(Unavailable):
            bench.version(TWO)


# -- canaries


def test_shares_of_an_alias_are_drawn_by_weight() -> None:
    bench = Bench(draws=[number / 1000 for number in range(1000)], refresh_s=1e9)
    one, two = bench.put(ONE, text_model()) | {"weight": 9}, bench.put(TWO, text_model(4)) | {"weight": 1}
    bench.point("production", 1, one, two)
    bench.version()
    found = [bench.version() for _ in range(1000)]
    assert found.count(TWO) == pytest.approx(100, abs=2)
    assert found.count(ONE) == pytest.approx(900, abs=2)


def test_shares_without_weight_are_served_by_the_first() -> None:
    bench = Bench()
    bench.point(
        "production",
        1,
        bench.put(ONE, text_model()) | {"weight": 0},
        bench.put(TWO, text_model(4)) | {"weight": 0},
    )
    assert bench.version() == ONE


def test_a_damaged_canary_is_left_out_and_comes_in_when_mended() -> None:
    bench = Bench(draws=[0.9])
    sound = text_model(4)
    two = bench.put(TWO, damaged(sound), sha256=FlatFile(sound).header_sha256)
    bench.point("production", 3, bench.put(ONE, text_model()), two)
    assert bench.version() == ONE
    bench.put(TWO, sound)
    bench.later(RETRY_S * 2)
    assert bench.version() == TWO


def test_a_canary_found_damaged_leaves_the_champion() -> None:
    bench = Bench(draws=[0.9])
    bench.point("production", 3, bench.put(ONE, text_model()), bench.put(TWO, damaged(wide_model(), unread=True)))
    assert bench.version() == TWO
    _, loaded = bench.predictor.run("m", "production", lambda model: model.file.verify_all())
    assert loaded.version == ONE
    bench.later()
    assert bench.version() == ONE


# -- bounds


def test_versions_that_were_not_asked_for_lately_make_room() -> None:
    size = len(text_model())
    bench = Bench(cache_bytes=size * 2 + 100)
    for number in range(5):
        version = version_id(number)
        entry = bench.put(version, text_model(number), key=f"reg/m{number}/art/x")
        bench.point("production", 1, entry, model=f"m{number}")
        bench.later(0.1)
        assert bench.version(model=f"m{number}") == version
    loaded = [labels[0] for name, labels, _ in bench.telemetry.snapshot() if name == "model_loaded"]
    assert sorted(loaded) == ["m3", "m4"]
    assert bench.version(model="m0") == version_id(0)


def test_unknown_models_are_not_found_remembered_for_a_while_and_bounded() -> None:
    bench = Bench()
    for _ in range(5):
        with pytest.raises(NotFound, match="no such alias"):
            bench.version(model="none")
    assert bench.shelf.keys == ["reg/none/alias/production.json"]
    for number in range(MAX_SLOTS + 10):
        with pytest.raises(NotFound):
            bench.version(model=f"n{number}")
    assert len(bench.predictor._slots) <= MAX_SLOTS
    assert bench.predictor.status() == []


def test_a_refusal_that_is_remembered_does_not_hold_on_to_the_requests_it_refused(bench: Bench) -> None:
    bench.shelf.objects["reg/broken/alias/production.json"] = b"{"
    for model in ("nobody", "broken"):
        kept = []
        for _ in range(3):
            request = Body()
            kept.append(weakref.ref(request))
            with pytest.raises((NotFound, Unavailable)):
                bench.predictor.run(model, "production", request.answer)
            del request
        gc.collect()
        assert [body() for body in kept] == [None] * 3


class Body:
    """What a request holds."""

    def answer(self, model: Model) -> None:
        """Use it."""


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a" * 64, "a\0", "x.json", "é"])
def test_an_illegal_name_is_not_found_without_a_read(bench: Bench, name: str) -> None:
    for model, ref in ((name, "production"), ("m", name)):
        with pytest.raises(NotFound):
            bench.predictor.resolve(model, ref)
    assert bench.shelf.keys == []


def test_where_an_alias_points_is_told_without_loading_it(bench: Bench) -> None:
    assert bench.predictor.target("m", "production") == ONE
    assert bench.shelf.keys == ["reg/m/alias/production.json"]
    bench.version()
    assert bench.predictor.target("m", "production") == ONE
    assert len(bench.shelf.keys) == 3
    with pytest.raises(NotFound):
        bench.predictor.target("m", "staging")
    bench.point(THREE, 2)
    with pytest.raises(NotFound):
        bench.predictor.target("m", THREE)
    bench.shelf.errors["reg/"] = Transient("down")
    with pytest.raises(Unavailable):
        bench.predictor.target("m", "staging")


def test_a_regression_without_metrics_is_served_too() -> None:
    bench = Bench()
    bench.point("production", 1, bench.put(ONE, table_model()))

    def work(model: Model) -> list[float] | None:
        return model.predict(model.schema.batch([{"size": 3, "town": "a"}])).values

    values, _ = bench.predictor.run("m", "production", work)
    assert values == pytest.approx([3.0], abs=0.6)
