"""Concurrent histories of the registry: eight clients call it at once on a faulty store, and note what it says."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

from core.errors import Conflict, CoreError, NotFound, Unavailable
from core.registry import Registry
from core.state import State
from core.store import MemoryStore, ObjectStore
from tests.core.ledgers import MODEL, claim, src_of, version_of
from tests.faults.baton import Baton, play
from tests.faults.fault_store import FaultStore, LateWrites, Plan
from tests.faults.histories import checkpoints_every
from tests.faults.linearizability import NEVER, Answer, Op

CLIENTS = 8
OPERATIONS = 25
SOURCES = [f"s{n}" for n in range(12)]
RATES, BURSTS = (0.05, 0.2, 0.4), (0.0, 0.01, 0.03)
MakeRegistry = Callable[..., Registry]
Call = Callable[[], Answer]
_ANSWERS = {"no_previous": "nothing", "version": "retired", "in_use": "in use"}


class Client:
    """One process: draws operations, calls them, and notes the moments of call and answer."""

    def __init__(self, registry: Registry, rng: random.Random, moments: itertools.count[int]) -> None:
        self.registry = registry
        self.rng = rng
        self.moments = moments
        self.ops: list[Op] = []

    def play(self, count: int) -> None:
        """Do this many operations."""
        acts: list[Callable[[str], object]] = []
        acts += [self.move] * 6 + [self.publish] * 4 + [self.roll_back] * 2 + [self.retire]
        acts += [self.read] * 7 + [self.look] * 5
        for turn in range(count):
            self.rng.choice(acts)(f"{self.registry.actor}.{turn}")

    def publish(self, op_id: str) -> None:
        """Publish a source that was claimed; whoever does it uses the claim's op id."""
        name = self.rng.choice(SOURCES)
        self.note("publish", (version_of(name),), lambda: published(self.registry, name))

    def move(self, op_id: str) -> None:
        """Move an alias, mostly from the revision that was just read."""
        name, version = self.rng.choice(["production", "staging"]), version_of(self.rng.choice(SOURCES))
        rev = None
        if self.rng.random() < 0.8:
            seen = self.read(op_id)
            rev = next((rev for alias, rev, _ in seen[0] if alias == name), 0) if seen else self.rng.randrange(4)

        def call() -> Answer:
            moved = self.registry.move(MODEL, name, version, expect_rev=rev, op_id=op_id)
            return ("ok", moved.rev, moved.splits[0].version)

        self.note("move", (name, version, rev), call)

    def roll_back(self, op_id: str) -> None:
        """Undo a move of production."""

        def call() -> Answer:
            moved = self.registry.rollback(MODEL, op_id=op_id)
            return ("ok", moved.rev, moved.splits[0].version)

        self.note("roll back", (), call)

    def retire(self, op_id: str) -> None:
        """Retire any version."""
        version = version_of(self.rng.choice(SOURCES))

        def call() -> Answer:
            self.registry.retire(MODEL, version, op_id=op_id)
            return ("ok",)

        self.note("retire", (version,), call)

    def read(self, op_id: str) -> Answer | None:
        """Read all there is."""
        return self.note("read", (), lambda: told(self.registry.state(MODEL)))

    def look(self, op_id: str) -> None:
        """Read one alias."""
        name = self.rng.choice(["production", "staging", "previous"])

        def call() -> Answer:
            found = self.registry.state(MODEL).aliases.get(name)
            return (found.rev, found.splits[0].version) if found else (0, None)

        self.note("look", (name,), call)

    def note(self, kind: str, args: tuple[Any, ...], call: Call) -> Answer | None:
        """Call, again with the same op id while the outcome is unknown and patience lasts; note the answer."""
        start, unknown, answer = next(self.moments), False, None
        for _ in range(self.rng.randrange(1, 4)):
            try:
                answer = answered(call)
                break
            except Unavailable:
                unknown = True
            except CoreError:
                break  # nothing was done, unless an earlier call did it
        if answer is not None:
            self.ops.append(Op(kind, args, start, next(self.moments), answer))
        elif unknown:
            self.ops.append(Op(kind, args, start, NEVER))
        return answer


def answered(call: Call) -> Answer:
    """Return what the call says, a refusal too. Raises Unavailable, Transient, IntegrityError."""
    try:
        return call()
    except NotFound:
        return ("unknown version",)
    except Conflict as error:
        rule = error.fields["rule"]
        return ("stale", error.fields["rev"]) if rule == "stale_rev" else (_ANSWERS.get(rule, rule),)


def told(state: State) -> Answer:
    """Return a state as the checker has it."""
    aliases = sorted((name, alias.rev, alias.splits[0].version) for name, alias in state.aliases.items())
    retired = frozenset(name for name, version in state.versions.items() if version.retired is not None)
    return tuple(aliases), frozenset(state.versions), retired


def published(registry: Registry, name: str) -> Answer:
    """Publish a source whose bytes nobody will ask for."""
    src, digest = src_of(name), src_of(name) * 2
    key = f"reg/{MODEL}/art/{src[:12]}/1/{digest}"
    pinned: dict[str, Any] = {"manifest_sha256": digest, "artifact_key": key, "size": 1, "metrics": {}}
    registry.publish(MODEL, src=src, attempt=1, version=version_of(name), **pinned, op_id=f"{name}.publish")
    return ("ok",)


# --- one history


def record_history(seed: int, make_registry: MakeRegistry = Registry) -> list[Op]:
    """Return what eight clients were told, in one history drawn from a seed."""
    rng, store = random.Random(seed), MemoryStore()
    with checkpoints_every(rng.choice((5, 64))):
        _set_stage(_registry(make_registry, store, rng, "stage"))
        baton, late, moments = Baton(rng, range(CLIENTS)), LateWrites(rng), itertools.count()
        clients = []
        for me in range(CLIENTS):
            plan = Plan(rng.choice(RATES), bursts=rng.choice(BURSTS))
            faulty = FaultStore(store, plan, rng=rng, late=late, turn=functools.partial(baton.step, me))
            clients.append(Client(_registry(make_registry, faulty, rng, f"c{me}"), rng, moments))
        play([functools.partial(client.play, OPERATIONS) for client in clients], baton)
    return [op for client in clients for op in client.ops]


def _registry(make_registry: MakeRegistry, store: ObjectStore, rng: random.Random, actor: str) -> Registry:
    own = random.Random(rng.random())
    return make_registry(store, clock=lambda: 0.0, sleep=lambda _: None, rng=own, actor=actor)


def _set_stage(registry: Registry) -> None:
    for name in SOURCES:
        registry.append(MODEL, functools.partial(lambda entry, _: entry, claim(name)), op_id=f"{name}.claim")
