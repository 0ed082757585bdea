"""Entries and ledgers for the tests of the registry."""

from __future__ import annotations

import hashlib
import random
from functools import partial
from typing import Any

from core.ledger import Ledger
from core.registry import Registry
from core.state import State
from core.store import MemoryStore, ObjectStore

MODEL = "m"


def sha(text: str) -> str:
    """Return the sha256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def src_of(name: str) -> str:
    """Return a source id."""
    return sha(name)[:32]


def version_of(name: str) -> str:
    """Return a version id."""
    return "v-" + src_of(name)[:12]


def open_ledger(store: ObjectStore, now: float = 100.0, actor: str = "tester") -> Ledger:
    """Return a ledger whose clock stands still and which never sleeps."""
    return Ledger(store, MODEL, clock=lambda: now, sleep=lambda _: None, rng=random.Random(1), actor=actor)


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def open_registry(store: ObjectStore, clock: Clock | None = None, seed: int = 1) -> Registry:
    """Return a registry that never sleeps."""
    return Registry(store, clock=clock or Clock(), sleep=lambda _: None, rng=random.Random(seed), actor="tester")


def claim(name: str, attempt: int = 1, until: float = 0.0, **more: Any) -> dict[str, Any]:
    """Return a claim of the source `name`."""
    key = f"uploads/m/{name}.csv"
    told = {"op": "claim", "src": src_of(name), "attempt": attempt, "until": until, "key": key, "kind": "upload"}
    return {**told, **more}


def publish(name: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """Return a publication of the source `name`."""
    told = {
        "op": "publish",
        "src": src_of(name),
        "attempt": attempt,
        "version": version_of(name),
        "manifest_sha256": sha(name),
        "artifact_key": f"reg/m/art/{src_of(name)[:12]}/{attempt}/{sha(name)}",
        "size": 3,
        "metrics": {"accuracy": 0.9},
        "parts": [],
    }
    return {**told, **more}


def alias(name: str, to: str, rev: int, **more: Any) -> dict[str, Any]:
    """Return a move of alias `name` to the version of source `to`."""
    splits = [{"version": version_of(to), "weight": 100}]
    return {"op": "alias", "name": name, "expect_rev": rev, "splits": splits, **more}


def _constant(entry: dict[str, Any], _: State) -> dict[str, Any]:
    return entry


def add(ledger: Ledger, *made: dict[str, Any]) -> State:
    """Append the entries, each under its own op id; return the state."""
    for entry in made:
        n = ledger.refresh().head + 1
        ledger.append(partial(_constant, entry), f"op-{n}")
    return ledger.refresh()


def train(registry: Registry, name: str, parts: list[dict[str, Any]] | None = None) -> str:
    """Claim and publish the source `name` with real bytes; return the version."""
    src = src_of(name)
    registry.append(MODEL, lambda _: claim(name), op_id=f"{name}.claim")
    key, digest = registry.put_artifact(MODEL, src, 1, name.encode())
    registry.publish(
        MODEL,
        src=src,
        attempt=1,
        version=version_of(name),
        manifest_sha256=digest,
        artifact_key=key,
        size=len(name),
        metrics={"accuracy": 0.9},
        parts=parts or [],
        op_id=f"{name}.publish",
    )
    return version_of(name)


def filled(count: int) -> tuple[MemoryStore, Ledger]:
    """Return a store with a log of `count` entries of every kind."""
    store = MemoryStore()
    ledger = open_ledger(store)
    n = rev = 0
    while ledger.refresh().head + 1 < count:
        n += 1
        add(ledger, claim(f"s{n}"))
        if n % 7 == 0:
            add(ledger, {"op": "reject", "src": src_of(f"s{n}"), "attempt": 1, "reason": "schema"})
            continue
        add(ledger, publish(f"s{n}"))
        if n % 2:
            add(ledger, alias("production", f"s{n}", rev, gate={"passed": True}))
            rev += 1
    return store, ledger


def log_of(store: ObjectStore) -> list[bytes]:
    """Return the bytes of all entries."""
    return [store.get(entry.key).data for entry in store.list("reg/m/log/")]
