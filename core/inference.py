"""The Predictor: which version answers for a model and a reference, loaded, proved and kept up to date."""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from core.errors import CoreError, IntegrityError, Missing, NotFound, StoreError, Unavailable
from core.keys import is_name, is_version
from core.tuples import NamedTuple
from core.versions import RETRY_S, Document, Loaded, Source, Timing, Versions

if TYPE_CHECKING:
    from core.model import Model
    from core.telemetry import Telemetry

PRODUCTION, PREVIOUS = "production", "previous"
ERROR_S = 1.0  # how long a failed cold start answers for those that come after it
CACHE_BYTES = 1 << 30
MAX_SLOTS = 1024
VERIFY_BYTES = 4 << 20  # how much of a cold-started artifact is checked at each refresh
T = TypeVar("T")


class Status(NamedTuple):
    """What one reference of one model does right now: status is ready | fallback | failed."""

    model: str
    alias: str
    version: str | None
    status: str


class _Slot:
    """One (model, reference). Written under `lock`; `arms` is replaced as a whole, so readers take no lock."""

    __slots__ = ("applied", "arms", "checked", "due", "error", "lock", "model", "ref", "retry", "seen", "verified")

    def __init__(self, model: str, ref: str) -> None:
        self.model, self.ref = model, ref
        self.lock = allocate_lock()
        self.arms: tuple[Loaded, ...] = ()
        self.error: CoreError | None = None
        self.seen = self.applied = -1  # the highest rev met, and the rev of `arms`; -1: none, or a fallback
        self.retry = 0.0  # when to try a document again that did not load
        self.checked = self.due = -1.0
        self.verified = 0  # bytes of `arms` checked so far, -1: all

    def is_due(self, now: float) -> bool:
        """Tell whether to look at the store; a clock that went back counts as due."""
        return now >= self.due or now < self.checked - 5.0

    def clear(self) -> None:
        """Serve nothing until the next look, which is due at once."""
        self.applied, self.due = -1, -1.0
        self.arms = ()

    def status(self) -> Status:
        """Return what the slot does now."""
        if not self.arms:
            return Status(self.model, self.ref, None, "failed")
        state = "ready" if self.applied >= 0 else "fallback"
        return Status(self.model, self.ref, self.arms[0].version, state)


