"""The doctor: sound stores pass, each kind of lying store is caught, nothing of it remains."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from core.doctor import PREFIX, Finding, examine, verdict
from core.errors import Denied, Stale, Transient
from core.local_store import LocalStore
from core.reader import LocalReader, Reader, StoreReader
from core.store import Blob, Entry, MemoryStore, ObjectStore

WRITES = "the store does not honour conditional writes"
READS = "the store does not honour conditional reads"


def look(
    store: ObjectStore, reader: Reader | None = None, keys: int = 30, haste: float = 1.0
) -> dict[str, Finding]:
    """Return the findings by name. The clock runs `haste` times as fast, and pauses are short."""
    findings = examine(
        store,
        reader,
        clock=lambda: time.monotonic() * haste,
        random_bytes=os.urandom,
        sleep=lambda seconds: time.sleep(min(seconds, 0.002)),
        keys=keys,
    )
    return {finding.name: finding for finding in findings}


def failed(findings: dict[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if not finding.ok}


# --- sound stores


def test_a_sound_store_passes_every_check_and_is_left_as_it_was() -> None:
    store = MemoryStore()
    store.put("uploads/m/mine.csv", b"mine")
    store.put(PREFIX + "another/1/doc", b"another doctor's")
    before = list(store.list(""))
    findings = look(store, StoreReader(store))
    assert failed(findings) == set()
    assert len(findings) == 13
    assert verdict([*findings.values()]) == ""
    assert list(store.list("")) == before


def test_a_folder_is_a_sound_store(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), fsync=False)
    assert failed(look(store, LocalReader(str(tmp_path)))) == set()
    assert list(store.list("")) == []


def test_without_a_reader_the_store_alone_is_examined() -> None:
    assert [name for name in look(MemoryStore()) if name.startswith("reader")] == []


# --- lying stores


class AnyCreate(MemoryStore):
    """Creates what exists."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self.put(key, data)


class AnySwap(MemoryStore):
    """Swaps whatever the token."""

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        return self.put(key, data)


class SwapOfNothing(MemoryStore):
    """Swaps what is not there."""

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        present = [entry for entry in self.list(key) if entry.key == key]
        return super().put_if_match(key, data, token) if present else self.put(key, data)


class AnyGeneration(MemoryStore):
    """Reads whatever generation there is."""

    def get(self, key: str, token: str | None = None) -> Blob:
        return super().get(key)

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        return super().fetch(key, target)


class AnyStream(MemoryStore):
    """Streams whatever generation there is."""

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        return super().fetch(key, target)


@pytest.mark.parametrize(
    ("store", "check", "said"),
    [
        (AnyCreate(), "create once", WRITES),
        (AnySwap(), "swap the newest only", WRITES),
        (SwapOfNothing(), "swap nothing absent", WRITES),
        (AnyGeneration(), "read one generation", READS),
        (AnyStream(), "read one generation", READS),
    ],
)
def test_a_store_that_ignores_a_condition_is_found_out(store: MemoryStore, check: str, said: str) -> None:
    findings = look(store, StoreReader(store))
    assert check in failed(findings)
    assert "is accepted" in findings[check].detail
    assert verdict([*findings.values()]) == said
    assert list(store.list("")) == []


class Racy(MemoryStore):
    """Looks first and writes then, with other writers in between: right for one caller at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._met = threading.Barrier(2)

    def _meet(self) -> None:
        """Let another writer come as far as this one, if there is one."""
        try:
            self._met.wait(0.02)
        except threading.BrokenBarrierError:
            self._met.reset()

    def put_if_absent(self, key: str, data: bytes) -> str:
        if next(self.list(key), None) is None:
            self._meet()
            return self.put(key, data)
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        if self.head(key).token == token:
            self._meet()
            return self.put(key, data)
        return super().put_if_match(key, data, token)


def test_a_store_that_checks_and_then_writes_is_found_out_by_racing_threads() -> None:
    findings = look(Racy())
    assert failed(findings) == {"create in a race", "swap in a race"}
    assert verdict([*findings.values()]) == WRITES


class Truncated(MemoryStore):
    """Lists one page."""

    def list(self, prefix: str) -> Iterator[Entry]:
        return itertools.islice(super().list(prefix), 20)


class Lagging(MemoryStore):
    """Lists deleted objects too."""

    def __init__(self) -> None:
        super().__init__()
        self._ghosts: dict[str, Entry] = {}

    def delete(self, key: str) -> None:
        self._ghosts |= {entry.key: entry for entry in super().list(key) if entry.key == key}
        super().delete(key)

    def list(self, prefix: str) -> Iterator[Entry]:
        ghosts = [entry for key, entry in self._ghosts.items() if key.startswith(prefix)]
        return iter(sorted({*super().list(prefix), *ghosts}))


class Everything(MemoryStore):
    """Lists the whole store under any prefix."""

    def list(self, prefix: str) -> Iterator[Entry]:
        return super().list("")


def test_a_truncated_listing_is_found_out_and_yet_all_is_removed() -> None:
    store = Truncated()
    findings = look(store)
    assert failed(findings) == {"list"}
    assert verdict([*findings.values()]) == "the store fails 1 of 11 checks: list"
    assert list(MemoryStore.list(store, "")) == []


def test_a_listing_shorter_than_the_page_is_not_enough_to_find_a_truncated_one() -> None:
    assert failed(look(Truncated(), keys=10)) == set()


def test_a_listing_that_lags_is_found_out() -> None:
    assert failed(look(Lagging())) == {"list", "clean up"}


def test_a_store_that_lists_too_much_loses_nothing_by_the_cleaning_up() -> None:
    store = Everything()
    store.put("reg/m/log/000000000000.json", b"precious")
    assert "list" in failed(look(store))
    assert [entry.key for entry in store.list("")] == ["reg/m/log/000000000000.json"]


class Decoding(MemoryStore):
    """Takes a percent sign for the start of an escape, as adapters do that decode twice."""

    def _write(self, key: str, data: bytes) -> str:
        return super()._write(key.replace("%2F", "/"), data)


def test_a_store_that_mangles_keys_is_found_out() -> None:
    assert "odd keys" in failed(look(Decoding()))


class StaleReader(StoreReader):
    """Remembers what it read first."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self._seen: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        return self._seen.setdefault(key, super().get(key))


