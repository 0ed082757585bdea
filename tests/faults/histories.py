"""Random histories of the registry under faults: several actors, one store, crashes, then a clean recovery."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import core.ledger
from core import jobs
from core.errors import CoreError, Missing
from core.inbox import batch_of, pending
from core.registry import Registry
from core.state import State
from core.store import MemoryStore, ObjectStore
from tests.faults.aftermath import agree, all_settled, no_orphans, nothing_is_left, repeat
from tests.faults.auditor import Violation, audit
from tests.faults.baton import Baton, play
from tests.faults.fault_store import Crash, FaultStore, LateWrites, Plan, Recorder
from tests.faults.rogue import forge

MODEL = "m"
UPLOADS = [f"uploads/{MODEL}/{name}.csv" for name in "abc"]
MakeRegistry = Callable[..., Registry]
# what the actors of a history do more than other things: some races need one operation to meet another often
MENDING = ("repair", "move") * 8
MOODS = ((), ("collect", "collect", "retire", "work"), MENDING, ("forge",) * 6)


class Setting(NamedTuple):
    """How to play: the store under test, the registry under test, how many actors and turns."""

    make_store: Callable[[], ObjectStore] = MemoryStore
    make_registry: MakeRegistry = Registry
    actors: int = 3
    turns: tuple[int, ...] = (6, 8, 14)
    rates: tuple[float, ...] = (0.05, 0.15, 0.4)
    bursts: tuple[float, ...] = (0.0, 0.01, 0.03)
    checkpoint_every: tuple[int, ...] = (2, 5, 64)
    moods: tuple[tuple[str, ...], ...] = MOODS


class Actor:
    """One process: its own registry, its own skewed clock, and what it was told had worked."""

    def __init__(
        self,
        registry: Registry,
        rng: random.Random,
        clock: Callable[[], float],
        reopen: Callable[[], Registry] | None = None,
    ) -> None:
        self.registry = registry
        self.reopen = reopen
        self.rng = rng
        self.clock = clock
        self.acked: list[str] = []
        self.settled: list[str] = []
        self.claimed: list[tuple[str, int]] = []
        self.refused: Counter[str] = Counter()
        self.revs: dict[str, int] = {}
        self.mood: tuple[str, ...] = ()
        self.is_careless = False
        self.kept: tuple[State, str] | None = None

    def play(self, turns: int) -> None:
        """Do some of everything; refusals and outages are part of the game."""
        rest = [
            self.move,
            self.roll_back,
            self.retire,
            self.collect,
            self.repair,
            self.upload,
            self.read,
            self.restart,
        ]
        acts = [self.work, self.work, self.work, self.upload, *rest, *(getattr(self, act) for act in self.mood)]
        for turn in range(turns):
            try:
                self.rng.choice(acts)(turn)
            except CoreError as error:
                self.refused[type(error).__name__] += 1

    def restart(self, turn: int) -> None:
        """Forget all that was in memory."""
        if self.reopen is not None:
            self.registry = self.reopen()

    def work(self, turn: int) -> None:
        """Take up one run of whatever is pending."""
        found = pending(self.registry, now=self.clock(), min_age_s=0.0)
        if found:
            self.run(self.rng.choice(batch_of(found)))

    def run(self, items: Sequence[jobs.Pending]) -> None:
        """Bring one run to its end."""
        first = items[0]
        if first.todo in ("park", "reject"):
            jobs.settle(self.registry, first)
        elif first.todo == "gate":
            assert first.version is not None
            self.gate(first.src, first.version)
        else:
            held = jobs.claim(self.registry, items, now=self.clock(), lease_s=15.0)
            if held is not None:
                self.claimed += [(item.src, item.attempt) for item in held.items]
                self.train(held)

    def train(self, held: jobs.Claim) -> None:
        """Publish, or reject, or fail."""
        drawn = self.rng.random()
        if drawn < 0.1:
            jobs.reject(self.registry, held, "schema", problems=[{"message": "no label"}])
            self.acked.append(held.op_id("reject"))
            self.settled += [item.src for item in held.items]
            return
        if drawn < 0.2:
            jobs.fail(self.registry, held, "timeout", retry_at=self.clock())
            return
        name = f"{held.src} {held.attempt} {self.registry.actor}".encode()
        put = self.registry.put_artifact
        key, digest = put(MODEL, held.src, held.attempt, b"model " + name)
        parts = [dict(zip(("key", "sha256"), put(MODEL, held.src, held.attempt, b"data " + name), strict=True))]
        parts += self.known_parts()
        version = "v-" + held.src[:12]
        self.registry.publish(
            MODEL,
            src=held.src,
            attempt=held.attempt,
            version=version,
            manifest_sha256=digest,
            artifact_key=key,
            size=10,
            metrics={"accuracy": 0.9},
            parts=parts,
            covers=held.covers,
            op_id=held.op_id("publish"),
        )
        self.acked.append(held.op_id("publish"))
        self.settled += [item.src for item in held.items]
        self.gate(held.src, version)

    def known_parts(self) -> list[dict[str, Any]]:
        """Return the data of an earlier version, as a union of known data and upload needs them.

        Who has read the state long ago may name one that is retired by now.
        """
        versions, is_late = self.registry.state(MODEL).versions, self.is_careless and self.rng.random() < 0.3
        live = sorted(name for name, version in versions.items() if is_late or version.retired is None)
        return [dict(part) for part in versions[self.rng.choice(live)].parts] if live else []

    def gate(self, src: str, version: str) -> None:
        """Let the version take production."""
        self.registry.move(MODEL, "production", version, op_id=f"{src}.gate", gate={"passed": True})
        self.acked.append(f"{src}.gate")

    def move(self, turn: int) -> None:
        """Move an alias by hand, from the revision that was seen."""
        state = self.registry.state(MODEL)
        if state.versions:
            name = self.rng.choice(["production", "staging"])
            rev = state.aliases[name].rev if name in state.aliases else 0
            version = self.rng.choice(sorted(state.versions))
            op_id = f"{self.registry.actor}.{turn}.move"
            done = self.registry.move(MODEL, name, version, expect_rev=rev, op_id=op_id)
            if done.rev != rev + 1:
                raise Violation("a move was acknowledged with another revision")
            self.acked.append(op_id)

    def roll_back(self, turn: int) -> None:
        """Undo the last move of production."""
        op_id = f"{self.registry.actor}.{turn}.rollback"
        self.registry.rollback(MODEL, op_id=op_id)
        self.acked.append(op_id)

    def retire(self, turn: int) -> None:
        """Retire any version, mostly one that no alias points to."""
        state = self.registry.state(MODEL)
        held = {split.version for alias in state.aliases.values() for split in alias.splits}
        free = sorted(state.versions.keys() - held)
        drawn = free if free and self.rng.random() < 0.8 else sorted(state.versions)
        if drawn:
            op_id = f"{self.registry.actor}.{turn}.retire"
            self.registry.retire(MODEL, self.rng.choice(drawn), op_id=op_id)
            self.acked.append(op_id)

    def collect(self, turn: int) -> None:
        """Collect garbage, without any grace."""
        self.registry.collect_garbage(MODEL, reader_grace_s=-1e9)

    def repair(self, turn: int) -> None:
        """Mend the alias documents."""
        self.registry.repair_aliases(MODEL)

    def read(self, turn: int) -> None:
        """Read as the predict path does: an alias document, then the bytes that it names."""
        self.keep()
        store, key = self.registry.store, f"reg/{MODEL}/alias/production.json"
        try:
            document = json.loads(store.get(key).data)
        except (Missing, ValueError):
            return
        if document["rev"] < self.revs.get(key, 0):
            raise Violation("I8 a reader saw an alias go back")
        self.revs[key] = document["rev"]
        for share in document["splits"]:
            self.load(share["version"], share["artifact_key"])

    def keep(self) -> None:
        """A state that was read once must not change while others write and this actor reads on."""
        if self.kept and repr(self.kept[0].aliases) != self.kept[1]:
            raise Violation("a state that was read has changed")
        state = self.registry.state(MODEL)
        self.kept = state, repr(state.aliases)

    def load(self, version: str, key: str) -> None:
        """Read the bytes of a version, which must be there unless it is retired by now."""
        try:
            data = self.registry.store.get(key).data
        except Missing:
            if self.registry.state(MODEL).versions[version].retired is None:
                raise Violation(f"I9 a reader missed the bytes of {version}") from None
            return
        whole = hashlib.sha256(data).hexdigest() == key.rsplit("/", 1)[1]
        self.refused["whole" if whole else "cut"] += 1

    def forge(self, turn: int) -> None:
        """Append what no sound code appends; what the fold lets through must be legal after all."""
        op_id, entry = f"{self.registry.actor}.{turn}.forge", forge(self.registry, MODEL, self.rng)
        if entry is not None:
            self.registry.append(MODEL, lambda _: entry, op_id=op_id)
            self.acked.append(op_id)

    def upload(self, turn: int) -> None:
        """Upload something again, or take it away."""
        key = self.rng.choice(UPLOADS)
        if self.rng.random() < 0.8:
            self.registry.store.put(key, f"{self.registry.actor} {turn}".encode())
        else:
            self.registry.store.delete(key)


DEFAULT = Setting()


def run(seed: int, setting: Setting = DEFAULT) -> Counter[str]:
    """Play one history and judge it, twice: after the faults and after the recovery. Raises Violation."""
    rng = random.Random(seed)
    with checkpoints_every(rng.choice(setting.checkpoint_every)):
        return _judged(rng, setting)


@contextmanager
def checkpoints_every(count: int) -> Iterator[None]:
    """Have ledgers write a checkpoint every so many entries: short histories would never see one."""
    usual = core.ledger.CHECKPOINT_EVERY
    core.ledger.CHECKPOINT_EVERY = count
    try:
        yield
    finally:
        core.ledger.CHECKPOINT_EVERY = usual


def _judged(rng: random.Random, setting: Setting) -> Counter[str]:
    store = Recorder(setting.make_store())
    for key in UPLOADS:
        store.put(key, b"first")
    late, baton, clock = LateWrites(rng), Baton(rng, range(setting.actors)), [1000.0]
    actors = [_actor(me, setting, store, late, baton, rng, clock) for me in range(setting.actors)]
    mood = rng.choice(setting.moods)
    for actor in actors:
        actor.mood = mood
    crashes = _play(actors, rng.choice(setting.turns), baton)
    late.land_all()
    acked = [op_id for actor in actors for op_id in actor.acked]
    claimed = [pair for actor in actors for pair in actor.claimed]
    facts = audit(store, MODEL, acked=acked, claimed=claimed, documents=store.documents)
    all_settled(facts, (src for actor in actors for src in actor.settled))
    _recover(setting, store, clock)
    facts = audit(store, MODEL, acked=acked, claimed=claimed, documents=store.documents)
    newcomer = _registry(setting, store, clock, "newcomer")
    agree(newcomer.state(MODEL), facts)
    repeat(newcomer, acked)
    nothing_is_left(store, facts)
    if "forge" not in mood:  # a rogue leaves bytes under attempts of others
        no_orphans(store, facts)
    told: Counter[str] = sum((actor.refused for actor in actors), Counter())
    told.update(facts["outcome"].values(), crashes=crashes, acked=len(acked), retired=len(facts["retired"]))
    told.update(rollbacks=facts["rollbacks"], covered=facts["covered"])
    return told


def _actor(
    me: int,
    setting: Setting,
    store: Recorder,
    late: LateWrites,
    baton: Baton,
    rng: random.Random,
    clock: list[float],
) -> Actor:
    plan = Plan(rng.choice(setting.rates), rng.randrange(1, 300), rng.random() < 0.5, rng.choice(setting.bursts))
    faulty = FaultStore(store, plan, rng=rng, late=late, turn=lambda: baton.step(me))
    skew = rng.choice([0.0, 0.0, -3600.0, 3600.0])

    def now() -> float:
        clock[0] += rng.random() * 3
        return clock[0] + skew

    def reopen() -> Registry:
        own = random.Random(rng.random())
        return setting.make_registry(faulty, clock=now, sleep=lambda _: None, rng=own, actor=f"w{me}")

    actor = Actor(reopen(), rng, now, reopen)
    actor.is_careless = True
    return actor


def _play(actors: list[Actor], turns: int, baton: Baton) -> int:
    """Let all actors play at once; return how many crashed. An error that is nobody's plan is raised."""
    crashed: list[Actor] = []

    def live(actor: Actor) -> None:
        try:
            actor.play(turns)
        except Crash:
            crashed.append(actor)

    play([functools.partial(live, actor) for actor in actors], baton)
    return len(crashed)


