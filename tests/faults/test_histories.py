"""Seeded crash histories on all stores, and proof that the judge would notice bugs."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import core.fold
from core.alias_docs import AliasDocs
from core.errors import CoreError, Exists, Transient
from core.jobs import source_id
from core.keys import artifact_key, artifact_prefix, log_key
from core.ledger import Ledger, canonical, digest_of, parse_entry
from core.registry import Registry
from core.state import State
from core.store import MemoryStore
from tests.faults.auditor import Violation, audit
from tests.faults.campaigns import campaign, large_campaign, scored
from tests.faults.fault_store import Crash, FaultStore, LateWrites, Plan, Recorder
from tests.faults.histories import MENDING, MODEL, UPLOADS, Actor, Setting, run
from tests.faults.places import EMULATORS, Fresh
from tests.faults.sizes import size

SIZES = {"memory": size(300, 200_000), "local": size(15, 1000), **dict.fromkeys(EMULATORS, size(1, 100))}
MUTANT_SEEDS = 600


def test_no_history_breaks_a_promise() -> None:
    count = SIZES["memory"]
    with scored("crash histories: memory", count):
        told = large_campaign(count)
        for event in ("crashes", "publish", "covered", "reject", "rollbacks", "retired", "Transient", "Conflict"):
            assert told[event] > count // 50, event


@pytest.mark.parametrize("fresh", ["local", *EMULATORS], indirect=True)
def test_no_history_on_another_store_breaks_a_promise(fresh: Fresh, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["fresh"]
    with scored(f"crash histories: {name}", SIZES[name]):
        campaign(range(SIZES[name]), Setting(make_store=fresh))


def test_a_campaign_in_two_processes_tells_what_one_in_this_process_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.campaigns.CHUNK", 10)
    assert large_campaign(20) == campaign(range(20))


def test_the_same_seed_gives_the_same_history() -> None:
    assert [run(seed) for seed in range(5)] == [run(seed) for seed in range(5)]


def test_the_auditor_shares_no_code_with_core() -> None:
    tree = ast.parse(Path(__file__).with_name("auditor.py").read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert set(names) == {"__future__", "collections.abc", "hashlib", "json", "typing"}


# --- planted bugs: the judge must find every one


class OverwritingStore(MemoryStore):
    """A store that does not honour put-if-absent."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        return self.put(key, data)


class BlindSwapStore(MemoryStore):
    """A store that does not honour put-if-match."""

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        return self.put(key, data)


class OwnsConflicts(Ledger):
    """Takes "exists" for its own success."""

    def _create(self, key: str, body: bytes) -> bool:
        super()._create(key, body)
        return True


class TrustsSilence(Ledger):
    """Takes a write without an answer for done."""

    def _create(self, key: str, body: bytes) -> bool:
        try:
            self._store.put_if_absent(key, body)
        except Exists:
            return False
        except Transient:
            return True
        return True


class MovesOn(Ledger):
    """After a write without an answer, writes the entry into the next slot instead of the same one."""

    def _create(self, key: str, body: bytes) -> bool:
        try:
            self._store.put_if_absent(key, body)
        except Exists:
            return False
        except Transient:
            entry = parse_entry(body)
            moved = {**entry, "n": entry["n"] + 1, "prev": digest_of(body)}
            self._store.put_if_absent(log_key(self._model, moved["n"]), canonical(moved))
        return True


def with_ledger(kind: type[Ledger]) -> Callable[..., Registry]:
    class Mutant(Registry):
        def ledger(self, model: str) -> Ledger:
            with self._lock:
                if model not in self._ledgers:
                    tools: dict[str, Any] = {"clock": self._clock, "sleep": self._sleep, "rng": self._rng}
                    self._ledgers[model] = kind(self.store, model, **tools, actor=self.actor)
            return self._ledgers[model]

    return Mutant


class Hasty(Registry):
    """Publishes without having stored the bytes."""

    def put_artifact(self, model: str, src: str, attempt: int, data: bytes) -> tuple[str, str]:
        return artifact_key(model, src, attempt, digest_of(data)), digest_of(data)


class Greedy(Registry):
    """Collects whatever no version needs, though an attempt may still publish it."""

    def collect_garbage(self, model: str, *, reader_grace_s: float = 0.0) -> Any:
        versions = self.state(model).versions.values()
        needed = {v.artifact_key for v in versions} | {part["key"] for v in versions for part in v.parts}
        for entry in self.store.list(artifact_prefix(model)):
            if entry.key not in needed:
                self.store.delete(entry.key)


class Oblivious(Registry):
    """Collects the bytes of retired versions although others still need their parts."""

    def collect_garbage(self, model: str, *, reader_grace_s: float = 0.0) -> Any:
        for version in self.state(model).versions.values():
            for key in (version.artifact_key, *(part["key"] for part in version.parts)):
                if version.retired is not None:
                    self.store.delete(key)


class Overwriting(AliasDocs):
    """Writes its alias document without looking at the one that stands there."""

    def _replace(self, model: str, ref: str, fresh: dict[str, Any], present: Any) -> bool:
        self._put(model, ref, fresh, present)
        return True