def test_a_reader_that_gives_old_bytes_is_found_out() -> None:
    store = MemoryStore()
    findings = look(store, StaleReader(store))
    assert failed(findings) == {"reader: bytes"}


def test_a_reader_of_another_store_is_found_out() -> None:
    assert failed(look(MemoryStore(), StoreReader(MemoryStore()))) == {"reader: bytes", "reader: names"}


# --- stores that fail


class Flaky(MemoryStore):
    """Gives no answer to every third conditional write; to half of these after having done it."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = itertools.count(1)

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self._answer(lambda: MemoryStore.put_if_absent(self, key, data))

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        return self._answer(lambda: MemoryStore.put_if_match(self, key, data, token))

    def _answer(self, act: Callable[[], str]) -> str:
        n = next(self._calls)
        token = "" if n % 6 == 3 else act()
        if n % 3 == 0:
            raise Transient("the store failed for now")
        return token


def test_a_sound_store_that_fails_now_and_then_is_not_called_a_liar() -> None:
    store = Flaky()
    findings = look(store)
    assert not any(finding.ignores for finding in findings.values())
    assert findings["create in a race"].ok
    assert findings["swap in a race"].ok
    assert list(store.list("")) == []


class ReadOnly(MemoryStore):
    def _write(self, key: str, data: bytes) -> str:
        raise Denied("the store refused")


class Down(MemoryStore):
    def _write(self, key: str, data: bytes) -> str:
        raise Transient("the store failed for now")


@pytest.mark.parametrize(("store", "error"), [(ReadOnly(), Denied), (Down(), Transient)])
def test_a_store_that_takes_nothing_is_not_examined(store: MemoryStore, error: type[Exception]) -> None:
    with pytest.raises(error):
        look(store)


class Silent(MemoryStore):
    """Loses the answer to every swap, and does none."""

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        raise Transient("the store failed for now")


class Stubborn(MemoryStore):
    """Calls every swap stale."""

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        raise Stale("another generation stands at this key")


@pytest.mark.parametrize("store", [Silent(), Stubborn()])
def test_swaps_that_never_go_through_end_the_race_after_a_while(store: MemoryStore) -> None:
    findings = look(store, haste=1000.0)
    assert findings["swap in a race"].detail == "only 0 of 40 increments went through"
    assert not any(finding.ignores for finding in findings.values())


class Unheard(MemoryStore):
    """Loses every create, and the answer to it."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        raise Transient("the store failed for now")


def test_creates_that_never_arrive_are_a_failure_and_no_lie() -> None:
    findings = look(Unheard())
    assert findings["create in a race"].detail == "the store failed all creators for now"
    assert not any(finding.ignores for finding in findings.values())


class Dying(MemoryStore):
    """Is gone after its 45th write."""

    def _write(self, key: str, data: bytes) -> str:
        self._live()
        return super()._write(key, data)

    def _find(self, key: str, token: str | None) -> tuple[bytes, Entry]:
        self._live()
        return super()._find(key, token)

    def list(self, prefix: str) -> Iterator[Entry]:
        self._live()
        return super().list(prefix)

    def delete(self, key: str) -> None:
        self._live()
        super().delete(key)

    def _live(self) -> None:
        if self._generation >= 45:
            raise Transient("the store failed for now")


def test_a_store_that_dies_meanwhile_is_called_neither_a_liar_nor_clean() -> None:
    findings = look(Dying())
    assert not any(finding.ignores for finding in findings.values())
    assert {"create in a race", "swap in a race", "odd keys", "clean up"} <= failed(findings)
    assert findings["create once"].ok


class Undeletable(MemoryStore):
    def delete(self, key: str) -> None:
        raise Denied("the store refused")


def test_objects_that_cannot_be_removed_are_told_of() -> None:
    store = Undeletable()
    found = look(store)["clean up"]
    assert not found.ok
    assert found.detail == f"{len([*store.list('')])} objects are left"


class Interrupting(MemoryStore):
    """Is interrupted, as by a person, at its 60th write."""

    def _write(self, key: str, data: bytes) -> str:
        token = super()._write(key, data)
        if token == "60":
            raise KeyboardInterrupt
        return token


def test_an_interrupted_examination_leaves_nothing() -> None:
    store = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        look(store)
    assert list(store.list("")) == []


def test_two_examinations_at_once_do_not_meet() -> None:
    store = MemoryStore()
    found: list[set[str]] = []
    threads = [threading.Thread(target=lambda: found.append(failed(look(store)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [set(), set()]
    assert list(store.list("")) == []
