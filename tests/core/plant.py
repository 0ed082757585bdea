"""A small plant for tests of jobs: a store, a clock that is set by hand, workers, and faults on demand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from core.building import Builder
from core.config import Settings
from core.errors import Transient
from core.inbox import Memo, pending
from core.retraining import TrainOutcome, Workshop, train_from_file
from core.spec import ModelSpec
from core.state import State
from core.store import Blob, Entry, MemoryStore, ObjectStore
from core.telemetry import MemoryTelemetry
from core.worker import Worker, build_worker
from tests.core.toys import Rows, csv, messages, text_spec

SETTINGS = Settings(lease_s=900.0, min_upload_age_s=2.0)
UPLOAD = "uploads/toy/new.csv"
_SEEDS = itertools.count()  # no two workers draw the same ids


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Plant:
    """A store with a trained model `toy`, and as many workers on it as a test asks for."""

    def __init__(self, store: ObjectStore | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store: Any = store or MemoryStore(self.clock)
        self.lines: list[str] = []
        self.telemetry = MemoryTelemetry(self.lines.append, clock=self.clock)
        self.first = self.worker()

    def worker(self, store: ObjectStore | None = None, builder: Builder | None = None, **settings: Any) -> Worker:
        """Return another worker, as another process would have it."""
        return build_worker(
            SETTINGS._replace(**settings),
            store or self.store,
            telemetry=self.telemetry,
            clock=self.clock,
            sleep=lambda seconds: None,
            rng=random.Random(next(_SEEDS)),
            builder=builder,
        )

    @property
    def shop(self) -> Workshop:
        """The workshop of the first worker."""
        return self.first.shop

    def train(self, folder: Any, rows: Rows | None = None, spec: ModelSpec | None = None) -> TrainOutcome:
        """Train from a file, as an operator does."""
        path = folder / "data.csv"
        path.write_bytes(csv(rows or messages(200, noise=0.1)))
        return train_from_file(self.shop, spec or text_spec(), str(path))

    def upload(self, rows: Rows | bytes, key: str = UPLOAD) -> str:
        """Put data into the inbox, old enough to be read; return its token."""
        token: str = self.store.put(key, rows if isinstance(rows, bytes) else csv(rows))
        self.clock.now += 10.0
        return token

    def state(self, model: str = "toy") -> State:
        """Return the model's state as a newcomer reads it."""
        return self.worker().shop.registry.state(model)

    def production(self, model: str = "toy") -> str:
        """Return the version in production."""
        (split,) = self.state(model).aliases["production"].splits
        return split.version

    def outcomes(self) -> dict[str, str]:
        """Return the status of every source, by key."""
        return {source.key: source.status for source in self.state().sources.values()}

    def waiting(self) -> list[str]:
        """Return the keys that still need work, now or once their leases have ended."""
        found = pending(self.worker().shop.registry, now=self.clock.now + 1e6, min_age_s=0.0, memo=Memo())
        return [item.key for item in found]

    def copy(self) -> Plant:
        """Return the same plant over a copy of the (memory) store."""
        clock = Clock(self.clock.now)
        store = MemoryStore(clock)
        store._objects, store._generation = dict(self.store._objects), self.store._generation
        return Plant(store, clock)


class Crash(BaseException):
    """The process ends here: nothing may catch it."""


class FaultyStore:
    """A store whose call number `at` fails, before its effect or after it; counts the calls."""

    def __init__(
        self, store: Any, at: int = -1, *, after: bool = False, fault: Callable[[], BaseException] = Crash
    ) -> None:
        self._store, self._at, self._after, self._fault = store, at, after, fault
        self.calls = 0

    def _call(self, name: str, *args: Any) -> Any:
        self.calls += 1
        hit = self.calls - 1 == self._at
        if hit and not self._after:
            raise self._fault()
        try:
            return getattr(self._store, name)(*args)
        finally:
            if hit:
                raise self._fault()

    def get(self, key: str, token: str | None = None) -> Blob:
        blob: Blob = self._call("get", key, token)
        return blob

    def head(self, key: str) -> Entry:
        entry: Entry = self._call("head", key)
        return entry

    def fetch(self, key: str, target: BinaryIO, token: str | None = None) -> Entry:
        entry: Entry = self._call("fetch", key, target, token)
        return entry

    def put(self, key: str, data: bytes) -> str:
        return str(self._call("put", key, data))

    def put_if_absent(self, key: str, data: bytes) -> str:
        return str(self._call("put_if_absent", key, data))

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        return str(self._call("put_if_match", key, data, token))

    def list(self, prefix: str) -> Iterator[Entry]:
        yield from self._call("list", prefix)

    def delete(self, key: str) -> None:
        self._call("delete", key)


def down() -> Transient:
    """Return the error of a store that does not answer."""
    return Transient("the store does not answer")


class MarkedStore(FaultyStore):
    """A store that fails before it creates the object whose bytes hold `mark`."""

    def __init__(self, store: Any, mark: bytes, fault: Callable[[], BaseException] = Crash) -> None:
        super().__init__(store, fault=fault)
        self._mark = mark

    def put_if_absent(self, key: str, data: bytes) -> str:
        if self._mark in data:
            raise self._fault()
        return super().put_if_absent(key, data)
