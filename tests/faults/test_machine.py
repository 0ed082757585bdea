"""Hypothesis drives one registry against a model of a few dictionaries; the judge looks at every end."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core import jobs
from core.errors import Conflict, NotFound, Transient
from core.inbox import pending
from core.registry import Registry
from core.store import MemoryStore
from tests.faults.auditor import audit
from tests.faults.fault_store import Recorder

MODEL = "m"
NAMES = st.sampled_from(["production", "staging"])
FAULTS = st.sampled_from(["none", "before", "after", "after", "before"])


class Shaky(MemoryStore):
    """Fails the next write when told to, before or after its effect."""

    fault = "none"

    def put_if_absent(self, key: str, data: bytes) -> str:
        fault, self.fault = self.fault, "none"
        if fault == "before":
            raise Transient("injected")
        token = super().put_if_absent(key, data)
        if fault == "after":
            raise Transient("injected")
        return token


class RegistryMachine(RuleBasedStateMachine):
    """Rules act through core; `aliases`, `versions`, `retired` say what must be true, in the plainest way."""

    @initialize()
    def start(self) -> None:
        self.shaky = Shaky()
        self.store = Recorder(self.shaky)
        self.now = 1000.0
        self.versions: list[str] = []
        self.retired: set[str] = set()
        self.aliases: dict[str, list[str]] = {}
        self.ops = 0
        self.reopen()

    @rule()
    def reopen(self) -> None:
        """Forget everything in memory."""
        self.registry = Registry(
            self.store, clock=lambda: self.now, sleep=lambda _: None, rng=random.Random(self.ops), actor="machine"
        )

    @rule(fault=FAULTS)
    def arm(self, fault: str) -> None:
        """Let the next write fail."""
        self.shaky.fault = fault

    @rule(name=st.sampled_from("abc"))
    def upload(self, name: str) -> None:
        """Put a new generation of an upload."""
        self.ops += 1
        self.store.put(f"uploads/{MODEL}/{name}.csv", str(self.ops).encode())

    @rule(turns=st.integers(1, 3))
    def train(self, turns: int) -> None:
        """Work off what is pending, each piece by itself; deliver each event `turns` times."""
        for item in pending(self.registry, now=self.now, min_age_s=0.0):
            if item.todo in ("park", "reject"):
                jobs.settle(self.registry, item)
                continue
            held = [jobs.claim(self.registry, [item], now=self.now, lease_s=30.0) for _ in range(turns)]
            assert [claim is None for claim in held] == [False] + [True] * (turns - 1)
            assert held[0] is not None
            self.publish(held[0])

    def publish(self, held: jobs.Claim) -> None:
        """Publish twice what was claimed, and record a verdict."""
        key, digest = self.registry.put_artifact(MODEL, held.src, held.attempt, held.src.encode())
        version = "v-" + hashlib.sha256(held.src.encode()).hexdigest()[:12]
        told: dict[str, Any] = {"src": held.src, "attempt": held.attempt, "version": version, "size": 1}
        told |= {"manifest_sha256": digest, "artifact_key": key, "metrics": {}, "op_id": held.op_id("publish")}
        assert self.registry.publish(MODEL, **told) == self.registry.publish(MODEL, **told)
        self.versions.append(version)
        verdict = {"op": "note", "version": version, "gate": {"passed": False}}
        self.registry.append(MODEL, lambda _: verdict, op_id=f"{held.src}.gate")

    @precondition(lambda self: self.versions)
    @rule(name=NAMES, pick=st.integers(0, 100), stale=st.booleans())
    def move(self, name: str, pick: int, stale: bool) -> None:
        """Move an alias, from the right revision or from a wrong one."""
        version = self.versions[pick % len(self.versions)]
        self.ops += 1
        rev = self.revs(name) + stale
        try:
            moved = self.registry.move(MODEL, name, version, expect_rev=rev, op_id=f"op-{self.ops}")
        except Conflict:
            assert stale or version in self.retired
            return
        assert not stale
        assert moved.rev == rev + 1
        self.point(name, version)

    def revs(self, name: str) -> int:
        """Return the revision that the alias should have."""
        return len(self.aliases.get(name, []))

    def point(self, name: str, version: str) -> None:
        """What a move should do."""
        former = self.aliases.get(name, [None])[-1]
        self.aliases.setdefault(name, []).append(version)
        if name == "production" and former not in (None, version):
            self.aliases.setdefault("previous", []).append(str(former))

    @rule()
    def roll_back(self) -> None:
        """Undo."""
        self.ops += 1
        try:
            self.registry.rollback(MODEL, op_id=f"op-{self.ops}")
        except (Conflict, NotFound):
            assert "previous" not in self.aliases
            return
        self.point("production", self.aliases["previous"][-1])

    @precondition(lambda self: self.versions)
    @rule(pick=st.integers(0, 100))
    def retire(self, pick: int) -> None:
        """Retire a version, which must work exactly if nothing points to it."""
        version = self.versions[pick % len(self.versions)]
        held = any(versions[-1] == version for versions in self.aliases.values())
        self.ops += 1
        try:
            self.registry.retire(MODEL, version, op_id=f"op-{self.ops}")
        except Conflict:
            assert held or version in self.retired
            return
        assert not held
        assert version not in self.retired
        self.retired.add(version)

    @rule(hours=st.integers(0, 48))
    def wait(self, hours: int) -> None:
        """Let time pass."""
        self.now += hours * 3600.0

    @rule()
    def clean_up(self) -> None:
        """Collect garbage and mend documents."""
        try:
            self.registry.collect_garbage(MODEL)
            self.registry.repair_aliases(MODEL)
        except NotFound:
            assert not self.versions

    @invariant()
    def agrees(self) -> None:
        """What core says is what should be."""
        if not hasattr(self, "registry"):
            return
        state = self.registry.state(MODEL)
        assert {name: alias.rev for name, alias in state.aliases.items()} == {
            name: len(moves) for name, moves in self.aliases.items()
        }
        for name, moves in self.aliases.items():
            assert [split.version for split in state.aliases[name].splits] == [moves[-1]]
        assert set(state.versions) == set(self.versions)
        assert {name for name, version in state.versions.items() if version.retired is not None} == self.retired

    def teardown(self) -> None:
        """Let the judge look."""
        if hasattr(self, "store"):
            audit(self.store, MODEL, documents=self.store.documents)


RegistryMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRegistryMachine = RegistryMachine.TestCase


def test_a_dead_store_raises_only_errors_of_core() -> None:
    class Dead(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            raise Transient("dead")

    registry = Registry(Dead(), clock=lambda: 0.0, sleep=lambda _: None, rng=random.Random(1), actor="w")
    with pytest.raises(Transient):
        registry.append(MODEL, lambda _: {"op": "note"}, op_id="1")
    with pytest.raises(Transient):
        registry.put_artifact(MODEL, "0" * 32, 1, b"x")
