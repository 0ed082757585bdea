"""Published versions read back from the store: their models, specs and rows."""

from __future__ import annotations

from core import artifact, corpus
from core.corpus import HOLDOUT, Known
from core.dataset.snapshot import read_snapshot
from core.dataset.table import Dataset
from core.errors import ConfigError, DataRejected, IntegrityError
from core.ledger import Backoff, digest_of
from core.model import Model
from core.spec import ModelSpec, from_dict
from core.state import State, Version
from core.store import ObjectStore


class Shelf:
    """Reads whole objects, again after Transient; whatever does not match the log is an IntegrityError."""

    def __init__(self, store: ObjectStore, backoff: Backoff) -> None:
        self.store = store
        self.backoff = backoff

    def read(self, key: str) -> bytes:
        """Return an object. Raises Missing, Denied, Transient."""
        return self.backoff.call(lambda: self.store.get(key)).data

    def model(self, version: Version) -> Model:
        """Return the version's model, every page of it checked, and proved by its golden replay."""
        model = artifact.load(self.read(version.artifact_key), version.manifest_sha256)
        model.file.verify_all()
        model.replay()
        return model

    def known(self, version: Version, spec: ModelSpec) -> Known:
        """Return the rows that the version was made of. Raises DataRejected if it was published without."""
        if not version.parts:
            raise DataRejected("no_data", "the version was published without the rows it was made of")
        return corpus.load(version.parts, spec, self.read)

    def holdout(self, version: Version, spec: ModelSpec) -> Dataset:
        """Return the frozen rows that the version is judged by."""
        for part in version.parts:
            if part["kind"] == HOLDOUT:
                data = self.read(part["key"])
                if digest_of(data) != part["sha256"]:
                    raise IntegrityError("a snapshot of the data does not match the log", key=part["key"])
                return read_snapshot(data, spec)
        raise DataRejected("no_data", "the version was published without the rows it is judged by")


def spec_of(model: Model) -> ModelSpec:
    """Return the spec that a model was trained from. Raises DataRejected if its manifest holds none."""
    try:
        return from_dict(model.manifest["facts"]["spec"])
    except (KeyError, TypeError, ConfigError) as error:
        raise DataRejected("no_spec", "the version was published without a spec that can be read") from error


def holdout_sha256(version: Version) -> str | None:
    """Return the sha256 of the holdout that a version is judged by, None if it has none."""
    return next((part["sha256"] for part in version.parts if part["kind"] == HOLDOUT), None)


def pointed_at(state: State, alias: str) -> str | None:
    """Return the version with the largest share of an alias, None if there is no such alias."""
    if alias not in state.aliases:
        return None
    return max(state.aliases[alias].splits, key=lambda split: split.weight).version
