"""Replies that are lost on their way: what was done is found out, never guessed, through each cloud's own SDK."""

from __future__ import annotations

import io
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from core.errors import Exists, Missing, Stale, Transient, Unavailable
from core.keys import alias_key
from core.registry import Registry
from core.store import ObjectStore
from tests.contracts.store_contract import in_threads
from tests.core.ledgers import MODEL, open_registry, train
from tests.emulators import moto as moto_emulator
from tests.emulators.cutting_proxy import AFTER, AMID, BEFORE, CuttingProxy, Exchange, Fate, Seeded, cutting
from tests.emulators.emulator import Emulator
from tests.faults import sizes
from tests.faults.auditor import audit
from tests.faults.campaigns import scored

# the SDKs leave it to the garbage collector to close the connections that were cut
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)

CUTS = sizes.size(40, 1000)  # replies cut for each SDK
CLOUDS = ["moto", "gcs", "azurite"]
WRITERS = 3
STATUS_LINE = Fate(AMID, at=12)  # "HTTP/1.1 200": a head that ends there is one to the SDKs, with no header in it
DATA = bytes(range(256)) * 2


@pytest.fixture(params=CLOUDS)
def emulator(request: pytest.FixtureRequest) -> Emulator:
    found: Emulator = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxy(emulator: Emulator) -> Iterator[CuttingProxy]:
    with cutting(emulator.endpoint) as proxy:
        yield proxy


@pytest.fixture
def url(emulator: Emulator) -> str:
    return emulator.new_store_url()


@pytest.fixture
def store(emulator: Emulator, url: str, proxy: CuttingProxy) -> ObjectStore:
    """The store behind the proxy."""
    return emulator.open(url, endpoint=proxy.address)


@pytest.fixture
def plain(emulator: Emulator, url: str) -> ObjectStore:
    """The same store as it is."""
    return emulator.open(url)


# --- the store's verbs


@pytest.mark.parametrize("fate", [Fate(AFTER), STATUS_LINE], ids=["no reply", "a status line"])
def test_a_write_that_lands_unheard_is_transient_and_nothing_else(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy, fate: Fate
) -> None:
    token = plain.put("old", b"1")
    plain.put("gone", b"1")
    with proxy.always(fate):
        with pytest.raises(Transient):
            store.put_if_absent("new", b"mine")
        with pytest.raises(Transient):
            store.put_if_match("old", b"2", token)
        with pytest.raises(Transient):
            store.put("any", b"3")
    with proxy.always(Fate(AFTER)), pytest.raises(Transient):
        store.delete("gone")
    assert [plain.get(key).data for key in ("new", "old", "any")] == [b"mine", b"2", b"3"]
    with pytest.raises(Missing):
        plain.get("gone")
    assert sum(exchange.method in ("PUT", "POST") for exchange in proxy.seen) == 3, "a write was sent twice"


def test_a_write_that_never_arrives_is_transient_too_and_nothing_is_there(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy
) -> None:
    token = plain.put("old", b"1")
    with proxy.always(Fate(BEFORE)):
        with pytest.raises(Transient):
            store.put_if_absent("new", b"mine")
        with pytest.raises(Transient):
            store.put_if_match("old", b"2", token)
        with pytest.raises(Transient):
            store.delete("old")
    assert [(entry.key, entry.token) for entry in plain.list("")] == [("old", token)]
    assert store.put_if_match("old", b"2", token)


def test_a_refusal_that_is_lost_is_transient_too(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy
) -> None:
    stale, token = plain.put("old", b"1"), plain.put("old", b"2")
    with proxy.always(Fate(AFTER)):
        with pytest.raises(Transient):
            store.put_if_absent("old", b"3")
        with pytest.raises(Transient):
            store.put_if_match("old", b"3", stale)
    assert plain.get("old") == (b"2", token)
    with pytest.raises(Exists):
        store.put_if_absent("old", b"3")
    with pytest.raises(Stale):
        store.put_if_match("old", b"3", stale)


def test_a_read_whose_reply_is_lost_is_transient_at_worst(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy
) -> None:
    token = plain.put("doc", DATA)
    for fate in (Fate(AFTER), Fate(BEFORE)):
        with proxy.once("GET", fate), suppress(Transient):  # SDKs that try again have it now
            assert store.get("doc") == (DATA, token)
        with proxy.once("GET", fate), suppress(Transient):
            assert [entry.token for entry in store.list("")] == [token]
    assert store.get("doc") == (DATA, token)


Verb = Callable[[ObjectStore, ObjectStore, str], None]