class Backwards(Registry):
    """Lets alias documents go back."""

    def __init__(self, *args: Any, **tools: Any) -> None:
        super().__init__(*args, **tools)
        self._docs = Overwriting(self._docs._store, self._docs._rng, self._backoff)


MUTANTS = {
    "a store that overwrites": Setting(make_store=OverwritingStore),
    "a store that swaps blindly": Setting(
        make_store=BlindSwapStore, moods=(MENDING,), rates=(0.02,), bursts=(0.0,), turns=(14,)
    ),
    "a conflict taken for success": Setting(make_registry=with_ledger(OwnsConflicts)),
    "silence taken for success": Setting(make_registry=with_ledger(TrustsSilence)),
    "another slot after silence": Setting(make_registry=with_ledger(MovesOn)),
    "publication before the bytes": Setting(make_registry=Hasty),
    "greedy collection": Setting(make_registry=Greedy),
    "collection of shared parts": Setting(make_registry=Oblivious),
    "alias documents that go back": Setting(make_registry=Backwards),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_judge_notices(name: str) -> None:
    assert killed_within(MUTANTS[name])


RULES = {
    "no fencing": ("fenced",),
    "finished sources are claimed again": ("done",),
    "moves from an old revision": ("stale_rev",),
    "aliases to retired versions": ("version",),
    "retirement of versions in use": ("in_use",),
}


@pytest.mark.parametrize("name", RULES)
def test_the_judge_notices_a_missing_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = core.fold.check

    def lenient(state: State, entry: Any) -> None:
        try:
            check(state, entry)
        except CoreError as error:
            if error.fields.get("rule") not in RULES[name]:
                raise

    monkeypatch.setattr(core.fold, "check", lenient)
    monkeypatch.setattr("core.ledger.check", lenient)
    assert killed_within(Setting())


def killed_within(setting: Setting, count: int = MUTANT_SEEDS) -> bool:
    """Return whether one of the first histories ends in a violation, or in an error no sound code raises."""
    for seed in range(count):
        try:
            run(seed, setting)
        except Exception:  # noqa: BLE001 - a mutant may break in any way
            return True
    return False


# --- one fault at a time


def clean(store: Any, clock: float = 50_000.0, actor: str = "clean") -> Registry:
    return Registry(store, clock=lambda: clock, sleep=lambda _: None, rng=random.Random(1), actor=actor)


def upload_and_train(store: Any, clock: float, first: str) -> Actor:
    """Two passes of a worker over the inbox, then a roll-back, a move to the version of `first`, a clean-up."""
    registry = clean(store, clock)
    worker = Actor(registry, random.Random(7), lambda: clock)
    worker.rng.random = lambda: 0.9  # type: ignore[method-assign]
    worker.work(0)
    store.put(UPLOADS[0], b"second")
    worker.work(1)
    registry.rollback(MODEL, op_id="one.rollback")
    registry.move(MODEL, "staging", "v-" + first[:12], op_id="one.move")
    registry.repair_aliases(MODEL)
    registry.collect_garbage(MODEL, reader_grace_s=0.0)
    return worker


def test_a_crash_at_any_store_call_is_recovered_from_by_one_clean_pass() -> None:
    rng = random.Random(0)
    counter = FaultStore(MemoryStore(), Plan(0.0), rng=rng, late=LateWrites(rng), turn=lambda: None)
    upload_and_train(counter, 1000.0, source_id(UPLOADS[0], counter.put(UPLOADS[0], b"first")))
    assert counter.calls > 40
    for crash_at in range(2, counter.calls + 1):
        for after in (False, True):
            _crash_and_recover(crash_at, after)


def _crash_and_recover(crash_at: int, after: bool) -> None:
    rng = random.Random(crash_at)
    store = Recorder(MemoryStore())
    faulty = FaultStore(store, Plan(0.0, crash_at, after), rng=rng, late=LateWrites(rng), turn=lambda: None)
    first = source_id(UPLOADS[0], faulty.put(UPLOADS[0], b"first"))
    with pytest.raises(Crash):
        upload_and_train(faulty, 1000.0, first)
    audit(store, MODEL, documents=store.documents)
    upload_and_train(store, 90_000.0, first)
    facts = audit(store, MODEL, acked=["one.rollback", "one.move"], documents=store.documents)
    assert set(facts["outcome"].values()) <= {"publish", "reject"}
    assert clean(store).repair_aliases(MODEL) == []


def test_every_answer_lost_still_means_done_exactly_once() -> None:
    class Deaf(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            super().put_if_absent(key, data)
            raise Transient("the answer was lost")

    store = Deaf()
    worker = upload_and_train(store, 1000.0, source_id(UPLOADS[0], store.put(UPLOADS[0], b"first")))
    facts = audit(store, MODEL, acked=[*worker.acked, "one.rollback", "one.move"])
    assert list(facts["outcome"].values()) == ["publish", "publish"]


def test_the_judge_accepts_no_lost_acknowledgement() -> None:
    with pytest.raises(Violation, match="I3"):
        audit(MemoryStore(), MODEL, acked=["never.written"])
