"""Cold start of a function beside a naive one on the same platform: `make bench-cold`. Prints ratios; trust those.

From the start of the function's process to its first prediction, the model of 50,000 terms fetched from the store,
on the clouds' own runtimes and storage emulators. All functions take turns, round after round. The empty function
shows what the platform itself takes; it is in the other two as well.
"""

from __future__ import annotations

import gc
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib

from core.flatfile import FlatFile
from core.local_store import LocalStore
from core.tokens import create_token
from scripts.bench import build, cold_packages
from scripts.bench.cold_process import Cost
from scripts.bench.cold_runtimes import Function, cold_start, modules
from scripts.bench.corpus import corpus, queries

FEATURES = 50_000
MIN_ROUNDS = 7
GOALS = {"aws": 0.10, "gcp": 0.15, "azure": 0.15}
NAMES = {"aws": "AWS Lambda", "gcp": "Google Cloud", "azure": "Azure Functions"}


class Spread(NamedTuple):
    """Median, least and largest."""

    median: float
    low: float
    high: float


class Comparison(NamedTuple):
    """One quantity of one platform: medians of the three functions, and Polysky beside the naive one."""

    platform: str
    quantity: str
    polysky: float
    naive: float
    empty: float
    ratio: Spread
    goal: float | None

    @property
    def met(self) -> bool:
        """Return whether the goal, if there is one, is met."""
        return self.goal is None or self.ratio.median <= self.goal


Costs = Mapping[str, Sequence[Cost]]  # by variant, one a round


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and largest."""
    return Spread(statistics.median(values), min(values), max(values))


def rounds(calls: Mapping[tuple[str, str], Callable[[], Cost]], count: int) -> dict[str, dict[str, list[Cost]]]:
    """Return the costs by platform and variant, after one unmeasured round. Every second round runs backwards."""
    found: dict[str, dict[str, list[Cost]]] = {}
    for number in range(count + 1):
        order = list(calls.items())
        for (platform, variant), call in order[:: -1 if number % 2 else 1]:
            cost = call()
            if number:
                found.setdefault(platform, {}).setdefault(variant, []).append(cost)
    return found


def compare(platform: str, costs: Costs, goal: float) -> list[Comparison]:
    """Return wall clock, CPU and memory of one platform. Ratios are taken within each round."""
    rows = []
    for quantity, wanted in (("wall_s", goal), ("cpu_s", goal), ("rss_mb", None)):
        values = {variant: [getattr(cost, quantity) for cost in runs] for variant, runs in costs.items()}
        ratio = spread([mine / other for mine, other in zip(values["polysky"], values["naive"], strict=True)])
        mine, other, empty = (statistics.median(values[variant]) for variant in cold_packages.VARIANTS)
        rows.append(Comparison(platform, quantity, mine, other, empty, ratio, wanted))
    return rows


@contextmanager
def functions(scratch: Path, platforms: Sequence[str] = tuple(GOALS)) -> Iterator[list[Function]]:
    """Yield all functions, packaged, their stores filled; the emulators run until the end of the block."""
    _, texts, labels = corpus()
    pipeline = build.text_pipeline(texts, labels, FEATURES)
    pickled = io.BytesIO()
    joblib.dump(pipeline, pickled)
    store, text = str(scratch / "store"), queries(texts, 1)[0]
    data = build.text_artifact(pipeline, texts)
    build.publish(store, data, FlatFile(data).header_sha256)
    token, _ = create_token(LocalStore(store), "predictor", clock=time.time, random_bytes=os.urandom)
    with ExitStack() as stack:
        yield [
            Function(platform, variant, cold_packages.package(platform, variant, folder), env, text, token)
            for platform in platforms
            for env in [filled(stack.enter_context(_emulator(platform)), store, pickled.getvalue())]
            for variant in cold_packages.VARIANTS
            for folder in [scratch / f"{platform}-{variant}"]
        ]


def _emulator(platform: str) -> AbstractContextManager[Any]:
    """Return the context manager of the platform's storage emulator. Those of the tests serve here too."""
    from tests.emulators import azurite, gcs, moto

    started: dict[str, Callable[[], AbstractContextManager[Any]]]
    started = {"aws": moto.start, "gcp": gcs.start, "azure": azurite.start}
    return started[platform]()


def filled(emulator: Any, store: str, pickled: bytes) -> dict[str, str]:
    """Copy a store into a fresh bucket, the pickled pipeline into another; return what leads functions there."""
    url, other = emulator.new_store_url(), emulator.new_store_url()
    local = LocalStore(store)
    for entry in local.list(""):
        emulator.upload(url, entry.key, local.get(entry.key).data)
    emulator.upload(other, "model.joblib", pickled)
    return {**emulator.env(), "POLYSKY_STORE": url, "NAIVE_BUCKET": other.partition("://")[2]}


def main() -> int:
    """Run the comparison and print it; return 1 if a goal is missed."""
    count = max(MIN_ROUNDS, int(os.environ.get("POLYSKY_BENCH_ROUNDS", MIN_ROUNDS)))
    platforms = sys.argv[1:] or list(GOALS)
    print(f"medians of {count} rounds in which all take turns; ratios within a round, median (least-largest)")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with functions(scratch, platforms) as all_functions:
            calls = {
                (each.cloud, each.variant): lambda each=each: cold_start(each, _fresh(scratch))
                for each in all_functions
            }
            gc.collect()
            gc.freeze()  # the emulators answer from this process: it is not to look through its objects meanwhile
            costs = rounds(calls, count)
            loaded = {(each.cloud, each.variant): len(modules(each, _fresh(scratch))) for each in all_functions}
    rows = [row for platform in platforms for row in compare(platform, costs[platform], GOALS[platform])]
    print_rows(rows, loaded)
    return 0 if all(row.met for row in rows) else 1


def _fresh(scratch: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=scratch))


_SHOW: dict[str, tuple[str, Callable[[float], str]]] = {
    "wall_s": ("wall", lambda value: f"{value * 1e3:.0f} ms"),
    "cpu_s": ("CPU", lambda value: f"{value * 1e3:.0f} ms"),
    "rss_mb": ("peak memory", lambda value: f"{value:.0f} MB"),
}


def print_rows(rows: Sequence[Comparison], loaded: Mapping[tuple[str, str], int]) -> None:
    """Print one line a quantity, then the modules of each platform's functions."""
    print(f"{'cold start to first prediction':36} {'Polysky':>9} {'naive':>9} {'empty':>9}  ratio")
    for row in rows:
        name, show = _SHOW[row.quantity]
        told = [show(value) for value in (row.polysky, row.naive, row.empty)]
        ratio = f"{row.ratio.median:.3f} ({row.ratio.low:.3f}-{row.ratio.high:.3f})"
        goal = "" if row.goal is None else f"  goal {row.goal:.2f}{'' if row.met else '  MISSED'}"
        print(f"{NAMES[row.platform] + ', ' + name:36} {told[0]:>9} {told[1]:>9} {told[2]:>9}  {ratio}{goal}")
        if row.quantity == "rss_mb":
            counts = [loaded[row.platform, variant] for variant in cold_packages.VARIANTS]
            print(f"{NAMES[row.platform] + ', modules':36} {counts[0]:>9} {counts[1]:>9} {counts[2]:>9}")


if __name__ == "__main__":
    raise SystemExit(main())
