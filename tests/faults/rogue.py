"""Entries as broken code or a stalled process would write them: some are legal, most the fold has to refuse."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from core.registry import Registry
from core.state import State
from tests.faults.auditor import PREVIOUS, PRODUCTION

Entry = dict[str, Any]
Forge = Callable[[Registry, str, random.Random], Entry | None]


def forge(registry: Registry, model: str, rng: random.Random) -> Entry | None:
    """Return an entry, None if there is nothing yet that it could be about."""
    return rng.choice(_FORGES)(registry, model, rng)


def _source(state: State, rng: random.Random) -> tuple[str, int] | None:
    """Draw a source, an open one if there is one, and an attempt at it: mostly the right one."""
    if not state.sources:
        return None
    claimed = sorted(src for src, source in state.sources.items() if source.status == "claimed")
    src = rng.choice(claimed if claimed and rng.random() < 0.7 else sorted(state.sources))
    return src, max(0, state.sources[src].attempt + rng.choice([-1, 0, 0, 0, 1]))


def _claim(registry: Registry, model: str, rng: random.Random) -> Entry | None:
    state = registry.state(model)
    drawn, other = _source(state, rng), _source(state, rng)
    if drawn is None or other is None:
        return None
    keys = {src: source.key for src, source in state.sources.items()}
    entry = {"op": "claim", "src": drawn[0], "attempt": drawn[1], "key": keys[drawn[0]], "kind": "upload"}
    covers = {other[0]: [other[1], keys[other[0]]]} if other[0] != drawn[0] and rng.random() < 0.5 else {}
    return {**entry, "until": 0.0, "covers": covers}


def _outcome(registry: Registry, model: str, rng: random.Random) -> Entry | None:
    state = registry.state(model)
    drawn, other = _source(state, rng), _source(state, rng)
    if drawn is None or other is None:
        return None
    op = rng.choice(["reject", "park", "note"])
    covers = dict([other]) if other[0] != drawn[0] and rng.random() < 0.5 else {}
    source = state.sources[drawn[0]]
    about = {"key": source.key, "kind": source.kind, "until": 0.0}
    return {"op": op, "src": drawn[0], "attempt": drawn[1], **about, "covers": covers}


def _publish(registry: Registry, model: str, rng: random.Random) -> Entry | None:
    state = registry.state(model)
    drawn, other = _source(state, rng), _source(state, rng)
    if drawn is None or other is None:
        return None
    src, attempt = drawn
    key, digest = registry.put_artifact(model, src, attempt, f"rogue {rng.random()}".encode())
    known = [dict(part) for version in state.versions.values() for part in version.parts]
    covers = dict([other]) if other[0] != src and rng.random() < 0.5 else {}
    return {
        "op": "publish",
        "src": src,
        "attempt": attempt,
        "version": rng.choice(["v-" + src[:12], rng.choice(sorted(state.versions) or ["v-" + src[:12]])]),
        "manifest_sha256": digest,
        "artifact_key": key,
        "size": 1,
        "metrics": {},
        "parts": rng.sample(known, min(len(known), 2)),
        "covers": covers,
    }


def _alias(registry: Registry, model: str, rng: random.Random) -> Entry | None:
    state = registry.state(model)
    name = rng.choice([PRODUCTION, PRODUCTION, "staging", PREVIOUS])
    rev = state.aliases[name].rev if name in state.aliases else 0
    live = sorted(name for name, version in state.versions.items() if version.retired is None)
    names = live if live and rng.random() < 0.7 else [*sorted(state.versions), "v-000000000000"]
    weights = rng.choices([100, 50, 0], [3, 1, 2], k=rng.choice([0, 1, 1, 1, 2]))
    splits = [{"version": rng.choice(names), "weight": weight} for weight in weights]
    return {"op": "alias", "name": name, "expect_rev": rev + rng.choice([-1, 0, 0, 1]), "splits": splits}


def _retire(registry: Registry, model: str, rng: random.Random) -> Entry | None:
    state = registry.state(model)
    held = {split.version for alias in state.aliases.values() for split in alias.splits}
    free = sorted(state.versions.keys() - held)
    drawn = free if free and rng.random() < 0.7 else sorted(state.versions)
    return {"op": "retire", "version": rng.choice(drawn)} if drawn else None


_FORGES: tuple[Forge, ...] = (_claim, _outcome, _publish, _alias, _retire)
