"""What each of the functions loads, in a fresh interpreter beside Lambda's runtime client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from core.local_store import LocalStore
from core.tokens import create_token
from tests.core.house import House
from tests.emulators.missing import absent

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    *("boto3", "botocore", "aws_lambda_powertools", "aws_xray_sdk", "core.worker", "core.control", "msgspec"),
    *("sklearn", "scipy", "pandas", "joblib", "numpy", "pickle", "dataclasses", "inspect", "asyncio"),
    *("urllib.request", "urllib.parse", "http.client", "email", "ssl", "socket", "uuid", "pathlib", "tempfile"),
    *("subprocess", "importlib.metadata"),
}
SCRIPT = """
import json, os, sys
import awslambdaric.bootstrap  # what Lambda has loaded before it looks for the function
from tests.aws.recorded import Context
before = set(sys.modules)
from handlers_aws import main
handler = getattr(main, sys.argv[1])
answer = handler(json.loads(sys.argv[2]), Context())
assert getattr(main, sys.argv[1]) is handler
print("\\n" + json.dumps([answer, sorted(set(sys.modules) - before)]))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store on disk with one model, and a token."""
    folder = str(tmp_path_factory.mktemp("store"))
    House(store=LocalStore(folder)).publish()
    token, _ = create_token(LocalStore(folder), "admin", clock=time.time, random_bytes=os.urandom)
    return folder, token


def run(entry: str, event: Any, **env: str) -> tuple[Any, set[str]]:
    """Return what an entry point answers in a process of its own, and the modules it loaded."""
    try:
        import awslambdaric  # noqa: F401
    except ModuleNotFoundError:
        absent("awslambdaric")
    command = [sys.executable, "-c", SCRIPT, entry, json.dumps(event)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer, modules = json.loads(done.stdout.splitlines()[-1])
    return answer, set(modules)


def question(token: str) -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": "/predict/support",
        "headers": {"authorization": f"Bearer {token}", "content-type": "application/json"},
        "requestContext": {"http": {"method": "POST"}},
        "body": '{"text": "refund"}',
    }


def test_the_function_that_predicts_loads_no_sdk_and_no_powertools(shop: tuple[str, str]) -> None:
    folder, token = shop
    answer, modules = run("http", question(token), POLYSKY_STORE=folder)
    assert answer["statusCode"] == 200
    assert modules & FORBIDDEN == set()
    assert len(modules) <= 70


def test_the_tokens_may_come_in_the_environment(shop: tuple[str, str]) -> None:
    folder, token = shop
    record = json.loads(LocalStore(folder).get(f"auth/tokens/{token.split('_')[1]}.json").data)
    answer, _ = run(
        "http", question(token), POLYSKY_STORE=folder, POLYSKY_TOKENS=json.dumps({token.split("_")[1]: record})
    )
    assert answer["statusCode"] == 200
    answer, _ = run("http", question(token), POLYSKY_STORE=folder, POLYSKY_TOKENS="{}")
    assert answer["statusCode"] == 401


def test_a_secret_that_cannot_be_had_closes_the_door(shop: tuple[str, str]) -> None:
    folder, token = shop
    env = {"POLYSKY_TOKENS_SECRET": "polysky/tokens", "PARAMETERS_SECRETS_EXTENSION_HTTP_PORT": "9"}
    answer, _ = run("http", question(token), POLYSKY_STORE=folder, **env)
    assert answer["statusCode"] == 503


def test_there_are_four_entry_points_and_no_other() -> None:
    from handlers_aws import main

    assert set(main._MAKERS) == {"http", "control", "job", "tick"}
    with pytest.raises(AttributeError):
        _ = main.handler