class Predictor:
    """Serves versions by alias or id. Thread-safe; reads the store only when a reference is due for a look.

    One thread looks, the others go on with what they have; what serves is only replaced by what is sound.
    """

    def __init__(
        self,
        reader: Source,
        *,
        load: Callable[[Any, str], Model],
        telemetry: Telemetry,
        timing: Timing,
        refresh_s: float = 2.0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """`load(buffer, header_sha256)` is core.artifact.load."""
        self._versions = Versions(reader, load=load, telemetry=telemetry, timing=timing)
        self._telemetry, self._timing = telemetry, timing
        self._refresh_s, self._cache_bytes = refresh_s, cache_bytes
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._lock = allocate_lock()

    def run(self, model: str, ref: str, work: Callable[[Model], T]) -> tuple[T, Loaded]:
        """Return work(model) and the version that did it: one version for the whole of it.

        A page found damaged during `work` withdraws the version, and its replacement does the work.
        Raises NotFound, Unavailable and what `work` raises.
        """
        loaded = self.resolve(model, ref)
        try:
            return work(loaded.model), loaded
        except IntegrityError as error:
            self._withdraw(model, ref, loaded, error)
        loaded = self.resolve(model, ref)
        try:
            return work(loaded.model), loaded
        except IntegrityError as error:
            self._withdraw(model, ref, loaded, error)
            raise _none_sound() from error

    def resolve(self, model: str, ref: str = PRODUCTION) -> Loaded:
        """Return the version that answers now. Raises NotFound, Unavailable."""
        slot = self._slots.get((model, ref)) or self._slot(model, ref)
        arms = slot.arms
        if slot.is_due(self._timing.clock()) and slot.lock.acquire(blocking=not arms):
            try:
                now = self._timing.clock()
                if slot.is_due(now):
                    self._refresh(slot, now)
                arms = slot.arms
            finally:
                slot.lock.release()
        if len(arms) == 1:
            return arms[0]
        if not arms:
            error = slot.error  # once: another thread may be looking at the store
            raise _none_sound() if error is None else _anew(error)
        return _draw(arms, self._timing.draw())

    def target(self, model: str, ref: str) -> str:
        """Return the version that a reference points to, without loading it; of a damaged one what serves on.

        Raises NotFound, Unavailable, IntegrityError.
        """
        slot = self._slots.get((model, ref))
        if slot is not None and slot.arms and not slot.is_due(self._timing.clock()):
            return slot.arms[0].version
        try:
            return self._versions.document(model, ref).splits[0].version
        except (Missing, IndexError):
            raise NotFound("no such alias") from None
        except StoreError:
            raise Unavailable("the alias cannot be read now", retry_after_s=ERROR_S) from None
        except IntegrityError:
            if slot is not None and slot.arms:
                return slot.arms[0].version
            raise

    def status(self) -> list[Status]:
        """Return the state of every reference that was asked for and exists."""
        slots = list(self._slots.values())
        return [slot.status() for slot in slots if slot.arms or isinstance(slot.error, Unavailable)]

    def _slot(self, model: str, ref: str) -> _Slot:
        if not is_name(model) or not is_name(ref):
            raise NotFound("no such model, alias or version")
        with self._lock:
            if len(self._slots) >= MAX_SLOTS:
                for key in [key for key, slot in self._slots.items() if not slot.arms]:
                    del self._slots[key]
            return self._slots.setdefault((model, ref), _Slot(model, ref))

    def _held(self) -> Iterator[Loaded]:
        for slot in list(self._slots.values()):
            yield from slot.arms

    # from here on the caller holds slot.lock

    def _refresh(self, slot: _Slot, now: float) -> None:
        """Look at the store once, and set the slot up accordingly."""
        wait = self._refresh_s
        try:
            self._apply(slot, self._document(slot), now)
            slot.error = None
        except (Missing, NotFound):
            self._missing(slot)
        except (StoreError, IntegrityError, Unavailable) as error:
            self._failed(slot, error)
            wait = wait if slot.arms else max(wait, ERROR_S)
        # jitter: processes that started together must not come back together
        slot.checked, slot.due = now, now + wait * (0.75 + 0.5 * self._timing.draw())

    def _document(self, slot: _Slot) -> Document:
        try:
            return self._versions.document(slot.model, slot.ref)
        except Missing:
            # a version's own document is written last and may be missing: an alias may know the version
            for loaded in self._held():
                if loaded.name == slot.model and loaded.version == slot.ref:
                    return Document(0, (loaded.split._replace(weight=1.0),))
            raise

    def _missing(self, slot: _Slot) -> None:
        if slot.arms:
            self._alert(slot, "alias_document_missing")
        else:
            what = "version" if is_version(slot.ref) else "alias"
            slot.error = NotFound(f"no such model, or it has no such {what}")

    def _failed(self, slot: _Slot, error: CoreError) -> None:
        self._telemetry.count("model_refresh_failures_count", (slot.model,))
        self._telemetry.log("refresh_failed", "warning", model=slot.model, ref=slot.ref, code=error.code)
        if not slot.arms:
            retry = error.fields.get("retry_after_s", ERROR_S)
            slot.error = Unavailable("the model cannot be loaded now", retry_after_s=retry)

    def _apply(self, slot: _Slot, document: Document, now: float) -> None:
        if document.rev < slot.seen:
            self._alert(slot, "alias_document_regressed")
            return
        slot.seen = document.rev
        if not document.splits:  # a retired version
            self._report(slot, {arm.version for arm in slot.arms}, ())
            slot.clear()
            raise NotFound("retired")
        if slot.arms and document.rev == slot.applied:
            self._verify_more(slot)
        if not slot.arms:
            self._start(slot, document, now)
        elif document.rev != slot.applied and now >= slot.retry:
            self._swap(slot, document, now)

    def _start(self, slot: _Slot, document: Document, now: float) -> None:
        """Cold: serve what loads of the document; for `production`, else what `previous` says."""
        arms = self._versions.sound(slot.model, document.splits, self._held())
        whole = len(arms) == len(document.splits)
        if not arms and slot.ref == PRODUCTION:
            self._alert(slot, "falling_back_to_previous")
            try:
                before = self._versions.document(slot.model, PREVIOUS)
            except Missing:
                raise _none_sound() from None
            arms = self._versions.sound(slot.model, before.splits, self._held())
        if not arms:
            raise _none_sound()
        self._install(slot, arms, document.rev if whole else -1)
        slot.retry = 0.0 if whole else now + RETRY_S

    def _swap(self, slot: _Slot, document: Document, now: float) -> None:
        """Warm: all of the new document, checked to the last page, or nothing of it."""
        arms = self._versions.sound(slot.model, document.splits, self._held(), whole=True)
        if len(arms) == len(document.splits):
            self._install(slot, arms, document.rev)
            slot.verified = -1
        else:
            slot.retry = now + RETRY_S / 3

    def _install(self, slot: _Slot, arms: Sequence[Loaded], rev: int) -> None:
        old, slot.arms, slot.applied = slot.arms, tuple(arms), rev
        slot.verified = 0
        versions = {arm.version for arm in arms}
        self._report(slot, {arm.version for arm in old} - versions, versions)
        event = "model_changed" if old else "model_loaded"
        self._telemetry.log(event, model=slot.model, ref=slot.ref, rev=rev, version=",".join(sorted(versions)))
        if slot.ref == PRODUCTION:
            self._score(slot.model, arms[0].model.manifest)
        self._evict(slot)

    def _report(self, slot: _Slot, gone: Iterable[str], here: Iterable[str]) -> None:
        for version in gone:
            self._telemetry.gauge("model_loaded", None, (slot.model, slot.ref, version))
        for version in here:
            self._telemetry.gauge("model_loaded", 1.0, (slot.model, slot.ref, version))

    def _score(self, name: str, manifest: Mapping[str, Any]) -> None:
        metrics = manifest.get("facts", {}).get("metrics", {})
        for metric, value in metrics.items():
            if isinstance(value, int | float):
                self._telemetry.gauge("model_score", float(value), (name, metric))
                if metric == "accuracy":
                    self._telemetry.gauge("model_accuracy", float(value), (name,))

    def _evict(self, keep: _Slot) -> None:
        """Drop the slots that were looked at longest ago until the rest fits; they load again when asked for."""
        others = [slot for slot in list(self._slots.values()) if slot.arms and slot is not keep]
        others.sort(key=lambda slot: slot.checked, reverse=True)
        counted: dict[int, int] = {}
        for slot in [keep, *others]:
            counted |= {id(arm.model): arm.size_bytes for arm in slot.arms}
            if (
                sum(counted.values()) > self._cache_bytes
                and slot is not keep
                and slot.lock.acquire(blocking=False)
            ):
                self._report(slot, {arm.version for arm in slot.arms}, ())
                slot.clear()
                slot.lock.release()

    def _verify_more(self, slot: _Slot) -> None:
        """Check the next pages of what was started cold, so that all of it has been checked after a while."""
        if slot.verified < 0:
            return
        start, stop = slot.verified, slot.verified + VERIFY_BYTES
        slot.verified = stop
        for arm in slot.arms:
            size = int(arm.model.file.header["data_size"])
            try:
                arm.model.file.verify(min(start, size), min(stop, size))
            except IntegrityError as error:
                self._drop(slot, arm, error)
                return
        if all(stop >= int(arm.model.file.header["data_size"]) for arm in slot.arms):
            slot.verified = -1

    def _withdraw(self, model: str, ref: str, loaded: Loaded, error: IntegrityError) -> None:
        slot = self._slot(model, ref)
        with slot.lock:
            if any(arm.model is loaded.model for arm in slot.arms):
                self._drop(slot, loaded, error)

    def _drop(self, slot: _Slot, loaded: Loaded, error: IntegrityError) -> None:
        """Take a damaged version out of service; the next look at the store, due at once, finds a replacement."""
        self._versions.condemn(slot.model, loaded.split, error)
        self._report(slot, (loaded.version,), ())
        rest = tuple(arm for arm in slot.arms if arm.model is not loaded.model)
        slot.clear()
        slot.arms = rest

    def _alert(self, slot: _Slot, kind: str) -> None:
        self._telemetry.log("alert", "error", alert=kind, model=slot.model, ref=slot.ref)


def _anew(error: CoreError) -> CoreError:
    """Return an equal error: one that is raised again and again keeps every frame, and so every body, it met."""
    return type(error)(error.message, **error.fields)


def _none_sound() -> Unavailable:
    return Unavailable("no sound version of this model can be loaded now", retry_after_s=RETRY_S)


def _draw(arms: Sequence[Loaded], chance: float) -> Loaded:
    mark = chance * sum(arm.split.weight for arm in arms)
    for arm in arms:
        mark -= arm.split.weight
        if mark < 0.0:
            return arm
    return arms[0]
