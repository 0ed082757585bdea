"""An ObjectStore that fails as stores fail: before the effect, after it, with an effect that lands later."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar

from core.errors import CoreError, Transient
from core.store import Blob, Entry, ObjectStore

T = TypeVar("T")
BURST = (4, 16)


class Crash(BaseException):
    """The process ends here. No handler of ours may catch it."""


class Plan(NamedTuple):
    """`rate` of faulty calls; the actor dies at its call number `crash_at`, before or after the effect.

    `bursts` is the rate of calls at which the store goes away for BURST calls, for writers at least.
    """

    rate: float = 0.15
    crash_at: int = 0
    crash_after: bool = False
    bursts: float = 0.0


class LateWrites:
    """Writes whose caller was told nothing, and which may still land: now, later, or at the very end."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._waiting: list[Callable[[], object]] = []

    def add(self, write: Callable[[], object]) -> None:
        """Keep a write for later."""
        self._waiting.append(write)

    def land_one(self, chance: float) -> None:
        """Let one of them land, with that chance."""
        if self._waiting and self._rng.random() < chance:
            _land(self._waiting.pop(self._rng.randrange(len(self._waiting))))

    def land_all(self) -> None:
        """Let all that is left land."""
        while self._waiting:
            _land(self._waiting.pop())


def _land(write: Callable[[], object]) -> None:
    try:
        write()
    except CoreError:
        return


class Recorder:
    """An ObjectStore that keeps every body that was ever written under an alias key, in order."""

    def __init__(self, base: ObjectStore) -> None:
        self.base = base
        self.documents: list[tuple[str, bytes]] = []
        self.get, self.head, self.fetch = base.get, base.head, base.fetch
        self.list, self.delete = base.list, base.delete

    def put(self, key: str, data: bytes) -> str:
        """Write, and keep the body."""
        return self._kept(self.base.put(key, data), key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create, and keep the body."""
        return self._kept(self.base.put_if_absent(key, data), key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace, and keep the body."""
        return self._kept(self.base.put_if_match(key, data, token), key, data)

    def _kept(self, token: str, key: str, data: bytes) -> str:
        if "/alias/" in key:
            self.documents.append((key, data))
        return token


class FaultStore:
    """One actor's view of a store. `turn` is called before each call: there the scheduler may switch."""

    def __init__(
        self, base: ObjectStore, plan: Plan, *, rng: random.Random, late: LateWrites, turn: Callable[[], None]
    ) -> None:
        self._base = base
        self._plan = plan
        self._rng = rng
        self._late = late
        self._turn = turn
        self.calls = 0
        self._away = 0
        self._readable = False

    def get(self, key: str, token: str | None = None) -> Blob:
        """Read, sometimes not, sometimes only the first half."""
        blob = self._call(lambda: self._base.get(key, token))
        if self._rng.random() < self._plan.rate * 0.1:
            return Blob(blob.data[: len(blob.data) // 2], blob.token)
        return blob

    def head(self, key: str) -> Entry:
        """Read an entry, sometimes not."""
        return self._call(lambda: self._base.head(key))

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        """Stream, sometimes not."""
        return self._call(lambda: self._base.fetch(key, target, token))

    def list(self, prefix: str) -> Iterator[Entry]:
        """List, sometimes with keys missing."""
        entries = self._call(lambda: [*self._base.list(prefix)])
        return iter([entry for entry in entries if self._rng.random() >= self._plan.rate * 0.2])

    def put(self, key: str, data: bytes) -> str:
        """Write, or so."""
        return self._call(lambda: self._base.put(key, data), write=True)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create, or so."""
        return self._call(lambda: self._base.put_if_absent(key, data), write=True)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        """Replace, or so."""
        return self._call(lambda: self._base.put_if_match(key, data, token), write=True)

    def delete(self, key: str) -> None:
        """Remove, or so."""
        self._call(lambda: self._base.delete(key), write=True)

    def _call(self, act: Callable[[], T], write: bool = False) -> T:
        self._turn()
        self.calls += 1
        self._late.land_one(0.3)
        dies = self.calls == self._plan.crash_at
        if dies and not self._plan.crash_after:
            raise Crash
        drawn = self._fault(write)
        if drawn < 0.4:
            raise Transient("injected: nothing happened")
        if write and drawn < 0.6:
            self._late.add(act)
            raise Transient("injected: in flight, may land later")
        try:
            done = act()
        finally:
            if dies:
                raise Crash
        if write and drawn < 1.0:
            raise Transient("injected: it happened, the answer was lost")
        return done

    def _fault(self, write: bool) -> float:
        """Draw what goes wrong with a call: 0 to 1, or nothing. While the store is away most writes are lost."""
        if self._plan.bursts and not self._away and self._rng.random() < self._plan.bursts:
            self._away, self._readable = self._rng.randrange(*BURST), self._rng.random() < 0.5
        away, self._away = self._away > 0, max(0, self._away - 1)
        if away and (write or not self._readable):
            return self._rng.random() ** 2 if write else 0.0
        return self._rng.random() / self._plan.rate if self._plan.rate else 1.0