def _recover(setting: Setting, store: Recorder, clock: list[float]) -> None:
    """A clean process must be able to finish everything: I10."""
    clock[0] += 20_000.0
    registry = _registry(setting, store, clock, "clean")
    actor = Actor(registry, random.Random(0), lambda: clock[0])
    for _ in range(30):
        found = pending(registry, now=clock[0], min_age_s=0.0)
        if not found:
            break
        for items in batch_of(found):
            actor.run(items)
        clock[0] += 100.0
    else:
        raise Violation("I10 work is left that nobody can finish")
    state = registry.state(MODEL)
    if state.head < 0:
        return  # every upload was taken away before anybody looked
    live = sorted(name for name, version in state.versions.items() if version.retired is None)
    if live:
        registry.move(MODEL, "production", live[0], op_id="clean.move")
    registry.repair_aliases(MODEL)
    registry.collect_garbage(MODEL, reader_grace_s=-1e9)
    if registry.verify_log(MODEL) is not None:
        raise Violation("I2 the log does not verify")


def _registry(setting: Setting, store: Recorder, clock: list[float], actor: str) -> Registry:
    tools: dict[str, Any] = {"clock": lambda: clock[0], "sleep": lambda _: None, "rng": random.Random(0)}
    return setting.make_registry(store, **tools, actor=actor)
