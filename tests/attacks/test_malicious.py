"""Hostile files: nothing in them ever runs, and none takes more memory than it may, whatever way it comes in."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.errors import ConfigError
from core.importing import open_pipeline
from tests.attacks import forgeries, graphs, pickles
from tests.faults.scoreboard import record
from tests.faults.sizes import size

NAMES = (
    *("model.pkl", "model.joblib", "model.skops", "model.pt", "model.h5", "model.safetensors", "model.onnx"),
    *("data.npy", "data.npz", "data.csv", "data.jsonl", "data.parquet", "data.zip", "data.csv.gz", "data"),
    "model.model",
)
LEAST = 500


class Case(NamedTuple):
    """One hostile file."""

    what: str
    name: str
    data: bytes


def cases(folder: Path) -> Iterator[Case]:
    """Yield all hostile files; the code in them would make something called marker in `folder`."""
    marker, names = str(folder / "marker"), itertools.cycle(NAMES)
    for what, data in raw_pickles(marker):
        yield Case(what, next(names), data)
    [(_, evil), *_] = raw_pickles(marker)
    yield from (Case("a pickle as it is", name, evil) for name in NAMES)
    for what, data in (*forgeries.wrapped(evil, marker), *forgeries.arrays()):
        yield Case(what, next(names), data)
    yield from (Case(what, "data.zip", data) for what, data in forgeries.bombs())
    yield from (Case(what, "model.model", data) for what, data in forgeries.flat_files())
    yield from (Case(what, "model.onnx", data) for what, data in graphs.graphs(str(folder / "secret")))


def raw_pickles(marker: str) -> Iterator[tuple[str, bytes]]:
    """Yield pickles of every family of opcodes through every function."""
    for gadget in pickles.gadgets(marker):
        for family, data in pickles.families(gadget):
            yield f"{gadget.module}.{gadget.name} {family}", data
    yield from pickles.singles()
    yield from pickles.dumped(marker)


def run_in(folder: Path, *arguments: str) -> Any:
    """Return the JSON that a Python process prints; it has no terminal and one thread a library."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, *arguments, str(folder)],
        env={**os.environ, **threads, "MALLOC_ARENA_MAX": "1"},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_hostile_runs_and_nothing_takes_the_memory(tmp_path: Path) -> None:
    started, step = time.perf_counter(), size(5, 1)
    (tmp_path / "cases").mkdir()
    (tmp_path / "secret").write_bytes(b"a secret of this machine" * 8)
    for number, case in enumerate(cases(tmp_path)):
        if number % step == 0:
            label = "".join(letter if letter.isalnum() else "-" for letter in case.what)[:40]
            (tmp_path / "cases" / f"{number:04d}-{label}~{case.name}").write_bytes(case.data)
    found = run_in(tmp_path, "-m", "tests.attacks.loading")
    # the rows of a version are named by the log: who can forge those bytes has forged the log before
    grown = [entry for entry in found["grown"] if not entry[0].endswith("by snapshot")]
    faults = [*found["acts"], *found["escapes"], *grown, *found["markers"]]
    record(
        "malicious files: executions, escapes, memory", found["cases"], len(faults), time.perf_counter() - started
    )
    assert faults == []
    assert found["cases"] * step >= LEAST


SPRING = """
import io, json, pickle, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tests.attacks.loading import Watch
folder = Path(sys.argv[1])
watch, sprung, total = Watch(str(folder / "none")), 0, 0
sys.addaudithook(watch)
for path in sorted((folder / "cases").iterdir()):
    data, watch.armed = path.read_bytes(), True
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            pickle.loads(data)
    except BaseException:
        pass
    watch.armed = False
    sprung, total = sprung + bool(watch.acts), total + 1
    watch.acts.clear()
print()
print(json.dumps({"sprung": sprung, "total": total}))
"""


def test_the_traps_are_live_and_the_watch_sees_them_spring(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    chosen = [
        g for g in pickles.gadgets(str(tmp_path / "marker")) if g.module in ("os", "subprocess", "builtins", "io")
    ]
    for number, (_, data) in enumerate(pair for gadget in chosen for pair in pickles.families(gadget)):
        (tmp_path / "cases" / f"{number}").write_bytes(data)
    found = run_in(tmp_path, "-c", SPRING)
    assert found["total"] >= 120
    assert found["sprung"] == found["total"]
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_not_trusted_is_not_even_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--trust"):
        open_pipeline(str(tmp_path / name), trust=False)
