"""The predictor: damage, outages and stampedes never cost a sound answer."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from core import artifact
from core.errors import Denied, IntegrityError, NotFound, Transient, Unavailable
from core.flatfile import FlatFile
from core.inference import ERROR_S, Status
from core.model import Model
from core.versions import RETRY_S
from tests.core.house import damaged, text_model, wide_model
from tests.core.shelf import ONE, TWO, Bench, Shelf, first


@pytest.fixture
def bench() -> Bench:
    """A predictor with version ONE in production."""
    return first()


# -- damage


def test_a_damaged_new_version_is_not_served_and_the_good_one_stays(bench: Bench) -> None:
    bench.version()
    sound = text_model(4)
    bench.point("production", 2, bench.put(TWO, damaged(sound), sha256=FlatFile(sound).header_sha256))
    bench.later()
    assert bench.version() == ONE
    assert bench.alerts() == ["integrity_failure"]
    assert bench.failures() == 1
    reads = len(bench.shelf.keys)
    for _ in range(3):
        bench.later(2.6)
        bench.version()
    assert len(bench.shelf.keys) == reads + 3  # looked at, not loaded again at once
    bench.put(TWO, sound)
    bench.later(RETRY_S + 1)
    assert bench.version() == TWO


def test_a_new_version_is_checked_to_its_last_page_before_it_serves(bench: Bench) -> None:
    bench.version()
    bench.point("production", 2, bench.put(TWO, damaged(wide_model(), unread=True)))
    bench.later()
    assert bench.version() == ONE
    assert bench.failures() == 1


def test_a_cold_start_with_a_damaged_version_serves_the_previous_one_until_it_is_mended() -> None:
    bench = Bench()
    sound = text_model(4)
    bench.point("production", 7, bench.put(TWO, damaged(sound), sha256=FlatFile(sound).header_sha256))
    bench.point("previous", 6, bench.put(ONE, text_model()))
    assert bench.version() == ONE
    assert len(bench.shelf.keys) == 4
    assert bench.alerts() == ["integrity_failure", "falling_back_to_previous"]
    assert bench.predictor.status() == [Status("m", "production", ONE, "fallback")]
    bench.put(TWO, sound)
    bench.later()
    assert bench.version() == ONE
    bench.later(RETRY_S + 1)
    assert bench.version() == TWO
    assert bench.predictor.status() == [Status("m", "production", TWO, "ready")]


@pytest.mark.parametrize("previous", ["none", "damaged", "gone"])
def test_a_cold_start_without_any_sound_version_is_unavailable(previous: str) -> None:
    bench = Bench()
    bad = damaged(text_model())
    entry = bench.put(ONE, bad, sha256=FlatFile(text_model()).header_sha256)
    bench.point("production", 2, entry)
    if previous == "damaged":
        bench.point("previous", 1, entry)
    if previous == "gone":
        bench.point("previous", 1, entry | {"artifact_key": "reg/m/art/none"})
    with pytest.raises(Unavailable) as caught:
        bench.version()
    assert caught.value.fields["retry_after_s"] == RETRY_S
    assert bench.predictor.status() == [Status("m", "production", None, "failed")]


def test_another_alias_has_no_fallback() -> None:
    bench = Bench()
    bench.point("previous", 1, bench.put(ONE, text_model()))
    bench.point("staging", 1, bench.put(TWO, b"junk", sha256="0" * 64))
    with pytest.raises(Unavailable):
        bench.version("staging")


def test_a_page_found_damaged_while_predicting_is_answered_by_the_previous_version() -> None:
    bench = Bench()
    bench.point("production", 2, bench.put(TWO, damaged(wide_model(), unread=True)))
    bench.point("previous", 1, bench.put(ONE, text_model()))

    def read_all(model: Model) -> int:
        model.file.verify_all()
        return len(model.classes)

    assert bench.version() == TWO
    _, loaded = bench.predictor.run("m", "production", read_all)
    assert loaded.version == ONE
    assert bench.failures() == 1
    bench.later()
    assert bench.version() == ONE


def test_damage_in_every_version_is_unavailable_not_wrong() -> None:
    bench = Bench()
    bench.point("production", 2, bench.put(TWO, damaged(wide_model(), unread=True)))
    bench.point("previous", 1, bench.put(ONE, damaged(wide_model(), unread=True)))
    with pytest.raises(Unavailable):
        bench.predictor.run("m", "production", lambda model: model.file.verify_all())
    assert bench.failures() == 2
    with pytest.raises(Unavailable):
        bench.version()


def test_the_rest_of_a_cold_started_artifact_is_checked_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.inference.VERIFY_BYTES", 64 << 10)
    bench = Bench()
    bench.point("production", 2, bench.put(TWO, damaged(wide_model(), unread=True)))
    bench.point("previous", 1, bench.put(ONE, wide_model()))
    assert bench.version() == TWO
    for _ in range(8):
        bench.later()
        bench.version()
    assert bench.version() == ONE
    assert bench.failures() == 1


def test_a_sound_cold_started_artifact_is_checked_once_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.inference.VERIFY_BYTES", 64 << 10)
    bench = Bench()
    bench.point("production", 1, bench.put(ONE, wide_model()))
    model = bench.predictor.resolve("m").model
    assert 0 in model.file._seen
    for _ in range(12):
        bench.later()
        bench.version()
    assert 0 not in model.file._seen
    assert bench.alerts() == []


def test_a_late_report_of_damage_does_not_withdraw_the_replacement(bench: Bench) -> None:
    def work(model: Model) -> str:
        if model.manifest["facts"]["metrics"]["accuracy"] == 0.75:
            bench.point("production", 2, bench.put(TWO, text_model(4)))
            bench.later()
            bench.version()
            raise IntegrityError("a page")
        return "fine"

    found, loaded = bench.predictor.run("m", "production", work)
    assert (found, loaded.version) == ("fine", TWO)


@pytest.mark.parametrize("error", [ImportError("no onnxruntime"), MemoryError()])
def test_a_version_that_this_process_cannot_load_leaves_the_good_one(error: Exception) -> None:
    def load(buffer: Any, digest: str) -> Model:
        model = artifact.load(buffer, digest)
        if model.manifest["facts"]["metrics"]["accuracy"] == 0.79:
            raise error
        return model

    bench = Bench(load=load)
    bench.point("production", 1, bench.put(ONE, text_model()))
    assert bench.version() == ONE
    bench.point("production", 2, bench.put(TWO, text_model(4)))
    bench.later()
    assert bench.version() == ONE
    assert bench.alerts() == ["version_not_loaded"]


# -- outages


@pytest.mark.parametrize("error", [Transient("down"), Denied("403")])
def test_a_store_that_is_down_costs_a_warm_process_nothing(bench: Bench, error: Exception) -> None:
    bench.version()
    bench.shelf.errors["reg/"] = error
    for _ in range(100):
        bench.later()
        assert bench.version() == ONE
    bench.shelf.errors.clear()
    bench.point("production", 2, bench.put(TWO, text_model(4)))
    bench.later()
    assert bench.version() == TWO


def test_a_cold_start_while_the_store_is_down_is_unavailable_and_asks_once_a_second(bench: Bench) -> None:
    bench.shelf.errors["alias"] = Transient("down")
    for _ in range(20):
        with pytest.raises(Unavailable):
            bench.version()
    assert len(bench.shelf.keys) == 1
    bench.shelf.errors.clear()
    bench.later(ERROR_S * 2.6)
    assert bench.version() == ONE


def test_an_artifact_that_cannot_be_read_for_now_is_no_reason_to_serve_the_previous_one(bench: Bench) -> None:
    bench.point("previous", 1, bench.put(TWO, text_model(4)))
    bench.shelf.errors[f"art/{ONE}"] = Transient("slow down")
    with pytest.raises(Unavailable):
        bench.version()
    bench.shelf.errors.clear()
    bench.later()
    assert bench.version() == ONE
    bench.shelf.errors[f"art/{TWO}"] = Denied("403")
    bench.point("production", 2, bench.put(TWO, text_model(4)))
    bench.later()
    assert bench.version() == ONE


def test_a_stampede_on_a_cold_process_reads_twice() -> None:
    bench = Bench()
    bench.point("production", 1, bench.put(ONE, text_model()))
    bench.shelf.delay_s = 0.02
    found: list[str] = []
    barrier = threading.Barrier(200)

    def work() -> None:
        barrier.wait()
        found.append(bench.version())

    threads = [threading.Thread(target=work) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [ONE] * 200
    assert len(bench.shelf.keys) == 2


def test_a_stampede_on_a_store_that_is_down_asks_once() -> None:
    bench = Bench()
    bench.shelf.errors["reg/"] = Transient("down")
    bench.shelf.delay_s = 0.02
    caught: list[str] = []

    def work() -> None:
        try:
            bench.version()
        except Unavailable as error:
            caught.append(error.code)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == ["unavailable"] * 50
    assert len(bench.shelf.keys) == 1


def test_while_one_thread_loads_a_new_version_the_others_go_on_with_the_old_one(bench: Bench) -> None:
    bench.version()
    bench.point("production", 2, bench.put(TWO, text_model(4)))
    bench.later()
    bench.shelf.delay_s = 0.3
    slow: list[str] = []
    thread = threading.Thread(target=lambda: slow.append(bench.version()))
    thread.start()
    time.sleep(0.1)
    started = time.perf_counter()
    assert bench.version() == ONE
    assert time.perf_counter() - started < 0.2
    thread.join()
    assert slow == [TWO]


def test_a_refusal_stands_while_another_thread_looks_at_the_store_again() -> None:
    """Who came just before the next look was due must not be told that a version is damaged."""
    bench, looking, go_on = Bench(), threading.Event(), threading.Event()
    with pytest.raises(NotFound):
        bench.predictor.resolve("m")

    class Waiting(Shelf):
        def get(self, key: str) -> bytes:
            looking.set()
            go_on.wait()
            return super().get(key)

    def look() -> None:
        with pytest.raises(NotFound):
            bench.predictor.resolve("m")

    other = threading.Thread(target=look, daemon=True)
    early = bench.clock.now

    def overtaken() -> float:
        """Return the time, and let the other thread begin a look that is due by then."""
        bench.predictor._timing = bench.predictor._timing._replace(clock=lambda: early + 100.0)
        other.start()
        looking.wait()
        return early

    bench.predictor._versions._reader = Waiting()
    bench.predictor._timing = bench.predictor._timing._replace(clock=overtaken)
    try:
        look()
    finally:
        go_on.set()
    other.join()
