"""Judges what the clients and operators were told against the store's own log and artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from core.state import Move
from scripts.soak.clients import PRODUCTION, Tally
from scripts.soak.field import MODEL, open_registry, truth
from scripts.soak.operations import Operations

STALE_S = 45.0  # a load that fails is tried again after 10 s; four in a row do not fail
MAX_GROWTH = 0.05
GROWTH_FROM_S = 600.0  # a shorter run is mostly warm-up
MAX_RECOVERY_S = 30.0


class Goal(NamedTuple):
    """One line of the table."""

    name: str
    size: int
    violations: int
    note: str = ""


class Outage(NamedTuple):
    """When the disk was down, and how long all workers took to follow a move after it was up again."""

    start: float
    end: float
    recovery_s: float


def wrong_numbers(tally: Tally, store: Path) -> list[str]:
    """Return the answers whose numbers are not those of the version that they name."""
    known = {version: truth(store, version) for version in {version for version, _, _ in tally.answers}}
    return [
        f"{count} answers to question {question} in the name of {version}: {numbers!r}"
        for (version, question, numbers), count in tally.answers.items()
        if known[version][question] != numbers
    ]


def twins(store: Path, versions: Iterable[str]) -> int:
    """Return how many of the versions answer all questions like another one: nobody could tell them apart."""
    answers = [tuple(truth(store, version)) for version in versions]
    return len(answers) - len(set(answers))


def stale(seen: Iterable[tuple[str, int]], moves: Sequence[Move], outage: Outage) -> tuple[float, list[str]]:
    """Return the longest time that a version answered after it had lost production, and what was too long.

    Time in the outage does not count: nobody could know.
    """
    worst, found = 0.0, []
    for version, second in sorted(seen):
        late = min((_lateness(span, second, outage) for span in _spans(version, moves)), default=float("inf"))
        worst = max(worst, late)
        if late > STALE_S:
            found.append(f"{version} answered {late:.0f} s after it had lost production")
    return worst, found


def _spans(version: str, moves: Sequence[Move]) -> Iterable[tuple[float, float]]:
    """Yield the times from when to when production pointed to a version."""
    ends = [move.ts for move in moves[1:]] + [float("inf")]
    for move, end in zip(moves, ends, strict=True):
        if any(split.version == version for split in move.splits):
            yield move.ts, end


def _lateness(span: tuple[float, float], second: int, outage: Outage) -> float:
    start, end = span
    if second + 1 < start:
        return float("inf")  # before it was there
    excused = max(0.0, min(second, outage.end) - max(end, outage.start))
    return max(0.0, second - end - excused)


def goals(tally: Tally, done: Operations, store: Path, outage: Outage) -> list[Goal]:
    """Return what answers and acknowledgements are worth."""
    state = open_registry(store).state(MODEL)
    moves = [move for move in state.moves if move.name == PRODUCTION]
    versions = {version for version, _, _ in tally.answers}
    worst, late = stale(tally.seen, moves, outage)
    wrong = wrong_numbers(tally, store)
    lost = [rev for rev, shares in done.moved.items() if tuple(moves[rev - 1].splits) != shares]
    total = sum(tally.answers.values())
    unanswered = tally.errors + tally.broken
    answered = sum(count for (_, status), count in tally.statuses.items() if status == 200)
    server_errors = sum(count for (_, status), count in done.answers.items() if status >= 500 and status != 503)
    return [
        Goal("warm predictions answered", answered, len(unanswered), _first(unanswered)),
        Goal(
            "answers exactly those of the version they name",
            total,
            len(wrong) + tally.mislabelled,
            _first(wrong),
        ),
        Goal("versions that can be told apart", len(versions), twins(store, versions)),
        Goal("versions after they lost production", len(moves), len(late), f"{worst:.0f} s at most"),
        Goal("acknowledged moves in the log", len(done.moved), len(lost)),
        Goal("operators' calls", sum(done.answers.values()), len(done.wrong) + server_errors, _first(done.wrong)),
    ]


def _first(lines: Sequence[str]) -> str:
    return lines[0][:300] if lines else ""


def growth(before_kb: int, after_kb: int, duration_s: float) -> Goal:
    """Return what the memory of the HTTP workers did."""
    share = after_kb / before_kb - 1
    note = f"{before_kb / 1024:.1f} MB -> {after_kb / 1024:.1f} MB, {share:+.1%}"
    if duration_s < GROWTH_FROM_S:
        return Goal("memory growth under 5 %", 0, 0, f"{note}; judged from {GROWTH_FROM_S:g} s on")
    return Goal("memory growth under 5 %", 1, int(share >= MAX_GROWTH), note)
