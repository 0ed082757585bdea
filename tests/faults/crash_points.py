"""Deaths at every store call of every operation, before the call's effect and after it, and one retry.

Each scene plays on the same stage: a version in production and one behind it that share data, a retired one, a
rejected source with bytes of its own, a lease that ran out, a version without a verdict, and a new upload.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from core import jobs
from core.flatfile import FlatFile
from core.inbox import batch_of, pending, pending_at
from core.jobs import Claim
from core.ledger import Backoff
from core.promotion import promote
from core.registry import Registry
from core.shelf import Shelf
from core.store import MemoryStore, ObjectStore
from tests.core.models import text_artifact
from tests.faults.auditor import Violation, audit
from tests.faults.fault_store import Crash, FaultStore, LateWrites, Plan, Recorder
from tests.faults.histories import Actor

MODEL = "m"
NO_GRACE = -1e9
EARLY, DEATH, RETRY = 1000.0, 20_000.0, 90_000.0
Facts = dict[str, Any]


class Point(NamedTuple):
    """Where the process dies: at store call number `call`, after its effect or before."""

    call: int
    after: bool


def open_registry(store: ObjectStore, now: float, actor: str) -> Registry:
    """Return a registry whose clock stands still."""
    return Registry(store, clock=lambda: now, sleep=lambda _: None, rng=random.Random(actor), actor=actor)


@functools.cache
def model_bytes() -> bytes:
    """Return a real artifact, which the gate can load."""
    return text_artifact()


# --- the stage


def prepare(store: ObjectStore) -> None:
    """Set the stage, without faults."""
    registry = open_registry(store, EARLY, "stage")
    first = publish(registry, claim(registry, "first"))
    registry.move(MODEL, "production", first, op_id="first.gate", gate={"passed": True})
    second = publish(registry, claim(registry, "second"))
    registry.move(MODEL, "production", second, op_id="second.gate", gate={"passed": True})
    old = publish(registry, claim(registry, "old"))
    registry.retire(MODEL, old, op_id="old.retire")
    rejected = claim(registry, "rejected")
    registry.put_artifact(MODEL, rejected.src, rejected.attempt, b"half-made")
    jobs.reject(registry, rejected, "schema")
    publish(registry, claim(registry, "spare"))
    store_early(registry, claim(registry, "late"))
    claim(registry, "ready", lease_s=10 * RETRY)
    publish(registry, claim(registry, "judged"))
    store.put(f"uploads/{MODEL}/new.csv", b"new")


def claim(registry: Registry, name: str, lease_s: float = 60.0) -> Claim:
    """Upload something and claim it."""
    key = f"uploads/{MODEL}/{name}.csv"
    registry.store.put(key, name.encode())
    item = pending_at(registry, key, now=EARLY)
    assert item is not None
    held = jobs.claim(registry, [item], now=EARLY, lease_s=lease_s)
    assert held is not None
    return held


def store_early(registry: Registry, held: Claim) -> None:
    """Store the bytes of an attempt that ends there."""
    registry.put_artifact(MODEL, held.src, held.attempt, b"never published")


def publish(registry: Registry, held: Claim) -> str:
    """Publish what was claimed with data that all versions share; return the version."""
    data, version = model_bytes(), "v-" + held.src[:12]
    key, _ = registry.put_artifact(MODEL, held.src, held.attempt, data)
    part = dict(zip(("key", "sha256"), registry.put_artifact(MODEL, held.src, held.attempt, b"rows"), strict=True))
    known = [dict(part) for v in registry.state(MODEL).versions.values() if v.n < 6 for part in v.parts[:1]]
    told: dict[str, Any] = {"src": held.src, "attempt": held.attempt, "version": version, "size": len(data)}
    told |= {"manifest_sha256": FlatFile(data).header_sha256, "artifact_key": key, "metrics": {}}
    registry.publish(MODEL, **told, parts=[part, *known], op_id=held.op_id("publish"))
    return version


def source_of(registry: Registry, name: str) -> str:
    """Return the source that was uploaded under a name."""
    key = f"uploads/{MODEL}/{name}.csv"
    return next(src for src, source in registry.state(MODEL).sources.items() if source.key == key)


# --- what dies, and what is called again


def do_publish(registry: Registry, now: float) -> None:
    """Publish under the claim that the process holds."""
    src = source_of(registry, "ready")
    publish(registry, Claim((jobs.Pending(MODEL, "upload", "", None, src, "train", 1),), now))


def do_promote(registry: Registry, now: float) -> None:
    """Have a version judged, then put it into production by hand."""
    version = "v-" + source_of(registry, "judged")[:12]
    promote(registry, Shelf(registry.store, Backoff(lambda _: None, random.Random(1))), MODEL, version)
    registry.move(MODEL, "production", version, op_id="judged.move")


def do_rollback(registry: Registry, now: float) -> None:
    """Roll production back."""
    registry.rollback(MODEL, op_id="undo")


def do_retire(registry: Registry, now: float) -> None:
    """Retire a version that nothing points to."""
    registry.retire(MODEL, "v-" + source_of(registry, "spare")[:12], op_id="spare.retire")


def do_collect(registry: Registry, now: float) -> None:
    """Collect garbage, without any grace."""
    registry.collect_garbage(MODEL, reader_grace_s=NO_GRACE)


def do_reconcile(registry: Registry, now: float) -> None:
    """Do all that waits, mend the documents, clean up."""
    rng = random.Random(7)
    rng.random = lambda: 0.9  # type: ignore[method-assign] # trainings succeed
    worker = Actor(registry, rng, lambda: now)
    for items in batch_of(pending(registry, now=now, min_age_s=0.0)):
        worker.run(items)
    registry.repair_aliases(MODEL)
    registry.collect_garbage(MODEL, reader_grace_s=NO_GRACE)


ACTS: dict[str, Callable[[Registry, float], None]] = {
    "publish": do_publish,
    "promote": do_promote,
    "rollback": do_rollback,
    "retire": do_retire,
    "collect": do_collect,
    "reconcile": do_reconcile,
}


# --- deaths


def points(scene: str) -> list[Point]:
    """Return every point at which the operation can die, by having it done once."""
    store = MemoryStore()
    prepare(store)
    counter = _mortal(store, Plan(0.0))
    ACTS[scene](open_registry(counter, DEATH, "doer"), DEATH)
    return [Point(call, after) for call in range(1, counter.calls + 1) for after in (False, True)]


def undisturbed(scene: str) -> Facts:
    """Return what the operation leads to if nothing happens to it, once it was called twice."""
    store = MemoryStore()
    prepare(store)
    for now in (DEATH, RETRY):
        ACTS[scene](open_registry(store, now, "doer"), now)
    return _outcome(scene, audit(store, MODEL))


def die_and_retry(scene: str, point: Point, empty: ObjectStore, wanted: Facts) -> None:
    """Let the operation die at a point of it, call it once more, and judge. Raises Violation."""
    store = Recorder(empty)
    prepare(store)
    mortal = _mortal(store, Plan(0.0, point.call, point.after))
    try:
        ACTS[scene](open_registry(mortal, DEATH, "doer"), DEATH)
    except Crash:
        audit(store, MODEL, documents=store.documents)
    else:
        raise Violation("nobody died")
    registry = open_registry(store, RETRY, "heir")
    ACTS[scene](registry, RETRY)
    facts = audit(store, MODEL, documents=store.documents)
    if _outcome(scene, facts) != wanted:
        raise Violation(f"{scene}, {point}: one retry does not lead to where the operation leads")
    _tidy(registry, facts)


def _mortal(store: ObjectStore, plan: Plan) -> FaultStore:
    rng = random.Random(0)
    return FaultStore(store, plan, rng=rng, late=LateWrites(rng), turn=lambda: None)


def _outcome(scene: str, facts: Facts) -> Facts:
    """Return what must be the same after any death, by the names of the uploads: source ids differ by store.

    A reconciler may cut the work into other runs.
    """
    keys = facts["keys"]
    names = {**keys, **{"v-" + src[:12]: key for src, key in keys.items()}}
    told: Facts = {"retired": {names[version] for version in facts["retired"]}}
    told["outcome"] = {names[src]: op for src, op in facts["outcome"].items()}
    if scene != "reconcile":
        told["claims"] = {names[src]: count for src, count in facts["claims"].items()}
        told["moves"] = {
            alias: [[names[version] for version, _ in splits] for splits in moves]
            for alias, moves in facts["revs"].items()
        }
    return told


def _tidy(registry: Registry, facts: Facts) -> None:
    """After one repair and one collection nothing is left to mend and no byte that nobody needs."""
    registry.repair_aliases(MODEL)
    if registry.repair_aliases(MODEL):
        raise Violation("a document is not mended by one repair")
    registry.collect_garbage(MODEL, reader_grace_s=NO_GRACE)
    open_sources = {src for src in facts["claims"] if src not in facts["outcome"]}
    live = [entry for name, entry in facts["versions"].items() if name not in facts["retired"]]
    needed = {entry["artifact_key"] for entry in live} | {part["key"] for entry in live for part in entry["parts"]}
    for entry in registry.store.list(f"reg/{MODEL}/art/"):
        owner = entry.key.split("/")[3]
        if entry.key not in needed and not any(src.startswith(owner) for src in open_sources):
            raise Violation(f"orphan {entry.key} was not collected")
