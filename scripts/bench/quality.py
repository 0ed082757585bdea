"""Scores beside plain scikit-learn: `make bench-quality`. Each set goes through init and train of the CLI.

The plain pipeline (scripts/bench/plain.py) learns from the same rows and is scored on the same holdout. The
holdout is Polysky's own: the rows whose digest falls into the split's fraction, never seen by either side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.dataset.reading import read_table
from core.flatfile import FlatFile
from core.keys import alias_key
from core.reader import open_reader
from core.spec import ModelSpec, load_spec
from scripts.bench.corpus import data_folder
from scripts.bench.plain import Rows, score

SETS = {
    "sms_spam": "data.csv", "movie_sentences": "data.csv", "ag_news": "data.csv.gz", "banking77": "data.csv",
    "bbc_news": "data.csv.gz", "adult_income": "data.csv.gz", "california_housing": "data.csv",
    "iris": "data.csv", "covertype_small": "data.csv", "fashion_mnist": "data.npz",
    "product_multimodal": "data.csv",
}  # fmt: skip
REGRESSION = {"california_housing"}
LIMIT = 0.005  # 0.5 points of accuracy, or 0.005 of R²


class Outcome(NamedTuple):
    """One line of the table."""

    name: str
    algorithm: str
    metric: str
    ours: float
    plain: float
    n_holdout: int
    parity: str
    seconds: float


def main() -> int:
    """Train every set that is present; return 1 if one scores more than LIMIT below, 2 without data."""
    folder = data_folder()
    if folder is None:
        print("no data sets: put them beside the repository in shared/data, or set POLYSKY_DATA")
        return 2
    chosen = sys.argv[1:] or list(SETS)
    print(f"{'data':20} {'algorithm':24} {'metric':9} {'Polysky':>8} {'plain':>8} {'diff':>8} {'n':>6}  parity")
    missed = 0
    for name in chosen:
        outcome = run(folder / name, name)
        difference = outcome.ours - outcome.plain
        missed += difference < -LIMIT
        print(
            f"{name:20} {outcome.algorithm:24} {outcome.metric:9} {outcome.ours:8.4f} {outcome.plain:8.4f}"
            f" {difference:+8.4f} {outcome.n_holdout:6d}  {outcome.parity}  ({outcome.seconds:.0f} s)"
            f"{'  MISSED' if difference < -LIMIT else ''}",
            flush=True,
        )
    return 1 if missed else 0


def run(folder: Path, name: str) -> Outcome:
    """Return both scores of one set."""
    data = str(folder / SETS[name])
    label = {"fashion_mnist": "labels"}.get(name, "target" if name in REGRESSION else "label")
    with tempfile.TemporaryDirectory() as scratch:
        spec_path, store = str(Path(scratch) / "spec.toml"), str(Path(scratch) / "store")
        start = time.perf_counter()
        _polysky("init", data, "--label", label, "--name", name.replace("_", "-"), "--out", spec_path)
        trained = json.loads(_polysky("train", spec_path, "--data", data, "--store", store, "--json"))
        seconds = time.perf_counter() - start
        facts = _facts(store, trained["model"], trained["version"])
        spec = load_spec(spec_path)
    plain, n_holdout = _plain(data, spec)
    metric = "r2" if spec.task == "regression" else "accuracy"
    return Outcome(
        name, spec.estimator.algorithm, metric, _figure(trained["metrics"], metric), plain, n_holdout,
        _parity(facts), seconds,
    )  # fmt: skip


def _polysky(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", *arguments], stdout=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"polysky {' '.join(arguments)} failed with exit code {done.returncode}")
    return done.stdout


def _facts(store: str, model: str, version: str) -> dict[str, Any]:
    """Return what the manifest of a version tells."""
    reader = open_reader(store)
    pointer = json.loads(reader.get(alias_key(model, version)))["splits"][0]
    facts: dict[str, Any] = FlatFile(reader.buffer(pointer["artifact_key"])).header["facts"]
    return facts


def _figure(metrics: dict[str, Any], metric: str) -> float:
    value = metrics[metric]
    return float(value["value"] if isinstance(value, dict) else value)


def _parity(facts: dict[str, Any]) -> str:
    parity = facts.get("parity") or {}
    return f"{parity['max_abs_diff']:.1e} <= {parity['bound']:.0e}" if parity else "-"


def _plain(data: str, spec: ModelSpec) -> tuple[float, int]:
    dataset = read_table(data, spec)
    held = np.array(dataset.holdout_mask(spec.split.holdout))
    train, test = dataset.take(np.flatnonzero(~held)), dataset.take(np.flatnonzero(held))
    kinds = {column.name: column.kind for column in spec.columns}
    sides = [Rows(dict(part.batch.columns), part.labels or []) for part in (train, test)]
    return score(kinds, spec.estimator.algorithm, spec.task, *sides), test.n_rows


if __name__ == "__main__":
    raise SystemExit(main())
