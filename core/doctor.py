"""Examines a store: does it keep the promises that the registry is built on? A store that does not loses models.

All it makes lies below `doctor/` and a random name, and is removed again, whatever happens.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from core.errors import CoreError, Exists, Missing, Stale, StoreError, Transient
from core.reader import Reader
from core.store import ObjectStore
from core.tuples import NamedTuple

PREFIX = "doctor/"
KEYS = 30  # in the listing; a page of the clouds' listings holds 1000
THREADS = 8
INCREMENTS = 5  # each thread's; some stores take one write a second of one name
WRITES, READS = "writes", "reads"
_RACES = 5
_PATIENCE_S = 60.0
_TRIES, _PAUSE_S = 3, 0.3
_SILENCES = 8
ODD_NAMES = (
    "sms spam (1).csv",
    "überraschung – 数据.csv",
    "100%+off&x=1?#frag;.csv",
    "a%2Fb%20c.csv",
    "'quoted' \"twice\"~.csv",
    "...dots",
    "deep/" + "x/" * 40 + "end",
    "n" * 250,
)

T = TypeVar("T")
R = TypeVar("R")


class Finding(NamedTuple):
    """What one check found; `ignores` says which conditions the store ignores, if it does: writes or reads."""

    name: str
    ok: bool
    detail: str
    ignores: str = ""


class _Broken(Exception):
    """A promise is not kept."""

    def __init__(self, detail: str, ignores: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.ignores = ignores


class _Means(NamedTuple):
    """What the checks work with."""

    store: ObjectStore
    reader: Reader | None
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    keys: int


class _Room:
    """A prefix for one try of one check; `made` gathers what is to be removed."""

    def __init__(self, means: _Means, prefix: str, made: set[str]) -> None:
        self.means = means
        self.store = means.store
        self.prefix = prefix
        self._made = made

    def key(self, name: str) -> str:
        """Return the key of a name in this room; it will be removed."""
        key = self.prefix + name
        self._made.add(key)
        return key


class _Visit:
    """One examination: its own prefix, its rooms, and what is to be removed in the end."""

    def __init__(self, means: _Means, prefix: str) -> None:
        self._means = means
        self._prefix = prefix
        self._made: set[str] = set()
        self._rooms = 0
        self._tries = _TRIES

    def find(self, name: str, check: Callable[[_Room], str]) -> Finding:
        """Return what the check finds."""
        try:
            return Finding(name, True, self.insist(check))
        except _Broken as broken:
            self._tries = 1 if broken.ignores else self._tries  # the verdict stands: no need for patience
            return Finding(name, False, broken.detail, broken.ignores)
        except CoreError as error:
            return Finding(name, False, error.message)

    def insist(self, check: Callable[[_Room], T]) -> T:
        """Return what the check returns. After Transient it is tried again: in a new room, nothing is unknown."""
        for attempt in range(self._tries - 1):
            try:
                return check(self._room())
            except Transient:
                self._means.sleep(_PAUSE_S * 4.0**attempt)
        return check(self._room())

    def _room(self) -> _Room:
        self._rooms += 1
        return _Room(self._means, f"{self._prefix}{self._rooms}/", self._made)

    def leave(self) -> list[str]:
        """Remove what was made; return the keys that are still there."""
        left = sorted(self._made)
        for attempt in range(_TRIES):
            failed = [key for key in _in_threads(self._remaining, left) if key]
            try:
                found = {entry.key for entry in self._means.store.list(self._prefix)}
            except StoreError:
                found = set()
                if failed == left:
                    break
            # whatever the store lists: nothing outside the prefix is ours
            left = sorted({*failed, *(key for key in found if key.startswith(self._prefix))})
            if not left:
                break
            self._means.sleep(_PAUSE_S * 4.0**attempt)
        return left

    def _remaining(self, key: str) -> str:
        """Remove the object; return its key if that failed."""
        try:
            self._means.store.delete(key)
        except StoreError:
            return key
        return ""


def examine(
    store: ObjectStore,
    reader: Reader | None = None,
    *,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
    sleep: Callable[[float], None] = time.sleep,
    keys: int = KEYS,
) -> list[Finding]:
    """Return what the checks found, in order. `reader` is to read the same store in another way.

    Raises Denied, Transient if not even one object can be written.
    """
    visit = _Visit(_Means(store, reader, clock, sleep, keys), f"{PREFIX}{random_bytes(8).hex()}/")
    checks = {**CHECKS, **(_READER_CHECKS if reader is not None else {})}
    try:
        visit.insist(lambda room: room.store.put(room.key("reach"), b""))
        findings = [visit.find(name, check) for name, check in checks.items()]
    finally:
        left = visit.leave()
    return [*findings, Finding("clean up", not left, f"{len(left) or 'no'} objects are left")]


def verdict(findings: Sequence[Finding]) -> str:
    """Return what is wrong with the store in one line, empty if nothing is."""
    for ignored in (WRITES, READS):
        if any(finding.ignores == ignored for finding in findings):
            return f"the store does not honour conditional {ignored}"
    failed = [finding.name for finding in findings if not finding.ok]
    return f"the store fails {len(failed)} of {len(findings)} checks: {', '.join(failed)}" if failed else ""


# --- checks: each returns what it saw, or raises


def _read_your_write(room: _Room) -> str:
    key = room.key("doc")
    for data in (b"one", b"two", b"", bytes(range(256)) * 1000):
        token = room.store.put(key, data)
        target = io.BytesIO()
        entries = room.store.fetch(key, target, token), room.store.head(key)
        _demand(room.store.get(key) == (data, token), "an object is not what was just written")
        _demand(target.getvalue() == data, "a stream is not what was just written")
        told = {entry[:3] for entry in entries}
        _demand(told == {(key, len(data), token)}, "size or token is not that of what was just written")
    return "bytes, size and token as written"


def _create_once(room: _Room) -> str:
    key = room.key("doc")
    token = room.store.put_if_absent(key, b"mine")
    _refused(lambda: room.store.put_if_absent(key, b"theirs"), Exists, "a second create", WRITES)
    _demand(room.store.get(key) == (b"mine", token), "a refused create changed the object", WRITES)
    return "a second create is refused"


def _swap_stale(room: _Room) -> str:
    key = room.key("doc")
    first = room.store.put_if_absent(key, b"1")
    second = room.store.put_if_match(key, b"2", first)
    _demand(second != first, "a swap gives the same token again", WRITES)
    _refused(lambda: room.store.put_if_match(key, b"3", first), Stale, "a swap with a stale token", WRITES)
    _demand(room.store.get(key) == (b"2", second), "a refused swap changed the object", WRITES)
    return "a swap needs the newest token"


def _swap_absent(room: _Room) -> str:
    key = room.key("doc")
    token = room.store.put(key, b"1")
    room.store.delete(key)
    _refused(lambda: room.store.put_if_match(key, b"2", token), (Missing, Stale), "a swap of nothing", WRITES)
    _refused(lambda: room.store.get(key), Missing, "a refused swap made an object: it", WRITES)
    return "a swap of an absent object is refused"


def _pinned_read(room: _Room) -> str:
    key = room.key("doc")
    old = room.store.put(key, b"1")
    new = room.store.put(key, b"2")
    _demand(room.store.get(key, new).data == b"2", "a read of the newest generation gives other bytes")
    _refused(lambda: room.store.get(key, old), Stale, "a read of a replaced generation", READS)
    _refused(lambda: room.store.fetch(key, io.BytesIO(), old), Stale, "a stream of a replaced generation", READS)
    return "a replaced generation is told apart"


def _delete(room: _Room) -> str:
    key = room.key("doc")
    room.store.put(key, b"1")
    room.store.delete(key)
    _refused(lambda: room.store.get(key), Missing, "a read of a deleted object", "")
    room.store.delete(key)
    room.store.put_if_absent(key, b"2")
    return "gone at once; the key is free again"


def _listing(room: _Room) -> str:
    keys = [room.key(f"list/{n:06d}") for n in range(room.means.keys)]
    _in_threads(lambda key: room.store.put(key, b""), [*keys, room.key("list-beside")])
    prefix = room.prefix + "list/"
    _demand(_keys(room, prefix) == keys, "a listing is not complete, or not in order")
    late, early = room.key("list/late"), keys[0]
    room.store.put(late, b"")
    room.store.delete(early)
    _demand(_keys(room, prefix) == [*keys[1:], late], "a listing lags behind the writes")
    return f"{len(keys)} keys, in order and up to date"


def _keys(room: _Room, prefix: str) -> list[str]:
    return [entry.key for entry in room.store.list(prefix)]


def _one_creator(room: _Room) -> str:
    for race in range(_RACES):
        key = room.key(f"race/{race}")
        start = threading.Barrier(THREADS)
        said = _in_threads(partial(_create, room.store, key, start), range(THREADS))
        winners = [str(me).encode() for me, answer in enumerate(said) if answer == "won"]
        unknown = [str(me).encode() for me, answer in enumerate(said) if answer == "unknown"]
        _demand(len(winners) <= 1, f"{len(winners)} of {THREADS} creators were told that they won", WRITES)
        _demand(bool(winners or unknown), "all creators were refused", WRITES)
        _demand(_left_by(room, key, winners) in (winners or unknown), "not the winner's bytes are there", WRITES)
    return f"{_RACES} races of {THREADS} threads, one winner each"


def _left_by(room: _Room, key: str, winners: list[bytes]) -> bytes:
    """Return what a race left. Raises Transient if nothing is there and nobody was told that he won."""
    try:
        return room.store.get(key).data
    except Missing:
        if winners:
            raise
        raise Transient("the store failed all creators for now") from None


def _create(store: ObjectStore, key: str, start: threading.Barrier, me: int) -> str:
    start.wait()
    try:
        store.put_if_absent(key, str(me).encode())
    except Exists:
        return "lost"
    except Transient:
        return "unknown"
    return "won"


def _increments(room: _Room) -> str:
    key = room.key("counter")
    room.store.put_if_absent(key, b"0")
    until = room.means.clock() + _PATIENCE_S
    counts = _in_threads(lambda me: _add(room, key, me, until), range(THREADS))
    done, unknown = sum(count[0] for count in counts), sum(count[1] for count in counts)
    total = int(room.store.get(key).data)
    _demand(done <= total <= done + unknown, f"of {done} increments {total} are in the counter", WRITES)
    wanted = THREADS * INCREMENTS
    _demand(done == wanted, f"only {done} of {wanted} increments went through")
    return f"{done} increments by {THREADS} threads, none lost"


def _add(room: _Room, key: str, me: int, until: float) -> tuple[int, int]:
    """Return how many increments the store confirmed, and of how many it said nothing. It may give up."""
    done = unknown = failed = silent = 0
    while done < INCREMENTS and silent < _SILENCES and room.means.clock() < until:
        answer = _add_one(room.store, key)
        done, unknown = done + (answer == "done"), unknown + (answer == "unknown")
        failed = 0 if answer == "done" else failed + 1
        silent = silent + 1 if answer in ("unknown", "unread") else 0
        room.means.sleep(min(0.2, 0.005 * 2.0 ** min(failed, 6)) * (me + 1) / THREADS if failed else 0.0)
    return done, unknown


def _add_one(store: ObjectStore, key: str) -> str:
    try:
        blob = store.get(key)
    except Transient:
        return "unread"
    try:
        store.put_if_match(key, str(int(blob.data) + 1).encode(), blob.token)
    except Stale:
        return "stale"
    except Transient:
        return "unknown"
    return "done"


def _odd_keys(room: _Room) -> str:
    keys = [room.key(f"odd/{name}") for name in ODD_NAMES]
    for key in keys:
        token = room.store.put_if_match(key, b"2", room.store.put_if_absent(key, b"1"))
        _demand(room.store.get(key, token).data == b"2", "an odd key gives other bytes")
    _demand(_keys(room, room.prefix + "odd/") == sorted(keys), "odd keys are listed otherwise than written")
    return f"{len(keys)} keys with blanks, accents, percent signs and the like"


def _same_bytes(room: _Room) -> str:
    reader = _reader(room)
    keys = [room.key(f"read/{name}") for name in ("model", *ODD_NAMES)]
    for data in (b"first", bytes(range(256)) * 300):
        for key in keys:
            room.store.put(key, data)
            same = reader.get(key) == data == bytes(reader.buffer(key))
            _demand(same, "the reader gives other bytes than were just written")
    return "the reader gives what was just written"


def _same_names(room: _Room) -> str:
    reader = _reader(room)
    keys = [room.key(f"read/{name}") for name in ("a.json", "b.json", "below/c.json")]
    for key in keys:
        room.store.put(key, b"")
    _demand(reader.keys(room.prefix + "read/") == keys[:2], "the reader lists other names than were written")
    _refused(lambda: reader.get(room.key("read/absent")), Missing, "the reader's read of nothing", "")
    return "the reader lists what was just written"


def _reader(room: _Room) -> Reader:
    assert room.means.reader is not None
    return room.means.reader


def _demand(holds: bool, otherwise: str, ignores: str = "") -> None:
    if not holds:
        raise _Broken(otherwise, ignores)


def _refused(
    act: Callable[[], object], kinds: type[StoreError] | tuple[type[StoreError], ...], what: str, ignores: str
) -> None:
    try:
        act()
    except kinds:
        return
    raise _Broken(f"{what} is accepted", ignores)


def _in_threads(act: Callable[[T], R], over: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(act, over))


CHECKS: dict[str, Callable[[_Room], str]] = {
    "read what was written": _read_your_write,
    "create once": _create_once,
    "swap the newest only": _swap_stale,
    "swap nothing absent": _swap_absent,
    "read one generation": _pinned_read,
    "delete": _delete,
    "list": _listing,
    "create in a race": _one_creator,
    "swap in a race": _increments,
    "odd keys": _odd_keys,
}
_READER_CHECKS = {"reader: bytes": _same_bytes, "reader: names": _same_names}
