"""The cold start benchmark: its arithmetic, its taking of turns, and what a cold start on each platform loads."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from core.flatfile import FlatFile
from core.local_store import LocalStore
from core.tokens import create_token
from scripts.bench import build, cold, cold_packages, cold_process
from scripts.bench.cold_process import Cost
from scripts.bench.cold_runtimes import Function, cold_start, modules
from scripts.bench.corpus import synthetic

TEXT = "ba be bi"
EMULATORS = {"aws": "moto", "gcp": "gcs", "azure": "azurite"}
# what costs a cold start dear: numbers, SDKs, and whatever learns
DEAR = (
    *("numpy", "scipy", "sklearn", "joblib", "pandas", "onnxruntime", "PIL", "pyarrow", "msgspec", "pickle"),
    *("boto3", "botocore", "aws_lambda_powertools", "google.cloud", "google.auth", "azure.storage", "azure.core"),
    *(
        "requests",
        "dataclasses",
        "inspect",
        "ssl",
        "core.worker",
        "core.control",
        "core.registry",
        "core.training",
    ),
)


def test_ratios_are_taken_within_a_round_and_shown_with_their_spread() -> None:
    costs = {
        "polysky": [Cost(0.1, 0.2, 40), Cost(0.3, 0.2, 40), Cost(0.2, 0.2, 40)],
        "naive": [Cost(1.0, 2.0, 160), Cost(6.0, 2.0, 160), Cost(1.0, 2.0, 160)],
        "empty": [Cost(0.05, 0.1, 20), Cost(0.07, 0.1, 20), Cost(0.06, 0.1, 20)],
    }
    wall, cpu, memory = cold.compare("aws", costs, 0.10)
    assert wall.ratio == pytest.approx((0.1, 0.05, 0.2))
    assert (wall.polysky, wall.naive, wall.empty) == (0.2, 1.0, 0.06)
    assert cpu.ratio == pytest.approx((0.1, 0.1, 0.1))
    assert memory.ratio.median == pytest.approx(0.25)
    assert (wall.met, cpu.met, memory.met) == (True, True, True)
    assert [row.met for row in cold.compare("aws", costs, 0.09)] == [False, False, True]


def test_a_stopped_process_leaves_nothing_behind_that_would_disturb_the_next_one(tmp_path: Path) -> None:
    """Not what it started in a process group of its own either, as Lambda's emulator does."""
    child = "import time; print('up', flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], start_new_session=True)"
    process = cold_process.Process([sys.executable, "-c", code], dict(os.environ), tmp_path, tmp_path / "log")
    process.wait(lambda: "up" in process.said())
    family = process.pids()
    assert len(family) == 2
    process.stop()
    assert {_state(pid) for pid in family} <= {"gone", "Z"}


def test_a_process_that_ended_by_itself_leaves_nothing_behind_either(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True)"
    process = cold_process.Process([sys.executable, "-c", code], dict(os.environ), tmp_path, tmp_path / "log")
    with pytest.raises(RuntimeError, match="no answer"):
        process.wait(lambda: False)
    orphan = int(process.said())
    process.stop()
    deadline = time.monotonic() + 10
    while (state := _state(orphan)) not in ("gone", "Z") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state in ("gone", "Z")


def _state(pid: int) -> str:
    """Return the letter of a process's state; whoever inherited an orphan may reap it at any moment."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def test_the_functions_take_turns_in_both_orders_and_the_first_round_does_not_count() -> None:
    told: list[tuple[str, str]] = []

    def call(name: tuple[str, str]) -> Callable[[], Cost]:
        return lambda: told.append(name) or Cost(len(told), 0, 0)  # type: ignore[func-returns-value]

    names = [("aws", "polysky"), ("aws", "naive"), ("gcp", "polysky")]
    frozen = gc.get_freeze_count()
    found = cold.rounds({name: call(name) for name in names}, 2)
    assert gc.get_freeze_count() == frozen, "other tests look for functions among the collector's objects"
    assert told == [*names, *names[::-1], *names]
    assert [cost.wall_s for cost in found["aws"]["polysky"]] == [6, 7]
    assert [cost.wall_s for cost in found["aws"]["naive"]] == [5, 8]
    assert [cost.wall_s for cost in found["gcp"]["polysky"]] == [4, 9]


def test_a_missed_goal_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    costs = {variant: [Cost(1, 1, 1)] for variant in cold_packages.VARIANTS}
    loaded = {("aws", variant): 3 for variant in cold_packages.VARIANTS}
    cold.print_rows(cold.compare("aws", costs, 0.10), loaded)
    assert capsys.readouterr().out.count("MISSED") == 2


def test_the_goals_are_those_that_were_set() -> None:
    assert cold.GOALS == {"aws": 0.10, "gcp": 0.15, "azure": 0.15}
    assert cold.MIN_ROUNDS >= 7


def test_imported_modules_are_read_once_each() -> None:
    lines = [
        "import time: self [us] | cumulative | imported package",
        "import time:       120 |        120 |   _io",
    ]
    lines += [
        "a line of the function",
        "import time:        90 |        310 | io",
        "import time:  1 |  1 | io",
        "",
    ]
    log = "\n".join(lines)
    assert cold_process.imported(log) == ["_io", "io"]


def test_the_cpu_clock_of_another_process_counts_what_it_did() -> None:
    before = cold_process.cpu_of(os.getpid())
    sum(range(1_000_000))
    assert before < cold_process.cpu_of(os.getpid()) <= time.process_time()


class Served(NamedTuple):
    """A platform's predicting function and an empty one, on a store with a small model."""

    polysky: Function
    empty: Function


@pytest.fixture(scope="module", params=sorted(EMULATORS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Both functions of each platform."""
    cloud, folder = request.param, tmp_path_factory.mktemp("cold")
    emulator = request.getfixturevalue(EMULATORS[cloud])
    texts, labels = synthetic(200, words=500, length=10)
    data = build.text_artifact(build.text_pipeline(texts, labels, 300), texts)
    build.publish(str(folder / "store"), data, FlatFile(data).header_sha256)
    store = LocalStore(str(folder / "store"))
    token, _ = create_token(store, "predictor", clock=time.time, random_bytes=os.urandom)
    env = cold.filled(emulator, str(folder / "store"), b"")
    return Served(*(_function(cloud, variant, folder, env, token) for variant in ("polysky", "empty")))


def _function(cloud: str, variant: str, folder: Path, env: dict[str, str], token: str) -> Function:
    package = cold_packages.package(cloud, variant, folder / variant)
    return Function(cloud, variant, package, env, TEXT, token)


def test_a_cold_start_loads_none_of_what_costs_dear(served: Served, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    platforms_own = modules(served.empty, tmp_path / "a")
    ours = [name for name in modules(served.polysky, tmp_path / "b") if name not in platforms_own]
    dear = [name for name in ours for other in DEAR if f"{name}.".startswith(f"{other}.")]
    assert dear == []
    libraries = {name.partition(".")[0] for name in ours} - sys.stdlib_module_names
    assert libraries == {"core", "obstore", f"handlers_{served.polysky.cloud}"}
    assert {"core.app", "core.serving", "core.artifact", "core.affine"} <= set(ours)  # a model was loaded


def test_a_cold_start_is_measured(served: Served, tmp_path: Path) -> None:
    cost = cold_start(served.polysky, tmp_path)
    assert cost.cpu_s > 0
    assert cost.wall_s > 0
    assert 10 < cost.rss_mb < 200
