"""The function apps as the runtime finds them, and what their modules cost before the first request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest

from core.errors import Unavailable
from core.tokens import create_token, export_records
from handlers_azure import main
from tests.emulators.emulator import Emulator

ROOT = Path(__file__).parents[2]
CONTEXT = SimpleNamespace(invocation_id="i", trace_context=SimpleNamespace(trace_parent="", trace_state=""))


@pytest.fixture
def url(azurite: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    url = azurite.new_store_url()
    for name, value in {**azurite.env(), "POLYSKY_STORE": url}.items():
        monkeypatch.setenv(name, value)
    return url


def functions(app: func.FunctionApp) -> dict[str, Any]:
    return {str(found.get_function_name()): found for found in app.get_functions()}


def bindings(app: func.FunctionApp) -> dict[str, dict[str, Any]]:
    described = {name: json.loads(found.get_function_json()) for name, found in functions(app).items()}
    return {name: found["bindings"][0] for name, found in described.items()}


@pytest.mark.usefixtures("url")
def test_the_app_that_predicts_has_one_route_for_every_path_and_method() -> None:
    found = bindings(main.predict_app())
    assert list(found) == ["http"]
    assert (found["http"]["route"], found["http"]["authLevel"]) == ("{*path}", "ANONYMOUS")
    assert "methods" not in found["http"]


@pytest.mark.usefixtures("url")
def test_the_app_that_trains_has_control_job_and_tick() -> None:
    found = bindings(main.app)
    kinds = {name: binding["type"] for name, binding in found.items()}
    assert kinds == {"control": "httpTrigger", "job": "eventGridTrigger", "tick": "timerTrigger"}


@pytest.mark.usefixtures("url")
def test_tokens_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, azurite: Emulator, url: str
) -> None:

    store = azurite.open(azurite.new_store_url())
    token, _ = create_token(store, "predictor", clock=time.time, random_bytes=os.urandom)
    monkeypatch.setenv("POLYSKY_TOKENS", json.dumps(export_records(store, now=time.time())))
    http = functions(main.predict_app())["http"].get_user_function()
    request = func.HttpRequest("GET", "https://app/models", headers={"x-api-key": token}, body=b"")
    assert http(request, CONTEXT).status_code == 200


def test_a_fault_of_the_store_is_raised_so_that_event_grid_comes_again(
    azurite: Emulator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = func.EventGridEvent(
        id="1",
        topic="t",
        subject=f"/blobServices/default/containers/{url[5:]}/blobs/uploads/mood/x.csv",
        event_type="Microsoft.Storage.BlobCreated",
        event_time=None,
        data_version="",
        data={
            "api": "PutBlob",
            "eTag": "0x1",
            "url": f"https://a.blob.core.windows.net/{url[5:]}/uploads/mood/x.csv",
        },
    )
    azurite.upload(url, "uploads/mood/x.csv", b"text,label\n")
    job = functions(main.train_app())["job"].get_user_function()
    assert job(event, CONTEXT) is None
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    refused = functions(main.train_app())["job"].get_user_function()
    with pytest.raises(Unavailable):
        refused(event, CONTEXT)


IMPORTS = """
import sys
import azure.functions
before = set(sys.modules)
import handlers_azure.main
new = sorted(set(sys.modules) - before)
print(" ".join(new))
"""
HEAVY = {"asyncio", "ssl", "uuid", "pathlib", "subprocess", "urllib.request", "numpy", "obstore", "core.worker"}


def test_the_predict_path_adds_little_to_what_the_platform_loads() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    added = done.stdout.split()
    assert not HEAVY & set(added)
    assert not [name for name in added if name.startswith(("azure.storage", "azure.core", "opentelemetry"))]
    assert len([name for name in added if not name.startswith(("core", "handlers_azure"))]) <= 5
    assert len(Path(str(main.__file__)).read_text().splitlines()) < 80
