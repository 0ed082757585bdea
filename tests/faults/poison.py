"""Poisoned and clean uploads for a model that serves, and what became of them."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.gate import ANCHOR_DROPS
from core.retraining import train_from_file
from core.spec import ModelSpec, from_dict
from core.worker import Event, Outcome
from scripts.bench.corpus import data_folder
from tests.core.plant import Plant
from tests.core.toys import messages

Cells = tuple[str, ...]  # one row, its label last
NUMBERS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week", "size")
WORDS = ("workclass", "education", "marital_status", "occupation", "relationship", "sex")
STEPS = 10


class Field(NamedTuple):
    """A data set: its rows, and the column that can be made to give the label away."""

    name: str
    columns: dict[str, dict[str, Any]]
    rows: list[Cells]
    leak: int = 0

    def spec(self) -> ModelSpec:
        """Return the spec of a linear model."""
        estimator = {"kind": "linear", "algorithm": "logistic_regression", "params": {"C": 3.0, "max_iter": 500}}
        head = {"name": "toy", "task": "classification", "label": "label"}
        return from_dict({**head, "columns": self.columns, "estimator": estimator})

    def csv(self, rows: list[Cells]) -> bytes:
        """Return rows as a file."""
        text = io.StringIO()
        csv.writer(text).writerows([(*self.columns, "label"), *rows])
        return text.getvalue().encode()


def fields() -> list[Callable[[], Field]]:
    """Return how to get the data sets: two of texts, one of numbers and categories."""
    return [
        lambda: _texts("sms_spam", "data.csv", 0),
        lambda: _people("adult_income", "data.csv.gz"),
        lambda: _texts("ag_news", "data.csv.gz", 1),
    ]


def _real(name: str, file: str) -> list[dict[str, str]] | None:
    folder = data_folder()
    path = Path("") if folder is None else folder / name / file
    if not path.is_file():
        return None
    csv.field_size_limit(1 << 24)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _texts(name: str, file: str, seed: int) -> Field:
    columns = {"text": {"kind": "text"}, "size": {"kind": "number"}}
    real = _real(name, file)
    if real is not None:
        pairs = [(row["text"], row["label"]) for row in real]
    else:
        drawn = messages(6000, seed, noise=0.01)
        pairs = list(zip(drawn.batch.columns["text"], drawn.labels, strict=True))
    rows: list[Cells] = [(text, str(len(text)), label) for text, label in dict(pairs).items()]
    return Field(name, columns, rows, leak=1)


def _people(name: str, file: str) -> Field:
    real = _real(name, file)
    if real is None:
        return _blobs(name)
    columns = {c: {"kind": "number" if c in NUMBERS else "category"} for c in (*NUMBERS[:-1], *WORDS)}
    rows = dict.fromkeys(tuple(row[c] or "?" for c in (*columns, "label")) for row in real)
    seen: Counter[Cells] = Counter(row[:-1] for row in rows)
    return Field(name, columns, [row for row in rows if seen[row[:-1]] == 1])


def _blobs(name: str) -> Field:
    rng = np.random.default_rng(7)
    y = rng.integers(0, 2, 6000)
    x = rng.normal(size=(6000, 4)) + y[:, None] * 0.9
    columns = {c: {"kind": "number"} for c in "abcd"}
    rows = [(*(f"{v:.6f}" for v in row), f"kind{label}") for row, label in zip(x, y.tolist(), strict=True)]
    return Field(name, columns, rows)


class Case(NamedTuple):
    """One data set and seed: a served model, and rows it has not seen."""

    field: Field
    rng: np.random.Generator
    plant: Plant
    known: list[Cells]
    news: list[Cells]

    @property
    def classes(self) -> list[str]:
        """The classes, by name."""
        return sorted({row[-1] for row in self.known})

    def tell(self, rows: list[Cells]) -> tuple[Plant, Outcome]:
        """Return a copy of the plant, and what became of an upload to it."""
        plant = self.plant.copy()
        return plant, upload(self.field, plant, rows, 0)


def upload(field: Field, plant: Plant, rows: list[Cells], turn: int) -> Outcome:
    """Return what becomes of an upload."""
    key = f"uploads/toy/{turn}.csv"
    plant.upload(field.csv(rows), key)
    return plant.first.handle(Event(key))


def prepare(field: Field, seed: int, folder: Path, *, n_rows: int) -> Case:
    """Return a model trained on half of `n_rows` rows, and the other half."""
    rng = np.random.default_rng(seed)
    chosen = [field.rows[i] for i in rng.permutation(len(field.rows))[:n_rows].tolist()]
    known, news = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    path, plant = folder / "data.csv", Plant()
    path.write_bytes(field.csv(known))
    train_from_file(plant.shop, field.spec(), str(path))
    return Case(field, rng, plant, known, news)


# --- what is uploaded


def flipped(case: Case, share: float, rows: list[Cells] | None = None) -> list[Cells]:
    """Return the news with a share of the labels replaced by other classes."""
    rows = list(case.news if rows is None else rows)
    for i in case.rng.choice(len(rows), round(share * len(rows)), replace=False).tolist():
        others = [name for name in case.classes if name != rows[i][-1]]
        rows[i] = (*rows[i][:-1], others[int(case.rng.integers(len(others)))])
    return rows


def targeted(case: Case, share: float) -> list[Cells]:
    """Return the news with a share of the labels moved from the commonest class to the rarest: all alike."""
    counts = Counter(row[-1] for row in case.news)
    common, rare = max(counts, key=lambda c: counts[c]), min(counts, key=lambda c: counts[c])
    places = [i for i, row in enumerate(case.news) if row[-1] == common]
    chosen = set(case.rng.choice(places, round(share * len(case.news)), replace=False).tolist())
    return [(*row[:-1], rare) if i in chosen else row for i, row in enumerate(case.news)]


def drifted(case: Case) -> list[Cells]:
    """Return the news of a world where the commonest class has become half as common."""
    counts = Counter(row[-1] for row in case.news)
    common = max(counts, key=lambda c: counts[c])
    return [row for i, row in enumerate(case.news) if row[-1] != common or i % 2]


def leaking(case: Case) -> list[Cells]:
    """Return the news with a column that is the label in other words."""
    place, codes = case.field.leak, {name: str(i) for i, name in enumerate(case.classes)}
    return [(*row[:place], codes[row[-1]], *row[place + 1 :]) for row in case.news]


def numbered(case: Case) -> list[Cells]:
    """Return the news sorted by label, with a column that counts the rows: an id that tells the label."""
    place, rows = case.field.leak, sorted(case.news, key=lambda row: row[-1])
    return [(*row[:place], str(10_000 + i), *row[place + 1 :]) for i, row in enumerate(rows)]


def slow(case: Case, share: float = 0.02) -> tuple[int, float, float]:
    """Return how many of ten poisoned parts of the news were promoted, what that cost, and what it may cost."""
    plant, size = case.plant.copy(), len(case.news) // STEPS
    first = plant.state().versions[plant.production()].metrics["accuracy"]
    promoted = 0
    for turn in range(STEPS):
        rows = flipped(case, share, case.news[turn * size : (turn + 1) * size])
        promoted += upload(case.field, plant, rows, turn).status == "promoted"
    last = plant.state().versions[plant.production()].metrics
    limit = ANCHOR_DROPS * max(case.field.spec().gate.max_drop, 1 / last["n"])
    return promoted, first - last["accuracy"], limit


def learnt_holdout(plant: Plant, version: str) -> tuple[int, int, int]:
    """Return how many rows the holdout has, how many were uploaded, and how many are learnt from (must be 0)."""
    shop, record = plant.shop, plant.state().versions[version]
    model = shop.shelf.model(record)
    known = shop.shelf.known(record, from_dict(model.manifest["facts"]["spec"]))
    counted = model.manifest["facts"]["data"]["uploads"]["in_holdout"]
    both = np.isin(known.train.keys(), known.holdout.keys())
    return known.holdout.n_rows, counted, int(both.sum())


def cases(seeds: int, sets: int, n_rows: int, folder: Path) -> Iterator[tuple[int, Case]]:
    """Yield seed and case of each data set and seed."""
    for make in fields()[:sets]:
        field = make()
        for seed in range(seeds):
            yield seed, prepare(field, seed, folder, n_rows=n_rows)
