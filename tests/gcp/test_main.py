"""What a function's process loads, and how its entry points are cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulators.gcs import Gcs

ROOT = Path(__file__).parents[2]
LOADED = """
import json, sys
import functions_framework
before = set(sys.modules)
app = functions_framework.create_app(sys.argv[1], "handlers_gcp/main.py")
client = app.test_client()
status = client.open("/health/ready" if sys.argv[1] == "http" else "/", method=sys.argv[2]).status_code
print(json.dumps([status, sorted(sys.modules), len(set(sys.modules) - before)]))
"""
SDK = {"google.cloud.storage", "google.auth", "google.api_core", "requests", "urllib3", "google_crc32c"}
HEAVY = {
    "sklearn",
    "scipy",
    "pandas",
    "numpy",
    "joblib",
    "pyarrow",
    "http.client.ssl",
    "handlers_gcp.store",
    "core.worker",
}
CEILING = 60  # modules of ours and of the standard library that the framework has not loaded; 45 when written


def loaded(gcs: Gcs, target: str, method: str, **more: str) -> tuple[int, set[str], int]:
    """Return the status of a first request, all modules, and how many of them are there for us."""
    env = {**os.environ, **gcs.env(), "POLYSKY_STORE": gcs.new_store_url(), "FUNCTION_TARGET": target, **more}
    command = [sys.executable, "-W", "ignore", "-c", LOADED, target, method]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, modules, fresh = json.loads(done.stdout.splitlines()[-1])
    return status, set(modules), fresh


def test_the_function_that_predicts_loads_no_sdk_and_nothing_that_learns(gcs: Gcs) -> None:
    status, modules, fresh = loaded(gcs, "http", "GET")
    assert status == 200
    assert not modules & (SDK | HEAVY)
    assert fresh <= CEILING, fresh


@pytest.mark.parametrize(("target", "status"), [("control", 401), ("job", 200), ("tick", 200)])
def test_each_target_serves(gcs: Gcs, target: str, status: int) -> None:
    assert loaded(gcs, target, "POST")[0] == status


def test_a_setting_that_is_wrong_stops_the_process_and_is_named(gcs: Gcs) -> None:
    env = {
        **os.environ,
        **gcs.env(),
        "POLYSKY_STORE": "gs://b",
        "FUNCTION_TARGET": "http",
        "POLYSKY_LEASE_S": "canary",
    }
    command = [sys.executable, "-W", "ignore", "-c", LOADED, "http", "GET"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "POLYSKY_LEASE_S" in done.stderr
    assert "canary" not in done.stderr


def test_the_entry_points_are_a_page_long() -> None:
    assert len((ROOT / "handlers_gcp" / "main.py").read_text().splitlines()) < 80


@pytest.mark.parametrize("told", ["soon", "540s", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_is_none_is_named(gcs: Gcs, told: str) -> None:
    env = {**os.environ, **gcs.env(), "POLYSKY_STORE": gcs.new_store_url(), "CLOUD_RUN_TIMEOUT_SECONDS": told}
    command = [sys.executable, "-W", "ignore", "-c", "import handlers_gcp.main"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = "core.errors.ConfigError: CLOUD_RUN_TIMEOUT_SECONDS must be a number of seconds"
    assert done.stderr.splitlines()[-1] == last