def created(store: ObjectStore, plain: ObjectStore, key: str) -> None:
    assert store.put_if_absent(key, DATA) == plain.head(key).token


def swapped(store: ObjectStore, plain: ObjectStore, key: str) -> None:
    assert store.put_if_match(key, DATA, plain.put(key, b"old")) == plain.head(key).token


def got(store: ObjectStore, plain: ObjectStore, key: str) -> None:
    token = plain.put(key, DATA)
    assert store.get(key) == (DATA, token)


def fetched(store: ObjectStore, plain: ObjectStore, key: str) -> None:
    plain.put(key, DATA)
    target = io.BytesIO()
    entry = store.fetch(key, target)
    assert (entry, target.getvalue()) == (plain.head(key), DATA)


def headed(store: ObjectStore, plain: ObjectStore, key: str) -> None:
    token = plain.put(key, DATA)
    assert store.head(key).token == token


def listed(store: ObjectStore, plain: ObjectStore, key: str) -> None:
    plain.put(f"{key}/1", DATA)
    plain.put(f"{key}/2", b"")
    assert list(store.list(f"{key}/")) == list(plain.list(f"{key}/"))


@pytest.mark.parametrize("verb", [created, swapped])
def test_a_reply_to_a_write_cut_at_any_byte_is_told_from_a_whole_one(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy, verb: Verb
) -> None:
    verb(store, plain, "whole")
    size = _newest(proxy, ("PUT", "POST")).size
    for at in _offsets(size, 2 * CUTS):
        with proxy.always(Fate(AMID, at=at), ("PUT", "POST")):
            _try(verb, store, plain, f"cut/{at}")


