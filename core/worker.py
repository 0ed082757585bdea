"""Composition root of jobs: settings and a store become a Worker that answers events and reconciles.

Events are hints: each is looked up in the inbox, and whatever no event told of is found by `tick`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from core import inbox, jobs
from core.building import Builder
from core.dataset.limits import Limits
from core.errors import (
    ConfigError,
    Conflict,
    CoreError,
    DataRejected,
    FitFailed,
    IntegrityError,
    Missing,
    StoreError,
    Unavailable,
)
from core.inbox import Memo
from core.intake import Intake, OutOfRoom
from core.jobs import Claim, Pending
from core.keys import is_key
from core.ledger import Backoff
from core.promotion import promote
from core.registry import Registry
from core.retraining import MARGIN_S, OutOfTime, Workshop, told, why, work
from core.shelf import Shelf
from core.state import PRODUCTION
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.config import Settings
    from core.store import ObjectStore
    from core.telemetry import Telemetry

T = TypeVar("T")
INBOXES = ("uploads/", "jobs/")
ACTOR = "system:worker"
_SHOWN = {"claimed": "running", "published": "succeeded"}  # the words of a job's status
TIDY_S = 3600.0
MEND_S = 10.0  # how long an alias may point elsewhere than the log says, if its writer died or gave up
RETRY_S = 30.0  # how long a run that failed through no fault of its data rests
GRACE_S = 30.0  # a lease outlives the run's deadline by this
_DATA_FAULTS = (DataRejected, FitFailed, ConfigError)
_OVERTAKEN = ("fenced", "done", "exists", "unclaimed")


class Event(NamedTuple):
    """An object was created: its key, and the token of its generation if the event tells."""

    key: str
    token: str | None = None


class Outcome(NamedTuple):
    """What came of one event or source.

    `status` is promoted | staged | rejected | parked | failed | timeout | in_progress | done | overtaken | ignored
    | unavailable; the last means: try again later.
    """

    status: str
    key: str
    model: str = ""
    job_id: str = ""
    version: str = ""
    alias: str = ""
    reason: str = ""


class Worker:
    """Does the jobs of one store. Thread-safe: two threads at one source are as two machines are."""

    def __init__(
        self, shop: Workshop, *, telemetry: Telemetry, timer: Callable[[], float], lease_s: float, min_age_s: float
    ) -> None:
        self.shop = shop
        self._telemetry = telemetry
        self._timer = timer
        self._lease_s, self._min_age_s = lease_s, min_age_s
        self._memo = Memo()
        self._tidied: float | None = None
        self._mended = 0.0
        self._resting: dict[str, float] = {}  # source whose verdict failed → when to try again

    def handle(self, event: Event, *, deadline: float | None = None) -> Outcome:
        """Return what came of an event. Raises Unavailable if only a later delivery can do something about it.

        `deadline` (seconds since the epoch) is when the platform ends this call.
        """
        if not event.key.startswith(INBOXES) or jobs.parse_key(event.key) is None:
            return self._ignored(event)
        try:
            item = self._look(
                lambda: inbox.pending_at(self.shop.registry, event.key, now=self.shop.clock(), token=event.token)
            )
            if item is None:
                return self._nothing_to_do(event)
            outcomes = self._run(self._together(item), deadline)
        except StoreError as error:
            raise Unavailable("the store does not answer", retry_after_s=RETRY_S) from error
        except IntegrityError as error:  # no delivery mends a log; once it is mended, `tick` finds the upload
            self._broken(_model(event), error)
            return self._told(Outcome("failed", event.key, _model(event), reason=why(error)))
        outcome = next(found for found in outcomes if found.key == event.key)
        if outcome.status == "unavailable":
            raise Unavailable(outcome.reason, retry_after_s=RETRY_S)
        return outcome

    def tick(self, *, deadline: float | None = None) -> list[Outcome]:
        """Return what came of everything that waits: forgotten uploads, expired leases, missing verdicts.

        Raises Unavailable if the inbox cannot be listed.
        """
        now = self.shop.clock()
        try:
            found = self._look(partial(self._pending, memo=self._memo, on_broken=self._broken))
        except StoreError as error:
            raise Unavailable("the store does not answer", retry_after_s=RETRY_S) from error
        found = [item for item in found if self._resting.get(item.src, now) <= now]
        outcomes = [outcome for run in inbox.batch_of(found) for outcome in self._run(run, deadline)]
        for model in {outcome.model for outcome in outcomes}:
            self._count_jobs(model)
        if self._tidied is None or now - self._tidied >= TIDY_S:
            self._tidied = self._mended = now
            self._tidy(whole=True)
        elif not 0.0 <= now - self._mended < MEND_S:
            self._mended = now
            self._tidy(whole=False)
        return outcomes

    # -- finding -------------------------------------------------------------------------------------------

    def _ignored(self, event: Event) -> Outcome:
        """Own writes and side files make events too, and anybody may forge one: neither is an error."""
        usual = is_key(event.key) and event.key.startswith((*INBOXES, "reg/", "auth/"))
        self._telemetry.log("event_ignored", "info" if usual else "warning", key=event.key)
        self._telemetry.count("retraining_events_count", ("", "ignored"))
        return Outcome("ignored", event.key, reason="not in the inbox")

    def _nothing_to_do(self, event: Event) -> Outcome:
        model = _model(event)
        token = event.token or self._token(event.key)
        if token is None:
            return self._told(Outcome("ignored", event.key, model, reason="gone"))
        src = jobs.source_id(event.key, token)
        state = self.shop.registry.state(model)
        status = "in_progress" if src in state.open else "done"
        source = state.sources.get(src)
        version = (source.version if source else None) or ""
        outcome = Outcome(status, event.key, model, jobs.job_id(model, src), version)
        return self._told(outcome)

    def _token(self, key: str) -> str | None:
        try:
            return self.shop.shelf.store.head(key).token
        except Missing:
            return None

    def _look(self, action: Callable[[], T]) -> T:
        """Return what `action` reads, again after Transient."""
        return self.shop.shelf.backoff.call(action)

    def _pending(self, **options: Any) -> list[Pending]:
        return inbox.pending(self.shop.registry, now=self.shop.clock(), min_age_s=self._min_age_s, **options)

    def _together(self, item: Pending) -> tuple[Pending, ...]:
        """Return the run that the item belongs to: all new uploads of its model are trained on at once."""
        if item.todo != "train" or item.kind != "upload" or item.attempt > 1:
            return (item,)
        found = self._look(partial(self._pending, model=item.model))
        others = [other for other in found if other.src != item.src]
        return next(run for run in inbox.batch_of([item, *others]) if item in run)

    # -- doing ---------------------------------------------------------------------------------------------

    def _run(self, items: Sequence[Pending], deadline: float | None) -> list[Outcome]:
        """Return the outcome of each item; the one place that lets no exception but the process's end pass."""
        started = self._timer()
        try:
            outcomes = self._done(items, deadline)
        except Exception as error:  # noqa: BLE001 - the top of the worker
            outcomes = self._failed(items, error)
        if any(outcome.status not in ("in_progress", "done") for outcome in outcomes):
            self._telemetry.observe("job_duration_seconds", self._timer() - started, (items[0].model,))
        return [self._told(outcome) for outcome in outcomes]

    def _done(self, items: Sequence[Pending], deadline: float | None) -> list[Outcome]:
        item, registry = items[0], self.shop.registry
        if item.todo in ("park", "reject"):
            jobs.settle(registry, item)
            return [_about(item, "parked" if item.todo == "park" else "rejected", reason=item.reason)]
        if item.todo == "gate":
            found = promote(registry, self.shop.shelf, item.model, item.version or "")
            return [_about(item, _status(found.alias), version=found.version, alias=found.alias)]
        now = self.shop.clock()
        left = self._lease_s if deadline is None else deadline - now
        if left <= MARGIN_S:
            return [_about(each, "timeout", reason="no time left to start") for each in items]
        held = jobs.claim(registry, items, now=now, lease_s=min(self._lease_s, left + GRACE_S))
        if held is None:
            return [_about(each, "in_progress") for each in items]
        return self._worked(items, held, deadline)

    def _worked(self, items: Sequence[Pending], held: Claim, deadline: float | None) -> list[Outcome]:
        """Return the outcomes of a claim; items that it does not hold are somebody else's."""
        try:
            found = work(self.shop, held, deadline=deadline)
        except _DATA_FAULTS as error:
            self._blame(held, error)
        except (OutOfTime, OutOfRoom, MemoryError) as error:
            reason = why(error) if isinstance(error, CoreError) else "resources: out of memory"
            self._again(held, reason, rest_s=0.0)
        except Conflict as error:
            if error.fields.get("rule") not in _OVERTAKEN:
                raise
        else:
            self._telemetry.log("version_published", model=found.model, version=found.version, alias=found.alias)
        mine = {item.src for item in held.items}
        return [self._seen(item) if item.src in mine else _about(item, "in_progress") for item in items]

    def _blame(self, held: Claim, error: CoreError) -> None:
        """Reject the one source that is at fault; several are tried again one by one."""
        rest = self._still(held)
        if rest is None:
            return
        if len(rest.items) == 1:
            jobs.reject(self.shop.registry, rest, why(error), problems=told(error))
        else:
            jobs.fail(self.shop.registry, rest, why(error), retry_at=self.shop.clock())

    def _again(self, held: Claim, reason: str, *, rest_s: float) -> None:
        rest = self._still(held)
        if rest is not None:
            jobs.fail(self.shop.registry, rest, reason, retry_at=self.shop.clock() + rest_s)

    def _still(self, held: Claim) -> Claim | None:
        """Return the claim without sources that have their outcome, or went to a later attempt."""
        sources = self.shop.registry.state(held.model).sources
        open_now = [(item, sources[item.src]) for item in held.items]
        items = tuple(i for i, source in open_now if (source.status, source.attempt) == ("claimed", i.attempt))
        return held._replace(items=items) if items else None

    def _seen(self, item: Pending) -> Outcome:
        """Return the outcome of a source as the log has it now."""
        state = self.shop.registry.state(item.model)
        source = state.sources[item.src]
        if source.status == "claimed":
            told_early = source.attempt == item.attempt
            kind = "timeout" if source.reason.startswith("timeout") else "failed"
            return _about(item, kind if told_early else "overtaken", reason=source.reason)
        if source.status != "published" or source.version is None:
            return _about(item, source.status, reason=source.reason)
        if source.attempt != item.attempt:
            return _about(item, "overtaken", version=source.version)
        gate = state.versions[source.version].gate
        if gate is None:
            return _about(item, "in_progress", version=source.version)
        alias = PRODUCTION if gate.get("passed") else "staging"
        return _about(item, _status(alias), version=source.version, alias=alias, reason="; ".join(gate["reasons"]))

    def _failed(self, items: Sequence[Pending], error: Exception) -> list[Outcome]:
        """Return outcomes for what nobody expected: a fault of the store is left to the lease, others retried."""
        transient = isinstance(error, StoreError | Unavailable)
        reason = why(error) if isinstance(error, CoreError) else f"error: {type(error).__name__}"
        facts = {"model": items[0].model, "kind": type(error).__name__, "reason": reason, "where": _where(error)}
        self._telemetry.log("job_failed", "warning" if transient else "error", **facts)
        if transient:
            return [_about(item, "unavailable", reason=reason) for item in items]
        try:
            if items[0].todo != "train":
                self._resting[items[0].src] = self.shop.clock() + RETRY_S
                return [_about(item, "failed", reason=reason) for item in items]
            rest_s = RETRY_S if isinstance(error, IntegrityError) else 0.0
            self._again(Claim(tuple(items), 0.0), reason, rest_s=rest_s)
            return [self._seen(item) for item in items]
        except (CoreError, KeyError):
            return [_about(item, "failed", reason=reason) for item in items]

    # -- telling -------------------------------------------------------------------------------------------

    def _told(self, outcome: Outcome) -> Outcome:
        self._telemetry.count("retraining_events_count", (outcome.model, outcome.status))
        level = "info" if outcome.status in ("promoted", "staged", "done", "in_progress") else "warning"
        self._telemetry.log("job_outcome", level, **outcome._asdict())
        return outcome

    def _count_jobs(self, model: str) -> None:
        try:
            sources = self.shop.registry.state(model).sources.values()
        except CoreError:
            return
        for status, many in Counter(_SHOWN.get(source.status, source.status) for source in sources).items():
            self._telemetry.gauge("jobs_count", many, (model, status))

    def _broken(self, model: str, error: CoreError) -> None:
        self._telemetry.count("integrity_failures_count", (model,))
        self._telemetry.log("alert", "error", alert="log_broken", model=model, detail=error.message)

    def _tidy(self, *, whole: bool) -> None:
        """Repair alias documents and, if `whole`, collect dead bytes, as far as store and logs let us."""
        try:
            models = self.shop.registry.models()
        except CoreError as error:
            self._telemetry.log("tidy_failed", "warning", reason=why(error))
            return
        for model in models:
            try:
                mended = self.shop.registry.repair_aliases(model, aliases_only=not whole)
                swept = self.shop.registry.collect_garbage(model).keys if whole else ()
            except CoreError as error:
                self._telemetry.log("tidy_failed", "warning", model=model, reason=why(error))
            else:
                if mended or swept:
                    self._telemetry.log("tidied", model=model, mended=len(mended), removed=len(swept))


