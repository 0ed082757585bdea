"""What a fresh process loads to answer one text prediction: DESIGN's import rules, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from core.local_store import open_store
from core.tokens import create_token
from scripts.cli import run
from tests.mood import SPEC, rows

FORBIDDEN = {
    *("sklearn", "scipy", "pandas", "joblib", "numpy", "imblearn", "skl2onnx", "onnxruntime", "pyarrow", "PIL"),
    *("boto3", "botocore", "google", "azure", "flask", "obstore", "msgspec", "prometheus_client", "click"),
    *("pickle", "dataclasses", "inspect", "logging", "asyncio", "urllib.request", "http.client", "email", "ssl"),
    *("datetime", "uuid", "decimal", "tempfile", "subprocess", "pathlib", "socket", "importlib.metadata"),
}
CEILING = 92  # modules, of the standard library and of core; 84 when this was written
EVALUATED = 1  # the standard library's own: a tuple of functools
PATTERNS = {"core.keys", "core.folder", "core.terms"}
SERVE = """
import sys
before = set(sys.modules)  # what the interpreter loads by itself
evaluated, compiled = [], []
def evaluating(event, args):
    if event == "compile" and args[1] == "<string>":
        evaluated.append(str(args[0]))
sys.addaudithook(evaluating)
import re
compiler = re._compiler.compile
def compiling(pattern, flags=0):
    frame = sys._getframe()
    while frame.f_globals["__name__"].partition(".")[0] in ("re", "__main__"):
        frame = frame.f_back
    compiled.append([frame.f_globals["__name__"], str(pattern)])
    return compiler(pattern, flags)
re._compiler.compile = compiling
import json, os, time
from core.app import build_app
from core.config import Settings
from core.reader import open_reader
from core.telemetry import MemoryTelemetry
from core.web import Request
settings = Settings.from_env(os.environ)
telemetry = MemoryTelemetry(sys.stderr.write, clock=time.time)
app = build_app(settings, open_reader(settings.store), telemetry=telemetry)
headers = {"authorization": "Bearer " + os.environ["TOKEN"], "content-type": "application/json"}
answer = app(Request("POST", "/predict/mood", "", headers, b'{"text": "cake and a gift"}'))
print(json.dumps([answer.status, json.loads(answer.body), sorted(set(sys.modules) - before), evaluated, compiled]))
"""


class Served(NamedTuple):
    """What a fresh interpreter that made one prediction answered, and had to load, evaluate and compile."""

    status: int
    answer: dict[str, list[dict[str, object]]]
    modules: list[str]
    evaluated: list[str]
    patterns: list[tuple[str, str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """One prediction of a fresh interpreter."""
    folder = tmp_path_factory.mktemp("cold")
    (folder / "data.csv").write_text(rows(0, 100))
    (folder / "mood.toml").write_text(SPEC)
    store = str(folder / "store")
    assert run(["train", str(folder / "mood.toml"), "--data", str(folder / "data.csv"), "--store", store]) == 0
    token, _ = create_token(open_store(store), "predictor", clock=time.time, random_bytes=os.urandom)
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", SERVE],
        env={"PYTHONPATH": root, "POLYSKY_STORE": store, "TOKEN": token},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return Served(*json.loads(done.stdout))


def test_a_fresh_process_answers(served: Served) -> None:
    assert (served.status, served.answer["predictions"][0]["label"]) == (200, "glad")


def test_it_loads_nothing_that_it_does_not_need(served: Served) -> None:
    assert FORBIDDEN & set(served.modules) == set()


def test_it_loads_few_modules(served: Served) -> None:
    assert len(served.modules) <= CEILING, served.modules


def test_it_evaluates_no_source_text(served: Served) -> None:
    """As typing.NamedTuple would for each class and each annotation: a quarter of the time that imports took."""
    assert len(served.evaluated) <= EVALUATED, served.evaluated


def test_it_compiles_the_patterns_that_it_needs_and_no_others(served: Served) -> None:
    ours = [(module, pattern) for module, pattern in served.patterns if module.startswith("core.")]
    assert {module for module, _ in ours} == PATTERNS, ours
    assert len(ours) == 4, ours