@pytest.mark.parametrize("verb", [got, fetched, headed, listed])
def test_a_reply_to_a_read_cut_at_any_byte_is_told_from_a_whole_one(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy, verb: Verb
) -> None:
    verb(store, plain, "whole")
    size = _newest(proxy, ("GET", "HEAD")).size
    for at in _offsets(size, CUTS // 20):
        with proxy.always(Fate(AMID, at=at), ("GET", "HEAD")):
            _try(verb, store, plain, f"cut/{at}")


def _newest(proxy: CuttingProxy, methods: tuple[str, ...]) -> Exchange:
    return [exchange for exchange in proxy.seen if exchange.method in methods][-1]


def _offsets(size: int, count: int) -> list[int]:
    """Return bytes to cut at: the end of the status line, and others between it and the end of the reply."""
    return [12, *random.Random(size).sample(range(13, size - 1), min(count, size - 14))]


def _try(verb: Verb, store: ObjectStore, plain: ObjectStore, key: str) -> None:
    """Let the verb give what is right, or raise Transient; nothing else."""
    try:
        verb(store, plain, key)
    except Transient:
        return


# --- the registry


class Writer:
    """Appends notes and moves an alias that is its own alone: whatever conflict it meets is a false one."""

    def __init__(self, me: int, store: ObjectStore, versions: list[str]) -> None:
        self._me = me
        self._registry = open_registry(store, seed=me)
        self._versions = versions
        self.alias = f"writer-{me}"
        self.moves = 0
        self.acked: list[str] = []
        self.unknown = 0

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Write while it goes on; each operation is repeated, with its id, until its outcome is known."""
        while goes_on():
            op_id = f"{self._me}-{len(self.acked)}"
            act = self._note if len(self.acked) % 2 else self._move
            while not self._acked(act, op_id):
                self.unknown += 1
            self.acked.append(op_id)

    def _acked(self, act: Callable[[str], None], op_id: str) -> bool:
        try:
            act(op_id)
        except Unavailable:
            return False
        return True

    def _move(self, op_id: str) -> None:
        version = self._versions[self.moves % len(self._versions)]
        moved = self._registry.move(MODEL, self.alias, version, expect_rev=self.moves, op_id=op_id)
        self.moves += 1
        assert (moved.rev, moved.splits[0].version) == (self.moves, version)

    def _note(self, op_id: str) -> None:
        entry = self._registry.append(MODEL, lambda _: {"op": "note", "reason": op_id}, op_id=op_id)
        assert (entry["op_id"], entry["reason"]) == (op_id, op_id)


def test_of_cut_replies_every_one_is_classified_right(
    request: pytest.FixtureRequest, emulator: Emulator, url: str, proxy: CuttingProxy, plain: ObjectStore
) -> None:
    before = open_registry(plain)
    versions = [train(before, name) for name in "ab"]
    writers = [Writer(me, emulator.open(url, endpoint=proxy.address), versions) for me in range(WRITERS)]
    plan = proxy.plan = Seeded(11, rate=0.4, limit=CUTS)
    cloud = request.node.callspec.params["emulator"]
    with scored(f"lost replies classified: {cloud}", CUTS):
        in_threads(WRITERS, lambda me: writers[me].run(lambda: plan.left > 0))
        _check_cuts(proxy)
        _check_log(plain, writers)
        _check_aliases(plain, writers, before)


def _check_cuts(proxy: CuttingProxy) -> None:
    cut = proxy.cut()
    assert len(cut) == CUTS
    assert all(exchange.sent < exchange.size for exchange in cut)
    assert sum(exchange.status in (200, 201) for exchange in cut) > CUTS // 4, "too few of them landed"


def _check_log(plain: ObjectStore, writers: list[Writer]) -> None:
    """Each acknowledged operation stands in the log exactly once, and nothing else of the writers does."""
    acked = [op_id for writer in writers for op_id in writer.acked]
    log = open_registry(plain).history(MODEL, limit=100_000).entries
    found = Counter(entry["op_id"] for entry in log if entry["op_id"][0].isdigit())
    assert found == Counter(acked)
    facts = audit(plain, MODEL, acked=acked)
    assert open_registry(plain).verify_log(MODEL) is None
    assert {writer.alias: writer.moves for writer in writers} == {
        name: len(moves) for name, moves in facts["revs"].items()
    }


def _check_aliases(plain: ObjectStore, writers: list[Writer], registry: Registry) -> None:
    """What the predict path reads is right again after one repair, whatever the documents' writers were told."""
    registry.repair_aliases(MODEL)
    assert registry.repair_aliases(MODEL) == []
    for writer in writers:
        assert f'"rev":{writer.moves},'.encode() in plain.get(alias_key(MODEL, writer.alias)).data


# --- what the tests are worth


class Retrying:
    """Repeats a write whose outcome is unknown, as the SDKs do unless they are told not to."""

    def __init__(self, base: ObjectStore) -> None:
        self._base = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def put_if_absent(self, key: str, data: bytes) -> str:
        try:
            return self._base.put_if_absent(key, data)
        except Transient:
            return self._base.put_if_absent(key, data)


def test_a_store_that_repeats_a_create_takes_its_own_object_for_anothers(
    store: ObjectStore, plain: ObjectStore, proxy: CuttingProxy
) -> None:
    retrying = Retrying(store)
    method = "POST" if plain.__class__.__name__ == "GcsStore" else "PUT"
    with proxy.once(method, Fate(AFTER)), pytest.raises(Exists):
        retrying.put_if_absent("new", b"mine")
    assert plain.get("new").data == b"mine"


def test_the_sdk_as_it_comes_takes_its_own_object_for_anothers(moto: Emulator) -> None:
    bucket = moto.new_store_url().removeprefix("s3://")
    with cutting(moto.endpoint) as proxy, proxy.once("PUT", Fate(AFTER)):
        client = moto_emulator.session().client("s3", endpoint_url=proxy.address)
        with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
            client.put_object(Bucket=bucket, Key="new", Body=b"mine", IfNoneMatch="*")
    assert moto.open(f"s3://{bucket}").get("new").data == b"mine"


# --- a reply that comes too late


def test_a_write_that_lands_after_its_caller_gave_up_is_transient(request: pytest.FixtureRequest) -> None:
    emulators: list[Emulator] = [request.getfixturevalue(cloud) for cloud in CLOUDS]
    with ThreadPoolExecutor(len(emulators)) as pool:
        assert list(pool.map(_lands_late, emulators)) == ["transient, absent, there, exists"] * len(emulators)


def _lands_late(emulator: Emulator) -> str:
    """Create an object through a proxy that holds the request until the SDK has given up; return the story."""
    url, held = emulator.new_store_url(), threading.Event()

    def hold(method: str, path: str) -> Fate:
        held.wait(60)
        return Fate()

    with cutting(emulator.endpoint) as proxy:
        plain, store = emulator.open(url), emulator.open(url, endpoint=proxy.address)
        proxy.plan = hold
        told = [_answer(lambda: store.put_if_absent("late", b"mine")), _answer(lambda: plain.get("late"))]
        held.set()
        until = time.monotonic() + 30
        while time.monotonic() < until and _answer(lambda: plain.get("late")) == "absent":
            time.sleep(0.05)
        told += [_answer(lambda: plain.get("late")), _answer(lambda: store.put_if_absent("late", b"mine"))]
    return ", ".join(told)


def _answer(act: Callable[[], object]) -> str:
    try:
        act()
    except Transient:
        return "transient"
    except Missing:
        return "absent"
    except Exists:
        return "exists"
    return "there"
