"""One job from end to end: claim → pinned read → validate → train → prove → publish → gate → alias.

Every step can be repeated: artifacts lie under the attempt, each operation's id derives from the source, and a
version that was published without a verdict is taken up again at the gate. What the data is to blame for is a
rejection; what the moment is to blame for (store, memory, time) leaves the source to a later attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from core import corpus, jobs
from core.building import Builder, Built, package_version, version_id
from core.corpus import Corpus, Known
from core.dataset.checks import check_training
from core.dataset.leakage import check_new_leakage
from core.dataset.reading import read_table
from core.dataset.snapshot import write_snapshot
from core.dataset.table import Dataset, concat
from core.errors import Conflict, CoreError, DataRejected
from core.evaluation import headline
from core.intake import Intake
from core.jobs import Claim, Pending
from core.ledger import digest_of
from core.model import Model
from core.promotion import STAGING, Promotion, promote
from core.registry import Registry
from core.shelf import Shelf, pointed_at, spec_of
from core.spec import ModelSpec
from core.state import PRODUCTION, State
from core.suspicion import examine
from core.tuples import NamedTuple

MARGIN_S = 10.0  # a run stops so long before its deadline, to record that it did
REPLANS = 3
_FILE_LEASE_S = 900.0


class OutOfTime(CoreError):
    """The run's deadline is near."""

    code = "timeout"


class TrainOutcome(NamedTuple):
    """What became of a source that was published: the alias of its version ("": none), `gate` the verdict."""

    model: str
    version: str
    alias: str
    metrics: Mapping[str, Any]
    gate: Mapping[str, Any]
    src: str


