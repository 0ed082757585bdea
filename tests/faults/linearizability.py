"""Whether a recorded concurrent history could have been a sequence: Wing and Gong's search, with memory.

Shares no code with core. Each operation has to take effect at one moment between its call and its answer. One
without an answer may take effect at any moment after its call, or never; one that was answered with "nothing was
done" is left out of the history, so that its effect, if there is one, has no explanation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

NEVER = 1 << 60
PRODUCTION, PREVIOUS = "production", "previous"
Answer = tuple[Any, ...]


class Op(NamedTuple):
    """An operation of one client. `call` and `end` are moments of one clock; without an answer `end` is NEVER."""

    kind: str
    args: tuple[Any, ...]
    call: int
    end: int = NEVER
    answer: Answer | None = None


class Facts(NamedTuple):
    """What the registry holds: each alias's (name, revision, version), published and retired versions."""

    aliases: tuple[tuple[str, int, str], ...] = ()
    published: frozenset[str] = frozenset()
    retired: frozenset[str] = frozenset()

    def at(self, name: str) -> tuple[int, str | None]:
        """Return an alias's revision and version."""
        return next(((rev, version) for known, rev, version in self.aliases if known == name), (0, None))

    def point(self, name: str, version: str) -> Facts:
        """Return the facts after an alias has moved once."""
        rest = [alias for alias in self.aliases if alias[0] != name]
        return self._replace(aliases=tuple(sorted([*rest, (name, self.at(name)[0] + 1, version)])))


# --- what one operation does when nothing else happens


def step(facts: Facts, op: Op) -> tuple[Facts, Answer]:
    """Return what an operation leads to, and what it answers."""
    led: tuple[Facts, Answer] = _STEPS[op.kind](facts, *op.args)
    return led


def _publish(facts: Facts, version: str) -> tuple[Facts, Answer]:
    return facts._replace(published=facts.published | {version}), ("ok",)


def _move(facts: Facts, name: str, version: str, expected: int | None) -> tuple[Facts, Answer]:
    rev, former = facts.at(name)
    if version not in facts.published:
        return facts, ("unknown version",)
    if expected not in (None, rev):
        return facts, ("stale", rev)
    if version in facts.retired:
        return facts, ("retired",)
    moved = facts.point(name, version)
    if name == PRODUCTION and former not in (None, version):
        moved = moved.point(PREVIOUS, str(former))
    return moved, ("ok", rev + 1, version)


def _roll_back(facts: Facts) -> tuple[Facts, Answer]:
    target = facts.at(PREVIOUS)[1]
    return (facts, ("nothing",)) if target is None else _move(facts, PRODUCTION, target, None)


def _retire(facts: Facts, version: str) -> tuple[Facts, Answer]:
    if version not in facts.published:
        return facts, ("unknown version",)
    if version in facts.retired:
        return facts, ("retired",)
    if any(version == held for _, _, held in facts.aliases):
        return facts, ("in use",)
    return facts._replace(retired=facts.retired | {version}), ("ok",)


def _read(facts: Facts) -> tuple[Facts, Answer]:
    return facts, (facts.aliases, facts.published, facts.retired)


def _look(facts: Facts, name: str) -> tuple[Facts, Answer]:
    return facts, facts.at(name)


_STEPS: dict[str, Any] = {
    "publish": _publish,
    "move": _move,
    "roll back": _roll_back,
    "retire": _retire,
    "read": _read,
    "look": _look,
}


# --- the search


def linearizable(history: Sequence[Op]) -> bool:
    """Return whether there is an order that explains every answer."""
    ops = sorted(history, key=lambda op: op.call)
    wanted = sum(1 << n for n, op in enumerate(ops) if op.end != NEVER)
    seen: set[tuple[int, Facts]] = set()
    stack = [(0, Facts())]
    while stack:
        done, facts = stack.pop()
        if done & wanted == wanted:
            return True
        if (done, facts) not in seen:
            seen.add((done, facts))
            stack.extend(_next(ops, done, facts))
    return False


def _next(ops: Sequence[Op], done: int, facts: Facts) -> Iterator[tuple[int, Facts]]:
    """Yield where each operation leads that may be the next; the likeliest, the first to be answered, last."""
    for n in sorted(_open(ops, done), key=lambda n: -ops[n].end):
        after, answer = step(facts, ops[n])
        if ops[n].answer in (None, answer):
            yield done | 1 << n, after


def _open(ops: Sequence[Op], done: int) -> list[int]:
    """Return the operations that were called before any other that is left was answered."""
    found: list[int] = []
    first_end = NEVER
    for n, op in enumerate(ops):
        if op.call > first_end:
            break
        if not done >> n & 1:
            found.append(n)
            first_end = min(first_end, op.end)
    return [n for n in found if ops[n].call <= first_end]
