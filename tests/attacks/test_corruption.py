"""Rot at rest: whatever byte of artifact, manifest, log, checkpoint or alias document changes is noticed before it
is used, and what was good goes on answering."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from core import audit
from core.errors import IntegrityError
from core.flatfile import PAGE, FlatFile, write
from core.keys import log_key
from core.registry import Registry
from core.state import State
from core.versions import parse_document
from tests.attacks.corruption import MODEL, Shop, rotten
from tests.core.house import House, damaged, header, text_model, wide_model
from tests.core.shelf import ONE, TWO, Bench, first
from tests.faults.scoreboard import record
from tests.faults.sizes import size

SEED = 4
SHARES = {"artifact": 0.35, "manifest": 0.2, "log": 0.2, "checkpoint": 0.1, "alias": 0.15}


@cache
def shop() -> Shop:
    """Return the store that is damaged and mended again and again."""
    return Shop()


def trials(what: str) -> Iterator[tuple[random.Random, str]]:
    """Yield a generator of chances for each corruption of one kind of object, and the text to find it again by."""
    for number in range(int(size(800, 10_000) * SHARES[what])):
        yield random.Random(f"{SEED} {what} {number}"), f"seed: {SEED} {what} {number}"


def judge(what: str, faults: list[str], started: float) -> None:
    """Note the figures and fail if there were faults."""
    count = sum(1 for _ in trials(what))
    record(f"corruptions of {what}: noticed before use", count, len(faults), time.perf_counter() - started)
    assert faults == []


@pytest.mark.parametrize("what", ["artifact", "manifest"])
def test_a_damaged_artifact_is_refused_and_the_last_good_version_answers(what: str) -> None:
    world, started, faults = shop(), time.perf_counter(), list[str]()
    for rng, seed in trials(what):
        key = world.sound.artifacts[rng.choice(world.versions)]
        high = 16 + struct.unpack_from("<I", world.sound.objects[key], 8)[0] if what == "manifest" else None
        data = rotten(rng, world.sound.objects, key, high)
        if _loads(data, world.sound.promised[key]):
            faults.append(f"{seed}: not noticed")
        if not _keeps_the_good_one(data, world.sound.promised[key]):
            faults.append(f"{seed}: a warm process lost its version")
        world.store.put(key, data)
        if not world.is_right(world.ask()):
            faults.append(f"{seed}: a cold process gave a wrong answer, or none")
        world.mend(key)
    judge(what, faults, started)


def _loads(data: bytes, promised: str) -> bool:
    """Tell whether the bytes pass for the promised ones; nothing of them but their header has been parsed then."""
    try:
        FlatFile(data, promised).verify_all()
    except IntegrityError:
        return False
    return True


def _keeps_the_good_one(data: bytes, promised: str) -> bool:
    """Tell whether a process that serves ONE goes on with it, once production points to TWO with these bytes."""
    bench = first()
    bench.version()
    bench.point("production", 2, bench.put(TWO, data, sha256=promised))
    bench.later()
    return bench.version() == ONE and bench.failures() == 1


def test_a_damaged_log_entry_is_named_and_no_prediction_depends_on_it() -> None:
    world, started, faults = shop(), time.perf_counter(), list[str]()
    sound = world.fresh().state(MODEL)
    for rng, seed in trials("log"):
        n = rng.randrange(len(world.sound.logs))
        key = world.sound.logs[n]
        world.store.put(key, rotten(rng, world.sound.objects, key))
        if audit.verify(world.store, MODEL, world.sound.anchor) != n:
            faults.append(f"{seed}: verify does not name entry {n}")
        if not _is_refused_or_not_read(world, sound, last=n == len(world.sound.logs) - 1):
            faults.append(f"{seed}: a registry took entry {n} for good")
        if not world.is_right(world.ask()):
            faults.append(f"{seed}: a prediction depends on the log")
        world.mend(key)
    judge("log", faults, started)


def _is_refused_or_not_read(world: Shop, sound: State, *, last: bool) -> bool:
    """Tell whether a new registry stops at the damage, or starts behind it from a checkpoint that is vouched for.

    Nothing but an anchor vouches for the last entry, so a forged one is a legal end of the log.
    """
    try:
        state = world.fresh().state(MODEL)
    except IntegrityError:
        return True
    return state.to_json() == sound.to_json() or (last and state.head == sound.head)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
def test_a_log_entry_with_a_number_that_nobody_can_write_is_damage(number: bytes) -> None:
    house = House()
    house.registry.append(MODEL, lambda _: {"op": "note"}, op_id="x")
    key = log_key(MODEL, 0)
    body = house.store.get(key).data
    house.store.put(key, body.replace(b'"ts":', b'"ts":' + number + b',"was":'))
    assert house.store.get(key).data != body
    assert audit.verify(house.store, MODEL) == 0
    fresh = Registry(house.store, clock=house.clock, sleep=house.clock.sleep, rng=random.Random(0), actor="x")
    with pytest.raises(IntegrityError):
        fresh.state(MODEL)


def test_a_damaged_checkpoint_is_not_used() -> None:
    world, started, faults = shop(), time.perf_counter(), list[str]()
    sound = world.fresh().state(MODEL)
    for rng, seed in trials("checkpoint"):
        key = rng.choice(world.sound.checkpoints)
        world.store.put(key, rotten(rng, world.sound.objects, key))
        state = world.fresh().state(MODEL)
        if (state.to_json(), state.hash) != (sound.to_json(), sound.hash):
            faults.append(f"{seed}: another state")
        world.mend(key)
    judge("checkpoint", faults, started)


def test_a_damaged_alias_document_is_refused_kept_out_and_mended() -> None:
    world, started, faults = shop(), time.perf_counter(), list[str]()
    for rng, seed in trials("alias"):
        key = rng.choice(world.sound.aliases)
        warm = world.house.build()
        before = world.ask(warm)
        data = rotten(rng, world.sound.objects, key)
        world.store.put(key, data)
        if not _is_refused(data, key):
            faults.append(f"{seed}: not noticed")
        world.house.clock.now += 3.0
        after = world.ask(warm)
        if not world.is_right(after) or header(after, "x-model-version") != header(before, "x-model-version"):
            faults.append(f"{seed}: a warm process lost its version")
        cold = world.ask()
        if cold.status != 503 and not world.is_right(cold):
            faults.append(f"{seed}: a cold process gave a wrong answer")
        world.fresh().repair_aliases(MODEL)
        if _is_refused(world.store.get(key).data, key) or not world.is_right(world.ask()):
            faults.append(f"{seed}: not mended")
        world.mend(key)
    judge("alias", faults, started)


def _is_refused(data: bytes, key: str) -> bool:
    try:
        parse_document(data, key)
    except IntegrityError:
        return True
    return False


# --- what a check of these checks needs: damage that must be noticed by them, or by nothing


def test_each_way_to_rot_changes_the_bytes_and_leaves_the_store_mended() -> None:
    world = shop()
    for rng, _ in trials("alias"):
        key = rng.choice(list(world.sound.objects))
        assert rotten(rng, world.sound.objects, key) != world.sound.objects[key]
    assert {entry.key: world.store.get(entry.key).data for entry in world.store.list("reg/")} == dict(
        world.sound.objects
    )


def test_a_process_that_does_not_check_would_be_caught() -> None:
    """Bytes that nobody asked for pass where the promise is theirs: the judges above see that."""
    assert _loads(text_model(), FlatFile(text_model()).header_sha256)
    assert not _keeps_the_good_one(text_model(4), FlatFile(text_model(4)).header_sha256)


def test_a_page_that_is_read_late_is_checked_then() -> None:
    bench = Bench()
    sha256 = FlatFile(wide_model()).header_sha256
    bench.point("production", 2, bench.put(TWO, damaged(wide_model(), unread=True), sha256=sha256))
    bench.point("previous", 1, bench.put(ONE, wide_model()))
    assert bench.version() == TWO
    _, loaded = bench.predictor.run("m", "production", lambda model: model.file.verify_all())
    assert loaded.version == ONE


@pytest.mark.parametrize("width", [512, 513, 784, 1500])
def test_a_row_is_checked_in_the_middle_too_whichever_rows_were_read_before(width: int) -> None:
    sound = write({}, {"w": np.arange(3.0 * width).reshape(3, width)})
    start = len(sound) - int(FlatFile(sound).header["data_size"])
    for low in range(start + 8 * width, start + 16 * width, PAGE // 8):
        rotten = bytearray(sound)
        rotten[low] ^= 1
        read = FlatFile(bytes(rotten)).rows("w")
        with pytest.raises(IntegrityError):
            _ = [read(row) for row in (0, 2, 1)]
