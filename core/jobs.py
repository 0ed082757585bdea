"""Jobs: an upload or a request in the inbox becomes a source, is claimed, and gets exactly one outcome.

A lease only saves work; that a stale holder cannot publish is the fold's business. `core.inbox` finds the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.errors import Conflict, InvalidName, NotFound
from core.keys import is_key, is_name
from core.registry import Registry
from core.state import Source, State
from core.store import Entry
from core.tuples import NamedTuple

MAX_ATTEMPTS = 3
MAX_PROBLEMS = 10
_PARTIAL = ("~", ".sha256", ".part", ".partial", ".tmp", ".crdownload")
_STATUS = {"published": "succeeded", "rejected": "rejected", "parked": "parked"}


class Inbox(NamedTuple):
    """What an inbox key says: `kind` is upload | job."""

    model: str
    kind: str
    name: str


class Step(NamedTuple):
    """What a source needs now: `todo` is train | gate | park | wait | done. `attempt` is the one it is for."""

    todo: str
    attempt: int


class Pending(NamedTuple):
    """One piece of work: `todo` is train | gate | park | reject (then `reason` is gone or superseded).

    `token` pins the generation to read (None: not to be read); `attempt` is the next for train, else the latest.
    `content` is the sha256 of an upload's bytes once they were read.
    """

    model: str
    kind: str
    key: str
    token: str | None
    src: str
    todo: str
    attempt: int
    reason: str = ""
    version: str | None = None
    size: int = 0
    modified: float = 0.0
    content: str = ""

    @property
    def job_id(self) -> str:
        """The id under which people ask for this job."""
        return job_id(self.model, self.src)


class Claim(NamedTuple):
    """The right to give `items` their outcomes until `until`; the first item is the run's own source."""

    items: tuple[Pending, ...]
    until: float

    @property
    def model(self) -> str:
        """The model that all items belong to."""
        return self.items[0].model

    @property
    def src(self) -> str:
        """The run's own source: artifacts lie under it."""
        return self.items[0].src

    @property
    def attempt(self) -> int:
        """The attempt at the run's own source."""
        return self.items[0].attempt

    @property
    def covers(self) -> dict[str, int]:
        """The other sources that the run carries, with their attempts."""
        return {item.src: item.attempt for item in self.items[1:]}

    def op_id(self, verb: str) -> str:
        """Return the id of this claim's one operation of the kind `verb`."""
        return f"{self.src}.{self.attempt}.{verb}"

    def without(self, src: str) -> Claim | None:
        """Return the claim without one of its sources, None if nothing is left."""
        rest = tuple(item for item in self.items if item.src != src)
        return self._replace(items=rest) if rest else None

    def having_read(self, src: str, content: str) -> Claim:
        """Return the claim with the sha256 of what one of its sources holds."""
        items = (item._replace(content=content) if item.src == src else item for item in self.items)
        return self._replace(items=tuple(items))


class JobView(NamedTuple):
    """A job as GET /jobs/{id} shows it: `status` is queued | running | succeeded | rejected | parked."""

    job_id: str
    model: str
    kind: str
    key: str
    status: str
    attempt: int
    version: str | None
    gate: Mapping[str, Any] | None
    reason: str
    problems: tuple[Mapping[str, Any], ...]
    updated: float


def source_id(key: str, token: str) -> str:
    """Return the id of one generation of an upload, or of a request, whose key alone names it: 32 hex digits.

    A copy of a store has other generations: what was asked for once must not be done again there.
    """
    token = "" if key.startswith("jobs/") else token
    return hashlib.sha256(f"{key}\n{token}".encode()).hexdigest()[:32]


def job_id(model: str, src: str) -> str:
    """Return the public id of a source's job."""
    return f"{model}.{src[:16]}"


def parse_key(key: str) -> Inbox | None:
    """Return what an inbox key says; None for every other key, half-written files and side files."""
    if not is_key(key):
        return None
    area, _, rest = key.partition("/")
    model, _, name = rest.partition("/")
    hidden = any(part.startswith(".") for part in name.split("/"))
    if not is_name(model) or not name or hidden or name.endswith(_PARTIAL):
        return None
    if area == "uploads":
        return Inbox(model, "upload", name)
    if area == "jobs" and name.endswith(".json") and "/" not in name:
        return Inbox(model, "job", name.removesuffix(".json"))
    return None


def next_step(state: State, src: str, now: float) -> Step:
    """Return what a source needs at time `now`."""
    source = state.sources.get(src)
    if source is None:
        return Step("train", 1)
    if src not in state.open:
        return Step("done", source.attempt)
    if source.until > now:
        return Step("wait", source.attempt)
    if source.status == "published":
        return Step("gate", source.attempt)
    return Step("park", source.attempt) if source.attempt >= MAX_ATTEMPTS else Step("train", source.attempt + 1)


