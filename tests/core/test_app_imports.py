"""What the application loads, seen from outside: serving stays light, control never reaches training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.local_store import LocalStore
from tests.core.house import House

ROOT = Path(__file__).resolve().parents[2]
CONTROL = {
    "core.control",
    "core.registry",
    "core.ledger",
    "core.fold",
    "core.jobs",
    "core.messages",
    "msgspec",
}
TRAINING = {
    *(
        "core.worker",
        "core.retraining",
        "core.building",
        "core.training",
        "core.search",
        "core.pipeline",
        "core.gate",
    ),
    *("core.dataset", "core.evaluation", "core.corpus", "core.intake", "core.promotion", "core.spec"),
    *("sklearn", "scipy", "pandas", "joblib", "imblearn", "pyarrow", "pickle"),
}
SCRIPT = """
import json, sys, time
from core.api import ENDPOINTS
from core.app import build_app
from core.config import Settings
from core.reader import open_reader
from core.telemetry import MemoryTelemetry
from core.web import Request
folder, token, plane = sys.argv[1:]
store = None
if plane == "control":
    from core.local_store import LocalStore
    store = LocalStore(folder)
app = build_app(Settings(store=folder), open_reader(folder), store=store,
                telemetry=MemoryTelemetry(lambda line: None, clock=time.time))
headers = {"x-api-key": token, "content-type": "application/json"}
names = {"{model}": "support", "{version}": "production", "{alias}": "staging", "{job}": "support." + "0" * 16,
         "{asset}": "swagger-ui.css"}
statuses = {}
for endpoint in ENDPOINTS:
    if plane == "http" and "openapi" in endpoint.path:
        continue
    path = endpoint.path
    for name, value in names.items():
        path = path.replace(name, value)
    body = b'{"text": "refund"}' if "predict" in path else b'{}'
    statuses[endpoint.method + " " + endpoint.path] = app(Request(endpoint.method, path, "", headers, body)).status
print(json.dumps([statuses, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store on disk with one model, and an admin's token."""
    folder = str(tmp_path_factory.mktemp("store"))
    house = House(store=LocalStore(folder))
    house.publish()
    return folder, house.token("admin")


def run(shop: tuple[str, str], plane: str) -> tuple[dict[str, int], set[str]]:
    command = [sys.executable, "-c", SCRIPT, *shop, plane]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    statuses, modules = json.loads(done.stdout)
    return statuses, set(modules)


def test_a_process_that_only_predicts_loads_nothing_of_the_control_plane(shop: tuple[str, str]) -> None:
    statuses, modules = run(shop, "http")
    assert statuses["POST /predict/{model}"] == 200
    assert statuses["GET /models"] == 200
    assert statuses["GET /metrics"] == 200
    assert statuses["POST /train"] == 404
    assert not modules & (CONTROL | TRAINING | {"numpy"})


def test_the_control_plane_reaches_nothing_that_trains(shop: tuple[str, str]) -> None:
    statuses, modules = run(shop, "control")
    assert statuses["POST /train"] == 202
    assert statuses["POST /retrain/{model}"] == 202
    assert statuses["GET /models/{model}/versions"] == 200
    assert "core.control" in modules
    assert not modules & TRAINING
