"""Finding work in the inbox. Events are hints, the inbox is the truth: whatever was forgotten is found here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from core.errors import CoreError, IntegrityError, Missing
from core.fold import MAX_COVERS
from core.jobs import Inbox, Pending, Step, listed, next_step, parse_key, source_id
from core.ledger import MAX_ENTRY_BYTES
from core.registry import Registry
from core.state import State
from core.store import Entry

MAX_RUN_BYTES = MAX_ENTRY_BYTES // 2  # of a run's keys as JSON spells them: one claim has to hold them all


class Memo:
    """Remembers which objects of the inbox have their outcome, so that polling does not look at them again."""

    __slots__ = ("_settled",)

    def __init__(self) -> None:
        self._settled: dict[str, str] = {}

    def unsettled(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the entries that are not known to be settled; forget what is no longer listed."""
        known, rest = {}, []
        for entry in entries:
            if self._settled.get(entry.key) == entry.token:
                known[entry.key] = entry.token
            else:
                rest.append(entry)
        self._settled = known
        return rest

    def settle(self, entry: Entry) -> None:
        """Remember that this generation needs no more work, ever."""
        self._settled[entry.key] = entry.token


def pending(
    registry: Registry,
    *,
    now: float,
    min_age_s: float,
    model: str | None = None,
    memo: Memo | None = None,
    on_broken: Callable[[str, CoreError], None] | None = None,
) -> list[Pending]:
    """Return all work there is, for one model or for all, oldest first.

    Uploads younger than `min_age_s` may still be growing and are left for later. A model whose log is broken is
    told to `on_broken` and passed over, so that it does not stop the others. Raises Transient, Denied.
    """
    memo = memo or Memo()
    fresh: dict[str, list[tuple[Inbox, Entry]]] = {}
    for entry in memo.unsettled(listed(registry, model)):
        inbox = parse_key(entry.key)
        if inbox is not None:
            fresh.setdefault(inbox.model, []).append((inbox, entry))
    found: list[Pending] = []
    for name in [model] if model else sorted({*fresh, *registry.models()}):
        try:
            mine = fresh.get(name, [])
            found += _of_model(registry, name, mine, now=now, min_age_s=min_age_s, memo=memo)
        except IntegrityError as error:
            if on_broken is None:
                raise
            on_broken(name, error)
    return sorted(found, key=lambda item: (item.modified, item.key))


def _of_model(
    registry: Registry,
    model: str,
    fresh: list[tuple[Inbox, Entry]],
    *,
    now: float,
    min_age_s: float,
    memo: Memo,
) -> list[Pending]:
    state = registry.state(model)
    there = list(_of_inbox(state, fresh, now, min_age_s, memo))
    elsewhere = _of_state(registry, state, now, {item.src for item in there})
    return [item for item in there if item.todo != "wait"] + list(elsewhere)


def pending_at(registry: Registry, key: str, *, now: float, token: str | None = None) -> Pending | None:
    """Return the work that an event about `key` (and its generation `token`, if the event tells) calls for.

    None if there is none: not an inbox key, done, or somebody is at it.
    """
    inbox = parse_key(key)
    if inbox is None:
        return None
    state, entry = registry.state(inbox.model), _head(registry, key)
    if entry is not None and token in (None, entry.token):
        return _item(state, inbox, entry, now)
    if token is None:
        return None
    src = source_id(key, token)
    if next_step(state, src, now).todo != "train":
        return None
    latest = state.sources[src].attempt if src in state.sources else 0
    reason = "superseded" if entry else "gone"
    return Pending(inbox.model, inbox.kind, key, None, src, "reject", latest, reason)


def batch_of(found: Sequence[Pending]) -> list[tuple[Pending, ...]]:
    """Return the work in runs: all new uploads of a model together as far as one claim holds them, all else alone.

    A source that failed before runs alone, so that it cannot take others down with it again.
    """
    runs: list[list[Pending]] = []
    shared: dict[str, list[Pending]] = {}
    room: dict[str, int] = {}
    for item in found:
        run, size = shared.get(item.model), len(json.dumps(item.key))
        alone = item.todo != "train" or item.kind != "upload" or item.attempt > 1
        if not alone and run is not None and len(run) < MAX_COVERS and size <= room[item.model]:
            run.append(item)
            room[item.model] -= size
            continue
        runs.append([item])
        if not alone:
            shared[item.model], room[item.model] = runs[-1], MAX_RUN_BYTES - size
    return [tuple(run) for run in runs]


def _of_inbox(
    state: State, fresh: list[tuple[Inbox, Entry]], now: float, min_age_s: float, memo: Memo
) -> Iterator[Pending]:
    for inbox, entry in fresh:
        src = source_id(entry.key, entry.token)
        step = next_step(state, src, now)
        # a time far in the future says nothing about whether the file still grows
        young = src not in state.sources and inbox.kind == "upload" and abs(now - entry.modified) < min_age_s
        if step.todo == "done":
            memo.settle(entry)
        elif not young:
            yield _pending(state, inbox, entry, src, step)


def _of_state(registry: Registry, state: State, now: float, known: set[str]) -> Iterator[Pending]:
    """Yield the open sources whose object was not listed: it was replaced or removed, unless LIST missed it."""
    for src in sorted(state.open - known):
        source, step = state.sources[src], next_step(state, src, now)
        inbox = Inbox(state.model, source.kind, source.key)
        if step.todo in ("gate", "park"):
            yield _pending(state, inbox, Entry(source.key, 0, "", source.ts), src, step)._replace(token=None)
        elif step.todo == "train":
            entry = _head(registry, source.key)
            if entry is not None and source_id(source.key, entry.token) == src:
                yield _pending(state, inbox, entry, src, step)
            else:
                reason = "superseded" if entry else "gone"
                yield Pending(state.model, source.kind, source.key, None, src, "reject", source.attempt, reason)


def _item(state: State, inbox: Inbox, entry: Entry, now: float) -> Pending | None:
    src = source_id(entry.key, entry.token)
    step = next_step(state, src, now)
    return None if step.todo in ("wait", "done") else _pending(state, inbox, entry, src, step)


def _pending(state: State, inbox: Inbox, entry: Entry, src: str, step: Step) -> Pending:
    source = state.sources.get(src)
    version = source.version if source else None
    told = (inbox.model, inbox.kind, entry.key, entry.token, src, step.todo, step.attempt, "", version)
    return Pending(*told, entry.size, entry.modified)


def _head(registry: Registry, key: str) -> Entry | None:
    try:
        return registry.store.head(key)
    except Missing:
        return None
