"""What every ObjectStore must do. A store is held to it by a subclass with a fixture `store`: fresh and empty."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import Exists, InvalidName, Missing, Stale, Transient
from core.store import ObjectStore

LEGAL_KEYS = [
    "a",
    "uploads/spam/sms spam (1).csv",
    "uploads/spam/überraschung – 数据.csv",
    "uploads/spam/100%+off&x=1?#frag;.csv",
    "uploads/spam/a%2Fb%20c.csv",
    "uploads/spam/'quoted' \"twice\"~.csv",
    "uploads/spam/...dots",
    "deep/" + "x/" * 40 + "end",
    "long/" + "n" * 250,
]
ILLEGAL_KEYS = [
    "",
    "/etc/passwd",
    "../outside",
    "a/../../outside",
    "a/..",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "..\\outside",
    "nul\0byte",
    ".tmp/x",
    ".tmpfile",
    "lone\ud800surrogate",
    "k" * 256,
    "s/" * 600 + "s",
]


class StoreContract:
    """The suite. `workers` × `increments` sets the contention test, `many` the pagination test."""

    workers = 8
    increments = 40
    many = 1100

    def test_what_was_put_comes_back_with_its_token(self, store: ObjectStore) -> None:
        token = store.put("a/b.json", b"one")
        assert store.get("a/b.json") == (b"one", token)
        assert store.get("a/b.json", token).data == b"one"

    def test_put_replaces_and_gives_a_new_token(self, store: ObjectStore) -> None:
        first = store.put("a/b.json", b"one")
        second = store.put("a/b.json", b"two")
        assert first != second
        assert store.get("a/b.json") == (b"two", second)

    def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        token = store.put_if_absent("empty", b"")
        assert store.get("empty") == (b"", token)
        assert store.head("empty").size == 0

    def test_a_megabyte_comes_back_unchanged(self, store: ObjectStore) -> None:
        data = bytes(range(256)) * 6000
        store.put("big", data)
        assert store.get("big").data == data

    def test_a_key_is_created_once(self, store: ObjectStore) -> None:
        token = store.put_if_absent("once", b"mine")
        with pytest.raises(Exists):
            store.put_if_absent("once", b"theirs")
        assert store.get("once") == (b"mine", token)

    def test_a_deleted_key_can_be_created_again(self, store: ObjectStore) -> None:
        store.put_if_absent("again", b"x")
        store.delete("again")
        token = store.put_if_absent("again", b"y")
        assert store.get("again") == (b"y", token)

    def test_a_swap_needs_the_newest_token(self, store: ObjectStore) -> None:
        first = store.put("doc", b"1")
        second = store.put_if_match("doc", b"2", first)
        with pytest.raises(Stale):
            store.put_if_match("doc", b"3", first)
        assert store.get("doc") == (b"2", second)

    def test_a_swap_of_an_absent_key_is_refused(self, store: ObjectStore) -> None:
        token = store.put("doc", b"1")
        store.delete("doc")
        with pytest.raises((Missing, Stale)):
            store.put_if_match("doc", b"2", token)
        with pytest.raises(Missing):
            store.get("doc")

    def test_a_pinned_read_refuses_another_generation(self, store: ObjectStore) -> None:
        first = store.put("doc", b"1")
        store.put("doc", b"2")
        with pytest.raises(Stale):
            store.get("doc", first)
        with pytest.raises(Stale):
            store.fetch("doc", io.BytesIO(), first)

    def test_fetch_streams_the_generation_that_it_names(self, store: ObjectStore) -> None:
        token = store.put("data/file.csv", b"a,b\n1,2\n")
        target = io.BytesIO()
        entry = store.fetch("data/file.csv", target, token)
        assert target.getvalue() == b"a,b\n1,2\n"
        assert (entry.key, entry.size, entry.token) == ("data/file.csv", 8, token)

    def test_head_tells_size_token_and_time(self, store: ObjectStore) -> None:
        before = time.time()
        token = store.put("doc", b"12345")
        entry = store.head("doc")
        assert (entry.key, entry.size, entry.token) == ("doc", 5, token)
        assert before - 5 <= entry.modified <= time.time() + 5

    def test_an_absent_key_is_missing(self, store: ObjectStore) -> None:
        store.put("folder/inner", b"")
        for key in ("none", "folder", "folder/none", "folder/inner/below"):
            with pytest.raises(Missing):
                store.get(key)
            with pytest.raises(Missing):
                store.head(key)
            with pytest.raises(Missing):
                store.fetch(key, io.BytesIO())

    def test_deleting_twice_is_no_error(self, store: ObjectStore) -> None:
        store.put("a/doc", b"1")
        store.delete("a/doc")
        store.delete("a/doc")
        store.delete("never/was")
        assert list(store.list("")) == []

    def test_a_listing_is_in_key_order_and_agrees_with_head(self, store: ObjectStore) -> None:
        keys = ["a", "a-b", "a.b", "b/a/z", "b/a-z", "b/a.z", "b/b", "c/ü", "c/z", "c/Z"]
        for key in reversed(keys):
            store.put(key, key.encode())
        listed = list(store.list(""))
        assert [entry.key for entry in listed] == sorted(keys)
        assert listed == [store.head(key) for key in sorted(keys)]

    def test_a_prefix_need_not_end_at_a_slash(self, store: ObjectStore) -> None:
        for key in ("reg/m/log/1", "reg/m/log/2", "reg/m2/log/1", "reg/n/log/1", "regal"):
            store.put(key, b"")
        assert [entry.key for entry in store.list("reg/m/log/")] == ["reg/m/log/1", "reg/m/log/2"]
        assert [entry.key for entry in store.list("reg/m")] == ["reg/m/log/1", "reg/m/log/2", "reg/m2/log/1"]
        assert [entry.key for entry in store.list("reg/m/log/1")] == ["reg/m/log/1"]
        assert [entry.key for entry in store.list("reg")][-1] == "regal"

    @pytest.mark.parametrize("prefix", ["none/", "../", "/", "reg//", "reg/../", "a\\", "\0"])
    def test_a_prefix_of_nothing_lists_nothing(self, store: ObjectStore, prefix: str) -> None:
        store.put("reg/x", b"")
        assert list(store.list(prefix)) == []

    def test_a_long_listing_is_complete(self, store: ObjectStore) -> None:
        keys = [f"many/{n:05d}" for n in range(self.many)]
        for key in keys:
            store.put(key, b"")
        assert [entry.key for entry in store.list("many/")] == keys

    @pytest.mark.parametrize("key", LEGAL_KEYS)
    def test_odd_but_legal_keys_work(self, store: ObjectStore, key: str) -> None:
        token = store.put_if_absent(key, b"1")
        token = store.put_if_match(key, b"2", token)
        assert store.get(key, token).data == b"2"
        assert [entry.key for entry in store.list("")] == [key]
        store.delete(key)
        assert list(store.list("")) == []

    @pytest.mark.parametrize("key", ILLEGAL_KEYS)
    def test_illegal_keys_are_refused(self, store: ObjectStore, key: str) -> None:
        token = store.put("legal", b"")
        with pytest.raises(InvalidName):
            store.put(key, b"x")
        with pytest.raises(InvalidName):
            store.put_if_absent(key, b"x")
        with pytest.raises(InvalidName):
            store.put_if_match(key, b"x", token)
        with pytest.raises(InvalidName):
            store.delete(key)
        with pytest.raises(Missing):
            store.get(key)
        with pytest.raises(Missing):
            store.head(key)
        assert [entry.key for entry in store.list("")] == ["legal"]

    def test_one_of_many_creators_wins(self, store: ObjectStore) -> None:
        for turn in range(5):
            won: list[int] = []

            def create(me: int, turn: int = turn, won: list[int] = won) -> None:
                try:
                    store.put_if_absent(f"race/{turn}", str(me).encode())
                except Exists:
                    return
                won.append(me)

            in_threads(self.workers, create)
            assert len(won) == 1
            assert store.get(f"race/{turn}").data == str(won[0]).encode()

    def test_concurrent_increments_lose_nothing(self, store: ObjectStore) -> None:
        store.put("counter", b"0")

        def increment(_: int) -> None:
            for _ in range(self.increments):
                while not add_one(store):
                    pass

        in_threads(self.workers, increment)
        assert int(store.get("counter").data) == self.workers * self.increments

    def test_readers_see_whole_objects_only(self, store: ObjectStore) -> None:
        bodies = [bytes([65 + n]) * 50_000 for n in range(4)]
        store.put("whole", bodies[0])
        stop = threading.Event()
        torn: list[int] = []

        def work(me: int) -> None:
            if me == 0:
                for n in range(60):
                    store.put("whole", bodies[n % 4])
                stop.set()
            while not stop.is_set():
                data = store.get("whole").data
                if data not in bodies:
                    torn.append(len(data))

        in_threads(3, work)
        assert torn == []


class UniqueTokenContract(StoreContract):
    """For stores whose tokens are no content hashes: an old token never becomes valid again (no ABA)."""

    def test_an_old_token_stays_dead_when_old_bytes_return(self, store: ObjectStore) -> None:
        old = store.put("doc", b"A")
        token = store.put_if_match("doc", b"B", old)
        store.put_if_match("doc", b"A", token)
        with pytest.raises(Stale):
            store.put_if_match("doc", b"X", old)

    def test_the_same_bytes_created_again_get_another_token(self, store: ObjectStore) -> None:
        first = store.put_if_absent("again", b"x")
        store.delete("again")
        assert store.put_if_absent("again", b"x") != first


def add_one(store: ObjectStore) -> bool:
    """Return whether one compare-and-swap of the counter went through."""
    try:
        blob = store.get("counter")
        store.put_if_match("counter", str(int(blob.data) + 1).encode(), blob.token)
    except (Stale, Transient):
        return False
    return True


def in_threads(count: int, work: object) -> None:
    """Run `work(0)` … `work(count - 1)` at once; re-raise the first error."""
    assert callable(work)
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work, me) for me in range(count)]:
            done.result()
