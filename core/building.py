"""From a corpus to a proved artifact: check, train, export, compare with scikit-learn, measure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from core import artifact, evaluation, parity
from core.artifact import FORMAT_VERSION
from core.corpus import HOLDOUT, TRAIN, Corpus
from core.dataset.checks import Checked
from core.dataset.snapshot import write_snapshot
from core.dataset.table import Dataset
from core.evaluation import Metrics
from core.gate import primary_metric
from core.ledger import digest_of
from core.model import Model
from core.spec import ModelSpec
from core.suspicion import Suspicion
from core.training import Progress, TrainedModel, train
from core.tuples import NamedTuple

Train = Callable[..., TrainedModel]
GOLDEN_ROWS = 8


class Snapshot(NamedTuple):
    """Rows as they are kept: the bytes, their sha256, how many, and what for (train | holdout)."""

    data: bytes
    sha256: str
    rows: int
    kind: str


class Built(NamedTuple):
    """A model that is ready to be published: its artifact, the rows to keep with it, its metrics."""

    model: Model
    data: bytes
    snapshots: tuple[Snapshot, ...]
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Builder:
    """How models are built here. `check` is called between the steps and may raise to stop."""

    train: Train = train
    n_jobs: int = 1
    progress: Progress | None = None
    check: Callable[[], None] = lambda: None

    def build(
        self,
        spec: ModelSpec,
        rows: Corpus,
        checked: Checked,
        *,
        champion: Model | None = None,
        suspicion: Suspicion | None = None,
    ) -> Built:
        """Return the model learnt from `rows.train` and measured on `rows.holdout`.

        `champion` is measured beside it on the uploaded rows that were set aside; `suspicion` is kept in the facts
        for the gate. The same spec, rows and library versions give the same bytes. Raises DataRejected,
        ConfigError, FitFailed.
        """
        primary_metric(spec.gate, spec.task)
        trained = self._train(spec, _of_classes(rows.train, spec, checked))
        self.check()
        snapshots = tuple(_snapshots(rows))
        golden = rows.holdout.batch.take(range(min(GOLDEN_ROWS, rows.holdout.n_rows)))
        trial = artifact.load(artifact.export(trained.draft({}, golden)))
        proof = parity.prove(trial, trained.reference, rows.holdout.batch, bound=parity.bound_of(trial))
        self.check()
        metrics = evaluation.evaluate_on(trial, rows.holdout)
        facts = {
            "metrics": evaluation.headline(metrics),
            "evaluation": metrics,
            "parity": proof,
            "data": _data_facts(rows, checked, snapshots),
            "upload_holdout": _aside(rows.aside, trial, champion),
            "polysky": package_version(),
        }
        if suspicion is not None:
            facts["suspicion"] = suspicion.to_dict()
        data = artifact.export(trained.draft(facts, golden))
        model = artifact.load(data)
        model.replay()
        return Built(model, data, snapshots, metrics)

    def _train(self, spec: ModelSpec, rows: Dataset) -> TrainedModel:
        return self.train(spec, rows, n_jobs=self.n_jobs, progress=self.progress, check=self.check)


def _of_classes(rows: Dataset, spec: ModelSpec, checked: Checked) -> Dataset:
    """Return the rows without those of classes that the check dropped."""
    if spec.task != "classification" or spec.labels.rare != "drop":
        return rows
    return rows.take([i for i, label in enumerate(rows.labels or ()) if label in checked.classes])


def _snapshots(rows: Corpus) -> list[Snapshot]:
    """Return the rows that no part holds yet, as they will be kept."""
    wanted = [] if rows.fresh is None else [(rows.fresh, TRAIN)]
    if not any(part["kind"] == HOLDOUT for part in rows.kept):
        wanted.append((rows.holdout, HOLDOUT))
    written = [(write_snapshot(dataset), dataset.n_rows, kind) for dataset, kind in wanted]
    return [Snapshot(data, digest_of(data), n_rows, kind) for data, n_rows, kind in written]


def _data_facts(rows: Corpus, checked: Checked, snapshots: Collection[Snapshot]) -> dict[str, Any]:
    parts = [*rows.kept, *(snapshot._asdict() for snapshot in snapshots)]
    return {
        "train_rows": rows.train.n_rows,
        "holdout_rows": rows.holdout.n_rows,
        "uploads": dict(rows.counts),
        "parts": [{key: part[key] for key in ("sha256", "rows", "kind")} for part in parts],
        "classes": dict(checked.classes),
        "duplicates": checked.duplicates,
        "conflicts": checked.conflicts,
        "notes": list(checked.notes),
    }


def _aside(aside: Dataset | None, challenger: Model, champion: Model | None) -> dict[str, Any] | None:
    """Return both models' figures on the uploaded rows that were set aside: to inform, never to decide."""
    if aside is None or not aside.n_rows:
        return None
    models = {"challenger": challenger, "champion": champion}
    return {
        name: evaluation.headline(evaluation.evaluate_on(model, aside, resamples=0))
        for name, model in models.items()
        if model is not None
    }


def package_version() -> str:
    """Return the version of this package, "0" where it runs without being installed."""
    try:
        return version("polysky")
    except PackageNotFoundError:
        return "0"


def version_id(src: str, spec: ModelSpec) -> str:
    """Return the one version that a source can become under a spec and this code."""
    text = f"{src}|{spec.digest()}|{FORMAT_VERSION}|{package_version()}"
    return "v-" + hashlib.sha256(text.encode()).hexdigest()[:12]
