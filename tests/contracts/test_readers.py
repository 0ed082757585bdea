"""What every reader must do, on all five stores: by obstore in the clouds, from files in a folder."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from core.errors import Denied, Missing, Transient
from core.local_store import LocalStore
from core.reader import Reader, StoreReader, open_reader
from core.store import MemoryStore, ObjectStore
from tests.contracts.store_contract import ILLEGAL_KEYS, LEGAL_KEYS
from tests.emulators.cutting_proxy import AFTER, AMID, BEFORE, Fate, cutting
from tests.emulators.emulator import Emulator

CLOUDS = ["moto", "gcs", "azurite"]
DATA = bytes(range(256)) * 400
Enter = Callable[..., Emulator]  # the name of a cloud, and an address that stands for it


class Place(NamedTuple):
    """A store, and a reader of what is written there."""

    store: ObjectStore
    reader: Reader


@pytest.fixture
def enter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Return a function that leads readers to a cloud's emulator, or to another address that stands for it."""

    def lead(cloud: str, address: str = "") -> Emulator:
        emulator: Emulator = request.getfixturevalue(cloud)
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value.replace(emulator.endpoint, address or emulator.endpoint))
        return emulator

    return lead


@pytest.fixture(params=["memory", "local", *CLOUDS])
def place(request: pytest.FixtureRequest, tmp_path: Path, enter: Enter) -> Place:
    if request.param == "memory":
        store = MemoryStore()
        return Place(store, StoreReader(store))
    if request.param == "local":
        return Place(LocalStore(str(tmp_path), fsync=False), open_reader(str(tmp_path)))
    emulator = enter(request.param)
    url = emulator.new_store_url() + "/team/a"
    return Place(emulator.open(url), open_reader(url, allow_http=True))


def test_what_was_written_is_read_at_once_and_again_when_replaced(place: Place) -> None:
    for data in (DATA, b"short", b""):
        place.store.put("reg/m/alias/production.json", data)
        assert place.reader.get("reg/m/alias/production.json") == data
        assert bytes(place.reader.buffer("reg/m/alias/production.json")) == data


def test_what_was_deleted_is_missing_at_once(place: Place) -> None:
    place.store.put("doc", DATA)
    assert place.reader.get("doc") == DATA
    place.store.delete("doc")
    with pytest.raises(Missing):
        place.reader.get("doc")


def test_odd_but_legal_keys_are_read_and_listed(place: Place) -> None:
    for key in LEGAL_KEYS:
        place.store.put(key, key.encode())
    for key in LEGAL_KEYS:
        assert place.reader.get(key) == key.encode()
        assert bytes(place.reader.buffer(key)) == key.encode()
    folder = "uploads/spam/"
    here = [key for key in LEGAL_KEYS if key.startswith(folder) and "/" not in key.removeprefix(folder)]
    assert place.reader.keys(folder) == sorted(here)


def test_what_is_no_object_is_missing(place: Place) -> None:
    place.store.put("folder/inner", DATA)
    for key in ("none", "folder", "folder/none", "folder/inner/below", *ILLEGAL_KEYS):
        with pytest.raises(Missing):
            place.reader.get(key)
        with pytest.raises(Missing):
            place.reader.buffer(key)


def test_keys_are_those_directly_below_the_prefix_in_order(place: Place) -> None:
    for key in ("reg/m/z.json", "reg/m/a.json", "reg/m/below/c.json", "reg/m2/d.json", "reg/x", "regal"):
        place.store.put(key, b"")
    assert place.reader.keys("reg/m/") == ["reg/m/a.json", "reg/m/z.json"]
    assert place.reader.keys("reg/") == ["reg/x"]
    assert place.reader.keys("none/") == []


def test_a_long_listing_is_complete(place: Place) -> None:
    keys = [f"reg/_models/m{n:03d}.json" for n in range(250)]
    for key in keys:
        place.store.put(key, b"{}")
    assert place.reader.keys("reg/_models/") == keys


# --- clouds that fail


def test_a_reader_of_what_lies_beside_its_prefix_reads_nothing(enter: Enter) -> None:
    emulator = enter("moto")
    url = emulator.new_store_url()
    emulator.upload(f"{url}/team/ab", "doc", DATA)
    reader = open_reader(f"{url}/team/a", allow_http=True)
    for key in ("doc", "b/doc"):
        with pytest.raises(Missing):
            reader.get(key)
    assert reader.keys("b/") == []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_bucket_that_is_not_there_gives_nothing_and_no_empty_listing(enter: Enter, cloud: str) -> None:
    reader = open_reader(enter(cloud).new_store_url() + "-beside", allow_http=True)
    with pytest.raises((Missing, Denied, Transient)):
        reader.get("doc")
    with pytest.raises((Denied, Transient)):
        reader.keys("reg/")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_an_address_where_nobody_listens_is_transient(enter: Enter, cloud: str) -> None:
    emulator = enter(cloud, "http://127.0.0.1:9")
    reader = open_reader(emulator.new_store_url(), allow_http=True)
    with pytest.raises(Transient):
        reader.get("doc")
    with pytest.raises(Transient):
        reader.buffer("doc")
    with pytest.raises(Transient):
        reader.keys("reg/")


@pytest.fixture
def silence(enter: Enter) -> Iterator[Reader]:
    """A reader of a bucket that takes requests and never answers, until the test is over."""
    over = threading.Event()

    def hold(method: str, path: str) -> Fate:
        over.wait(120)
        return Fate(BEFORE)

    with cutting(enter("moto").endpoint) as proxy:
        url = enter("moto", proxy.address).new_store_url()
        proxy.plan = hold
        yield open_reader(url, allow_http=True)
        over.set()


def test_a_bucket_that_never_answers_is_transient_before_long(silence: Reader) -> None:
    told: list[str] = []

    def ask() -> None:
        try:
            silence.get("doc")
        except Transient:
            told.append("transient")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)  # three tries of ten seconds at most, and what a busy machine adds
    assert told == ["transient"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_an_answer_that_was_cut_is_never_taken_for_a_whole_one(enter: Enter, cloud: str) -> None:
    emulator = enter(cloud)
    url = emulator.new_store_url()
    for key in ("reg/a.json", "reg/b.json"):
        emulator.upload(url, key, DATA)
    with cutting(emulator.endpoint) as proxy:
        enter(cloud, proxy.address)
        reader = open_reader(url, allow_http=True)
        assert (reader.get("reg/a.json"), reader.keys("reg/")) == (DATA, ["reg/a.json", "reg/b.json"])
        for fate in [Fate(AFTER), *_cuts(proxy.seen[0].size, 2), *_cuts(600, 2)]:
            with proxy.always(fate, ("GET",)):
                with pytest.raises(Transient):
                    reader.get("reg/a.json")
                with pytest.raises(Transient):
                    reader.keys("reg/")
            with proxy.once("GET", fate):
                assert reader.get("reg/a.json") == DATA


def _cuts(size: int, count: int) -> list[Fate]:
    return [Fate(AMID, at=at) for at in random.Random(size).sample(range(12, size), count)]
