"""Recorded histories with one lie in each, which no order of the operations can explain."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tests.faults.linearizability import NEVER, Op

PHANTOM = "v-00000000dead"
Edit = tuple[tuple[int, ...], tuple[Op, ...]]  # which operations are left out, and what stands there instead
Lie = Callable[[Sequence[Op]], Iterator[Edit]]


def spoil(history: Sequence[Op], seed: int) -> list[Op] | None:
    """Return the history with lie number `seed`, at a place drawn by lot; None if it offers no place for it."""
    ops = sorted(history, key=lambda op: op.call)
    found = list(LIES[seed % len(LIES)](ops))
    if not found:
        return None
    out, put = random.Random(seed).choice(found)
    return [*(op for n, op in enumerate(ops) if n not in out), *put]


def _told(history: Sequence[Op], n: int, *answer: object) -> Edit:
    """Say that operation `n` was answered otherwise."""
    return (n,), (history[n]._replace(answer=answer),)


def _of(history: Sequence[Op], *kinds: str) -> Iterator[tuple[int, Op]]:
    """Yield the operations of these kinds that were answered, a change only if it was made."""
    for n, op in enumerate(history):
        if op.kind in kinds and op.answer and (op.kind in ("read", "look") or op.answer[0] == "ok"):
            yield n, op


def _target(op: Op) -> str:
    return "production" if op.kind == "roll back" else str(op.args[0])


def _answer(op: Op) -> tuple[object, ...]:
    assert op.answer is not None
    return op.answer


def a_read_of_the_past(history: Sequence[Op]) -> Iterator[Edit]:
    """A read says what an earlier one said, though one in between saw more versions."""
    reads = list(_of(history, "read"))
    for n, last in reads:
        before = [op for _, op in reads if op.end < last.call]
        for old in before:
            if any(op.call > old.end and _answer(op)[1] > _answer(old)[1] for op in before):  # type: ignore[operator]
                yield _told(history, n, *_answer(old))


def a_lost_publication(history: Sequence[Op]) -> Iterator[Edit]:
    """A read does not see a version whose publication was acknowledged before."""
    for _, made in _of(history, "publish"):
        for n, op in _of(history, "read"):
            if made.end < op.call and op.answer:
                yield _told(history, n, op.answer[0], op.answer[1] - {made.args[0]}, op.answer[2])


def a_lost_move(history: Sequence[Op]) -> Iterator[Edit]:
    """A look does not see a move that was acknowledged before."""
    for _, made in _of(history, "move", "roll back"):
        for n, op in _of(history, "look"):
            if made.end < op.call and op.args == (_target(made),) and made.answer:
                yield _told(history, n, made.answer[1] - 1, PHANTOM if made.answer[1] > 1 else None)


def one_revision_twice(history: Sequence[Op]) -> Iterator[Edit]:
    """Two moves of an alias are told the same revision."""
    moves = list(_of(history, "move", "roll back"))
    for _, first in moves:
        for n, second in moves:
            if first != second and _target(first) == _target(second):
                yield _told(history, n, "ok", _answer(first)[1], _answer(second)[2])


def a_phantom(history: Sequence[Op]) -> Iterator[Edit]:
    """A read sees a version that nobody published."""
    for n, op in _of(history, "read"):
        if op.answer:
            yield _told(history, n, op.answer[0], op.answer[1] | {PHANTOM}, op.answer[2])


def a_roll_back_to_elsewhere(history: Sequence[Op]) -> Iterator[Edit]:
    """A roll-back goes to a version that never was in production."""
    for n, op in _of(history, "roll back"):
        yield _told(history, n, "ok", _answer(op)[1], PHANTOM)


def a_false_refusal(history: Sequence[Op]) -> Iterator[Edit]:
    """A move is refused for a revision that the alias never had."""
    for n, op in enumerate(history):
        if op.kind == "move" and op.answer and op.answer[0] == "stale":
            yield _told(history, n, "stale", op.answer[1] + 1000)


def a_move_from_elsewhere(history: Sequence[Op]) -> Iterator[Edit]:
    """A move is made although the alias was not at the expected revision."""
    for n, op in _of(history, "move"):
        name, version, _ = op.args
        yield (n,), (op._replace(args=(name, version, _answer(op)[1])),)


def an_effect_without_a_cause(history: Sequence[Op]) -> Iterator[Edit]:
    """A move that was made is said to have come to nothing, though a later one builds on it."""
    if any(op.end == NEVER for op in history):
        return
    moves = list(_of(history, "move", "roll back"))
    for n, op in moves:
        revs = [other.answer[1] for _, other in moves if other.answer and _target(other) == _target(op)]
        if max(revs) > int(str(_answer(op)[1])):
            yield (n,), ()


def an_effect_before_its_cause(history: Sequence[Op]) -> Iterator[Edit]:
    """A version is seen before anybody asks for its publication."""
    made = [op for op in history if op.kind == "publish"]
    for n, op in enumerate(history):
        alone = [other.args for other in made].count(op.args) == 1
        if op.kind == "publish" and op.answer and alone:
            for m, read in _of(history, "read"):
                if op.args[0] in _answer(read)[1]:  # type: ignore[operator]
                    late = op._replace(call=read.end + 1, end=NEVER - 1)
                    yield (n, m), (read, late)


LIES: tuple[Lie, ...] = (
    a_read_of_the_past,
    a_lost_publication,
    a_lost_move,
    one_revision_twice,
    a_phantom,
    a_roll_back_to_elsewhere,
    a_false_refusal,
    a_move_from_elsewhere,
    an_effect_without_a_cause,
    an_effect_before_its_cause,
)