def claim(registry: Registry, items: Sequence[Pending], *, now: float, lease_s: float) -> Claim | None:
    """Return the right to work on those of `items` (one model, `todo` train) that are still to be had.

    None if somebody else holds or has settled them all.
    """

    def make(state: State) -> dict[str, Any]:
        left = [item for item in items if next_step(state, item.src, now) == ("train", item.attempt)]
        if not left:
            raise Conflict("somebody else holds the source", rule="held")
        covers = {item.src: [item.attempt, item.key] for item in left[1:]}
        entry = _about(left[0], "claim", until=now + lease_s)
        return {**entry, "covers": covers} if covers else entry

    op_id = f"{items[0].src}.{items[0].attempt}.claim.{registry.new_id()}"
    try:
        entry = registry.append(items[0].model, make, op_id=op_id)
    except Conflict as error:
        if error.fields.get("rule") == "held":
            return None
        raise
    held = {entry["src"], *entry.get("covers", {})}
    return Claim(tuple(item for item in items if item.src in held), entry["until"])


def reject(
    registry: Registry,
    held: Claim,
    reason: str,
    *,
    problems: Sequence[Mapping[str, Any]] = (),
    src: str | None = None,
) -> None:
    """Record that the data cannot be trained on, for good: all of the claim, or its source `src` alone."""
    items = [item for item in held.items if src in (None, item.src)]
    shown = [dict(problem) for problem in problems[:MAX_PROBLEMS]]
    _settle(registry, items, "reject", reason=reason, problems=shown)


def fail(registry: Registry, held: Claim, reason: str, *, retry_at: float) -> bool:
    """Record that the attempt failed; return whether there will be another, at `retry_at` or later."""
    last = [item for item in held.items if item.attempt >= MAX_ATTEMPTS]
    rest = [item for item in held.items if item.attempt < MAX_ATTEMPTS]
    if last:
        _settle(registry, last, "park", reason=reason)
    if rest:
        _settle(registry, rest, "note", reason=reason, until=retry_at)
    return bool(rest)


def settle(registry: Registry, item: Pending) -> None:
    """Give a pending item of `todo` park or reject its outcome."""
    reason = item.reason or f"no outcome after {item.attempt} attempts"
    _settle(registry, [item], item.todo, reason=reason)


def _settle(registry: Registry, items: Sequence[Pending], op: str, **fields: Any) -> None:
    first, *others = items
    entry = _about(first, op, **fields)
    if others:
        entry["covers"] = {item.src: item.attempt for item in others}
    written = registry.append(first.model, lambda _: entry, op_id=f"{first.src}.{first.attempt}.{op}")
    if others and "covers" not in written:  # somebody gave the first its outcome alone: the others have none yet
        _settle(registry, others, op, **fields)


def _about(item: Pending, op: str, **fields: Any) -> dict[str, Any]:
    return {"op": op, "src": item.src, "attempt": item.attempt, "key": item.key, "kind": item.kind, **fields}


def listed(registry: Registry, model: str | None = None) -> Iterator[Entry]:
    """Yield the objects of the inbox, of one model or of all. Raises Transient, Denied."""
    tail = f"{model}/" if model else ""
    yield from registry.store.list(f"uploads/{tail}")
    yield from registry.store.list(f"jobs/{tail}")


def view(registry: Registry, job: str, *, now: float) -> JobView:
    """Return the job with that id. Raises InvalidName, NotFound."""
    model, _, start = job.partition(".")
    if not is_name(model) or len(start) != 16:
        raise InvalidName("a job id is a model name, a dot and 16 hex digits", field="job_id")
    state = registry.state(model)
    src = next((src for src in state.sources if src.startswith(start)), None)
    if src is not None:
        return _view(registry, state, src, now)
    for entry in listed(registry, model):
        inbox = parse_key(entry.key)
        if inbox and source_id(entry.key, entry.token).startswith(start):
            return _queued(inbox, entry, job)
    raise NotFound("no such job")


def views(registry: Registry, model: str, *, now: float) -> Iterator[JobView]:
    """Yield all jobs of a model: those that the log knows, then what waits in the inbox."""
    state = registry.state(model)
    for src in state.sources:
        yield _view(registry, state, src, now)
    for entry in listed(registry, model):
        inbox, src = parse_key(entry.key), source_id(entry.key, entry.token)
        if inbox and src not in state.sources:
            yield _queued(inbox, entry, job_id(model, src))


def _queued(inbox: Inbox, entry: Entry, job: str) -> JobView:
    return JobView(job, inbox.model, inbox.kind, entry.key, "queued", 0, None, None, "", (), entry.modified)


def _view(registry: Registry, state: State, src: str, now: float) -> JobView:
    source = state.sources[src]
    problems: tuple[Mapping[str, Any], ...] = ()
    if source.status == "rejected":
        problems = tuple(registry.ledger(state.model).entry(source.n).get("problems", ()))
    gate = state.versions[source.version].gate if source.version else None
    return JobView(
        job_id(state.model, src),
        state.model,
        source.kind,
        source.key,
        _status(source, now),
        source.attempt,
        source.version,
        gate,
        source.reason,
        problems,
        source.ts,
    )


def _status(source: Source, now: float) -> str:
    if source.status == "claimed":
        return "running" if source.until > now else "queued"
    return _STATUS[source.status]