def handle_all(worker: Worker, hints: Iterable[tuple[str, str | None]], *, deadline: float) -> list[Outcome]:
    """Return what came of each object (key, token) of an event: what needs another delivery is `unavailable`."""
    outcomes = []
    for key, token in hints:
        try:
            outcomes.append(worker.handle(Event(key, token), deadline=deadline))
        except Unavailable as error:
            outcomes.append(Outcome("unavailable", key, reason=error.message))
    return outcomes


def _model(event: Event) -> str:
    found = jobs.parse_key(event.key)
    return found.model if found else ""


def _about(item: Pending, status: str, **facts: Any) -> Outcome:
    return Outcome(status, item.key, item.model, item.job_id, **facts)


def _status(alias: str) -> str:
    return "promoted" if alias == PRODUCTION else "staged"


def _where(error: BaseException) -> str:
    """Return the place an exception comes from, without any value: file name and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"


def build_workshop(
    settings: Settings,
    store: ObjectStore,
    *,
    actor: str,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    rng: random.Random | None = None,
    builder: Builder | None = None,
    scratch: str | None = None,
) -> Workshop:
    """Return what training works with, for a worker or for an operator at the command line."""
    rng = rng or random.Random()  # noqa: S311 - jitter and ids
    registry = Registry(store, clock=clock, sleep=sleep, rng=rng, actor=actor)
    intake = Intake(Shelf(store, Backoff(sleep, rng)), limits=Limits.of(settings), scratch=scratch)
    return Workshop(registry, intake, clock, builder or Builder())


def build_worker(
    settings: Settings,
    store: ObjectStore,
    *,
    telemetry: Telemetry,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    rng: random.Random | None = None,
    builder: Builder | None = None,
    n_jobs: int = 1,
    scratch: str | None = None,
) -> Worker:
    """Return the worker of a store; `n_jobs` is the number of threads that a fit may use."""
    builder = replace(builder or Builder(), n_jobs=n_jobs)
    shop = build_workshop(
        settings, store, actor=ACTOR, clock=clock, sleep=sleep, rng=rng, builder=builder, scratch=scratch
    )
    return Worker(
        shop, telemetry=telemetry, timer=timer, lease_s=settings.lease_s, min_age_s=settings.min_upload_age_s
    )
