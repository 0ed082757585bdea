"""What a fresh process loads to answer one text prediction: DESIGN's import rules, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

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
SERVE = """
import sys
before = set(sys.modules)  # what the interpreter loads by itself
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
print(json.dumps([answer.status, json.loads(answer.body), sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, object], list[str]]:
    """The status, the answer and the modules of a fresh interpreter that made one prediction."""
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
    status, body, modules = json.loads(done.stdout)
    return status, body, modules


def test_a_fresh_process_answers(served: tuple[int, dict[str, list[dict[str, object]]], list[str]]) -> None:
    status, body, _ = served
    assert (status, body["predictions"][0]["label"]) == (200, "glad")


def test_it_loads_nothing_that_it_does_not_need(served: tuple[int, object, list[str]]) -> None:
    assert FORBIDDEN & set(served[2]) == set()


def test_it_loads_few_modules(served: tuple[int, object, list[str]]) -> None:
    assert len(served[2]) <= CEILING, served[2]
