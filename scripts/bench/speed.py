"""Speed beside scikit-learn on the same machine in the same run: `make bench`. Prints ratios; trust those.

Every comparison is paired: both sides take turns. Goals are those of the README; a missed one is marked.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib

from core import artifact
from core.app import build_app
from core.config import Settings
from core.flatfile import FlatFile
from core.local_store import LocalStore
from core.model import Model
from core.reader import open_reader
from core.schema import Batch, Column, Schema
from core.telemetry import MemoryTelemetry
from core.tokens import create_token
from core.web import Request
from scripts.bench import build
from scripts.bench.corpus import corpus, queries, synthetic
from scripts.bench.timing import paired, paired_processes

ROUNDS = int(os.environ.get("POLYSKY_BENCH_ROUNDS", "9"))
PASSES = 20  # through the texts before the other side takes its turn
SMALL, LARGE = 50_000, 500_000
Row = tuple[str, str, str, float, float, bool]


def main() -> int:
    """Run all comparisons; return 1 if a goal is missed."""
    warnings.simplefilter("ignore")
    source, texts, labels = corpus()
    print(f"corpus: {source}, {len(texts)} texts; medians of {ROUNDS} or more paired rounds")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = build.text_pipeline(texts, labels, SMALL)
        data = build.text_artifact(pipeline, texts)
        asked = queries(texts, 300)
        rows = [*cold(folder, pipeline, data, asked[0]), *load(data), *warm(folder, pipeline, data, asked)]
    rows += [batch(pipeline, data, texts), *forests()]
    _print(rows)
    return 0 if all(row[5] for row in rows) else 1


def _at_most(name: str, ours: float, theirs: float, goal: float, show: Callable[[float], str]) -> Row:
    return (name, show(ours), show(theirs), ours / theirs, goal, ours / theirs <= goal)


def _at_least(name: str, ours: float, theirs: float, goal: float, show: Callable[[float], str]) -> Row:
    return (name, show(ours), show(theirs), theirs / ours, goal, theirs / ours >= goal)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


def _mb(size: float) -> str:
    return f"{size:.0f} MB"


def cold(folder: str, pipeline: Any, data: bytes, text: str) -> list[Row]:
    """Process start → store opened → token checked → first answer, against joblib.load + predict_proba."""
    pickled, store = str(Path(folder) / "pipeline.joblib"), str(Path(folder) / "store")
    joblib.dump(pipeline, pickled)
    build.publish(store, data, FlatFile(data).header_sha256)
    token = _token(store)
    here = Path(__file__).parent
    ours = [sys.executable, "-m", "scripts.bench.cold_polysky", store, token, text]
    theirs = [sys.executable, str(here / "cold_sklearn.py"), pickled, text]
    mine, other = paired_processes(ours, theirs, ROUNDS)
    return [
        _at_most("cold start to first answer, wall", mine.wall_s, other.wall_s, 0.06, _ms),
        _at_most("cold start to first answer, CPU", mine.cpu_s, other.cpu_s, 0.06, _ms),
        _at_most("cold start, peak memory", mine.rss_mb, other.rss_mb, 0.25, _mb),
    ]


def _token(store: str) -> str:
    token, _ = create_token(LocalStore(store), "predictor", clock=time.time, random_bytes=os.urandom)
    return token


def load(data: bytes) -> list[Row]:
    """Artifact opened, checked and golden rows replayed: 500,000 features beside 50,000, and beside joblib."""
    texts, labels = synthetic(20_000, words=120_000, length=60)
    pipeline = build.text_pipeline(texts, labels, LARGE, quick=True)
    width = len(pipeline[0].vocabulary_)
    with tempfile.TemporaryDirectory() as folder:
        small, large, pickled = (str(Path(folder) / name) for name in ("small.bin", "large.bin", "large.joblib"))
        Path(small).write_bytes(data)
        Path(large).write_bytes(build.text_artifact(pipeline, texts))
        joblib.dump(pipeline, pickled)
        large_s, small_s = paired(lambda _: _load(large), lambda _: _load(small), [None], 25)
        ours_s, theirs_s = paired(lambda _: _load(large), lambda _: joblib.load(pickled), [None], 3)
    return [
        _at_most(f"load {width:,} features, beside {SMALL:,}", large_s, small_s, 2.0, _ms),
        _at_least(f"load {width:,} features, beside joblib", ours_s, theirs_s, 20.0, _ms),
    ]


def _load(path: str) -> Model:
    with open(path, "rb") as source:
        model = artifact.load(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
    model.replay()
    return model


def warm(folder: str, pipeline: Any, data: bytes, texts: list[str]) -> list[Row]:
    """One text of 60 words, again and again: the model alone, and the whole request through the app."""
    model, store = artifact.load(data), str(Path(folder) / "store")
    telemetry = MemoryTelemetry(lambda line: None, clock=time.time)
    app = build_app(Settings(store=store), open_reader(store), telemetry=telemetry)
    token = _token(store)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def ours(text: str) -> None:
        model.predict(Batch(1, {build.COLUMN: [text]}))

    requests = {
        text: Request("POST", "/predict/bench", "", headers, json.dumps({"text": text}).encode()) for text in texts
    }

    def request(text: str) -> None:
        response = app(requests[text])
        if response.status != 200:
            raise SystemExit(response.body.decode())

    classes = pipeline.classes_

    def theirs(text: str) -> tuple[str, list[float]]:
        shares = pipeline.predict_proba([text])[0]
        return classes[shares.argmax()], shares.tolist()

    few = texts[:20]
    alone, other = paired(ours, theirs, few, ROUNDS, PASSES)
    whole, other_again = paired(request, theirs, few, ROUNDS, PASSES)
    fresh, other_fresh = paired(artifact_of(data), theirs, texts, 1)
    return [
        _at_least("one warm text, model", alone, other, 15.0, _us),
        _at_least("one warm text, whole request", whole, other_again, 8.0, _us),
        _at_least("one text never seen before, model", fresh, other_fresh, 1.0, _us),
    ]


def artifact_of(data: bytes) -> Callable[[str], None]:
    """Return a predict call on a model that was just loaded and remembers nothing."""
    model = artifact.load(data)
    return lambda text: model.predict(Batch(1, {build.COLUMN: [text]})) and None


def batch(pipeline: Any, data: bytes, texts: list[str]) -> Row:
    """256 texts at once, through the numpy path."""
    model = artifact.load(data)

    def ours(some: list[str]) -> None:
        model.predict(Batch(len(some), {build.COLUMN: some}))

    mine, other = paired(ours, pipeline.predict_proba, [texts[:256]], ROUNDS, 5)
    return _at_least("256 texts at once", mine, other, 1.5, _ms)


def forests() -> list[Row]:
    """A random forest of 100 trees, one row at a time: Iris and digits, as scikit-learn ships them."""
    from sklearn.datasets import load_digits, load_iris

    rows = []
    for name, data in (("iris", load_iris()), ("digits", load_digits())):
        model, fitted, x = _forest(data)
        entries = [Batch(1, {"v": [row]}) for row in x[:20].tolist()]

        def ours(index: int, model: Model = model, entries: list[Batch] = entries) -> None:
            model.predict(entries[index])

        def theirs(index: int, fitted: Any = fitted, x: Any = x) -> None:
            fitted.predict_proba(x[index : index + 1])

        mine, other = paired(ours, theirs, range(20), ROUNDS, 5)
        rows.append(_at_least(f"random forest of 100 trees, one row ({name})", mine, other, 150.0, _us))
    return rows


def _forest(data: Any) -> tuple[Model, Any, Any]:
    from core.estimators import trees
    from core.features import vector

    x = data.data
    column = Column("v", "vector", width=x.shape[1])
    whole = Batch(len(x), {"v": x})
    block = vector.fit([column], whole)
    fitted = trees.build("random_forest", "classification", {"n_estimators": 100}, 0).fit(
        x, data.target.astype(str)
    )
    params, sections = trees.export(fitted, "classification", block.width)
    draft = artifact.Draft(
        "forest", "classification", Schema((column,)), tuple(fitted.classes_), (("vector", block),),
        "trees", params, sections, {}, whole.take(range(4)),
    )  # fmt: skip
    return artifact.load(artifact.export(draft)), fitted, x


def _print(rows: list[Row]) -> None:
    print(f"{'what':52} {'Polysky':>12} {'scikit-learn':>12} {'ratio':>8} {'goal':>8}")
    for name, ours, theirs, ratio, goal, met in rows:
        print(f"{name:52} {ours:>12} {theirs:>12} {ratio:8.3g} {goal:8g} {'' if met else ' MISSED'}")


if __name__ == "__main__":
    raise SystemExit(main())