class Base(NamedTuple):
    """The version that a retraining starts from: the champion, else the newest one."""

    version: str
    model: Model
    spec: ModelSpec
    known: Known


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a run works with."""

    registry: Registry
    intake: Intake
    clock: Callable[[], float]
    builder: Builder = field(default_factory=Builder)

    @property
    def shelf(self) -> Shelf:
        """Where published versions are read back from."""
        return self.intake.shelf


def work(shop: Workshop, held: Claim, *, deadline: float | None = None) -> TrainOutcome:
    """Return what became of the claim's sources: one version for all of them.

    Sources whose own file cannot be read are rejected on the way. Raises DataRejected, ConfigError or FitFailed
    for what is wrong with all of them, Conflict (rule `fenced` or `done`) if a later attempt took over, OutOfTime,
    OutOfRoom, and the StoreErrors.
    """
    check = stopper(shop.clock, deadline)
    for _ in range(REPLANS):
        check()
        base = find_base(shop, held.model)
        held, uploads = _read_uploads(shop, held, base)
        held, uploads = _trusted(shop, held, base, uploads)
        rows = corpus.unite(base.known, uploads, base.spec)
        _check_news(rows, base, held, uploads=bool(uploads))
        checked = check_training(concat([rows.train, rows.holdout]), base.spec, known_classes=base.model.classes)
        builder = replace(shop.builder, check=check)
        doubts = examine(base.model, base.known, uploads) if uploads else None
        built = builder.build(base.spec, rows, checked, champion=base.model, suspicion=doubts)
        if _base_name(shop.registry.state(held.model)) == base.version:
            break  # else another run was first: learn from what it knows too, lest its rows get lost
    check()
    version = publish(shop, held, base.spec, rows, built)
    return _outcome(held.model, held.src, built, promote(shop.registry, shop.shelf, held.model, version))


def stopper(clock: Callable[[], float], deadline: float | None) -> Callable[[], None]:
    """Return a function that raises OutOfTime once fewer than MARGIN_S are left."""

    def check() -> None:
        if deadline is not None and clock() > deadline - MARGIN_S:
            raise OutOfTime("the run would not end before its deadline")

    return check


# --- what to learn from


def find_base(shop: Workshop, model: str) -> Base:
    """Return the version that a retraining starts from. Raises DataRejected if there is none."""
    state = shop.registry.state(model)
    name = _base_name(state)
    if name is None:
        raise DataRejected("no_model", "there is no version of this model to start from; train it first")
    record = state.versions[name]
    found = shop.shelf.model(record)
    spec = spec_of(found)
    return Base(name, found, spec, shop.shelf.known(record, spec))


def _base_name(state: State) -> str | None:
    """Return the version in production, else in staging, else the newest that is not retired."""
    for alias in (PRODUCTION, STAGING):
        name = pointed_at(state, alias)
        if name is not None:
            return name
    live = [name for name, version in state.versions.items() if version.retired is None]
    return max(live, key=lambda name: state.versions[name].n, default=None)


def _check_news(rows: Corpus, base: Base, held: Claim, *, uploads: bool) -> None:
    """Raise DataRejected for an upload with too few new rows, or older than what is in use already."""
    if not uploads:
        return
    least, new = base.spec.retrain.min_rows, rows.counts["new"]
    if new < least:
        told = ", ".join(f"{count} {name}" for name, count in rows.counts.items())
        raise DataRejected("rows", f"{new} rows are new, at least {least} are needed ({told})")
    newest = max(item.modified for item in held.items)
    in_use = max((float(part.get("modified", 0.0)) for part in base.known.parts), default=0.0)
    if base.spec.retrain.data == "upload" and newest < in_use:
        raise DataRejected("superseded", "a newer upload was trained on already")


def _read_uploads(shop: Workshop, held: Claim, base: Base) -> tuple[Claim, list[Dataset]]:
    """Return the rows of each upload of the claim, and the claim without the sources that were rejected.

    Raises DataRejected if there is only one source and it is bad.
    """
    datasets = []
    learnt = _learnt(shop.registry.state(held.model))
    for item in held.items:
        try:
            found, content = shop.intake.read(item, base.spec)
            if content in learnt:
                raise DataRejected("duplicate", f"version {learnt[content]} has learnt from this file already")
            if found is not None and not base.spec.gate.allow_leakage:
                check_new_leakage(found, base.known.train, base.spec.task)
        except DataRejected as rejection:
            rest = held.without(item.src)
            if rest is None:
                raise
            jobs.reject(shop.registry, held, why(rejection), problems=told(rejection), src=item.src)
            held = rest
            continue
        if found is not None:
            datasets.append(found)
            held = held.having_read(item.src, content)
    return held, datasets


def _learnt(state: State) -> dict[str, str]:
    """Return which version learnt from an upload, by the sha256 of its bytes.

    A file that comes again, copied, renamed or touched, is the same file: it must not undo a rollback.
    """
    learnt: dict[str, str] = {}
    for name, version in state.versions.items():
        for part in version.parts:
            learnt |= {content: name for content in part.get("uploads", ()) if content not in learnt}
    return learnt


def _trusted(shop: Workshop, held: Claim, base: Base, uploads: list[Dataset]) -> tuple[Claim, list[Dataset]]:
    """Return claim and uploads without those that look wrong, which are left to runs of their own.

    So a bad upload holds no other back. If all look wrong, the first is gone on with, alone.
    """
    if len(uploads) < 2 or len(uploads) != len(held.items):
        return held, uploads
    doubtful = [bool(examine(base.model, base.known, [upload]).reasons) for upload in uploads]
    if all(doubtful):
        doubtful[0] = False
    for sets_apart, item in zip(doubtful, held.items, strict=True):
        if sets_apart:
            alone = held._replace(items=(item,))
            jobs.fail(shop.registry, alone, "suspicion: to be looked at alone", retry_at=shop.clock())
    trusted = tuple(item for item, bad in zip(held.items, doubtful, strict=True) if not bad)
    return held._replace(items=trusted), [upload for upload, bad in zip(uploads, doubtful, strict=True) if not bad]


def why(error: CoreError) -> str:
    """Return the reason that the log gives for an error: its kind, then its sentence."""
    kind = error.fields.get("reason") or error.code
    return f"{kind}: {error.message}"[:500]


def told(error: CoreError) -> list[dict[str, Any]]:
    """Return the problems that an error carries, as the log has them."""
    return [problem.as_dict() for problem in getattr(error, "problems", ())]


# --- publishing


def publish(shop: Workshop, held: Claim, spec: ModelSpec, rows: Corpus, built: Built) -> str:
    """Return the version id under which the artifact and its rows are published, each byte read back first.

    Raises Conflict (rule `fenced` or `done`) if a later attempt took over.
    """
    registry, model, src, attempt = shop.registry, held.model, held.src, held.attempt
    modified = max(item.modified for item in held.items)
    uploads = sorted({item.content for item in held.items} - {""})
    parts = [dict(part) for part in rows.kept]
    for snapshot in built.snapshots:
        key, sha256 = registry.put_artifact(model, src, attempt, snapshot.data)
        about: dict[str, Any] = {"rows": snapshot.rows, "kind": snapshot.kind, "modified": modified}
        if uploads and snapshot.kind == corpus.TRAIN:
            about["uploads"] = uploads
        parts.append({"key": key, "sha256": sha256, **about})
    key, _ = registry.put_artifact(model, src, attempt, built.data)
    version = version_id(src, spec)
    registry.publish(
        model,
        src=src,
        attempt=attempt,
        version=version,
        manifest_sha256=built.model.file.header_sha256,
        artifact_key=key,
        size=len(built.data),
        metrics=headline(built.metrics),
        parts=parts,
        covers=held.covers,
        op_id=held.op_id("publish"),
    )
    return version


def _outcome(model: str, src: str, built: Built, found: Promotion) -> TrainOutcome:
    return TrainOutcome(model, found.version, found.alias, headline(built.metrics), found.gate, src)


# --- an operator's own training


def train_from_file(
    shop: Workshop,
    spec: ModelSpec,
    path: str,
    *,
    target: str = PRODUCTION,
    progress: Callable[[int], None] | None = None,
) -> TrainOutcome:
    """Return the version of the data in `path`, on a holdout of its own; the same data and spec give the same.

    The champion, if it can answer these rows, is judged on that holdout too. Raises DataRejected, ConfigError,
    FitFailed, NotFound, and what the registry raises.
    """
    dataset = read_table(path, spec, limits=shop.intake.limits, progress=progress)
    checked = check_training(dataset, spec)
    digest = digest_of(write_snapshot(dataset))
    state = shop.registry.state(spec.name)
    src = _source_of(state, spec, digest)
    version = _published(state, src)
    if version is None:
        rows = corpus.first(checked.dataset, spec)
        built = shop.builder.build(spec, rows, checked)
        version = _publish_file(shop, spec, src, rows, built)
    found = promote(shop.registry, shop.shelf, spec.name, version, target=target)
    record = shop.registry.state(spec.name).versions[version]
    return TrainOutcome(spec.name, version, found.alias, dict(record.metrics), found.gate, src)


def _publish_file(shop: Workshop, spec: ModelSpec, src: str, rows: Corpus, built: Built) -> str:
    """Return the version id; that of another run of the same file, if it was faster."""
    try:
        return publish(shop, _claim_file(shop, spec, src), spec, rows, built)
    except Conflict:
        version = _published(shop.registry.state(spec.name), src)
        if version is None:
            raise
        return version


def _source_of(state: State, spec: ModelSpec, digest: str) -> str:
    """Return the source that a file is: a new one where an earlier try was given up or its version retired."""
    for n in count():
        text = f"file|{spec.digest()}|{digest}|{package_version()}|{n}"
        src = hashlib.sha256(text.encode()).hexdigest()[:32]
        source = state.sources.get(src)
        free = source is None or source.status == "claimed"
        version = _published(state, src)
        if free or (version is not None and state.versions[version].retired is None):
            break
    return src


def _published(state: State, src: str) -> str | None:
    source = state.sources.get(src)
    return source.version if source else None


def _claim_file(shop: Workshop, spec: ModelSpec, src: str) -> Claim:
    """Return the next attempt at a file's source, whoever holds it: the fold lets the latest attempt publish.

    The key is that of no object: if this run dies, the reconciler finds the source gone and closes it.
    """
    now = shop.clock()
    key, until = f"file/{src}", now + _FILE_LEASE_S

    def make(state: State) -> dict[str, Any]:
        attempt = state.sources[src].attempt + 1 if src in state.sources else 1
        return {"op": "claim", "src": src, "attempt": attempt, "until": until, "key": key, "kind": "file"}

    entry = shop.registry.append(spec.name, make, op_id=f"{src}.claim.{shop.registry.new_id()}")
    item = Pending(spec.name, "file", key, None, src, "train", entry["attempt"], modified=now)
    return Claim((item,), until)
