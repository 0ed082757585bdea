"""A worker in a few lines, for the tests of the inbox and the jobs."""

from __future__ import annotations

from typing import Any

from core import jobs
from core.inbox import pending
from core.jobs import Claim, Pending
from core.registry import Registry
from tests.core.ledgers import Clock

LEASE_S = 100.0


def work(registry: Registry, clock: Clock, **more: Any) -> list[Pending]:
    """Return what is pending, young uploads too."""
    return pending(registry, now=clock.now, min_age_s=0.0, **more)


def taken(registry: Registry, clock: Clock, *items: Pending) -> Claim:
    """Return a claim that is there to be had."""
    held = jobs.claim(registry, items or work(registry, clock), now=clock.now, lease_s=LEASE_S)
    assert held is not None
    return held


def finish(registry: Registry, held: Claim, gate: dict[str, Any] | None = None) -> str:
    """Publish a claim's version; with `gate`, record the verdict."""
    version = "v-" + held.src[:12]
    key, digest = registry.put_artifact(held.model, held.src, held.attempt, held.src.encode())
    registry.publish(
        held.model,
        src=held.src,
        attempt=held.attempt,
        version=version,
        manifest_sha256=digest,
        artifact_key=key,
        size=32,
        metrics={},
        covers=held.covers,
        op_id=held.op_id("publish"),
    )
    if gate is not None:
        alias = "production" if gate["passed"] else "staging"
        registry.move(held.model, alias, version, op_id=f"{held.src}.gate", gate=gate)
    return version
