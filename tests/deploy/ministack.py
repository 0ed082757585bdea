"""AWS in one process: MiniStack, which enforces IAM policies, runs functions and delivers events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy import server
from tests.emulators.missing import absent

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "ministack" / "bin" / "ministack"
ACCOUNT, REGION = "123456789012", "eu-west-1"


@contextmanager
def start(log: Path, **env: str) -> Iterator[str]:
    """Yield the URL of a running MiniStack without anything in it; what it writes goes to `log`."""
    if not PROGRAM.exists():
        absent("MiniStack")
    port = server.free_port()
    url = f"http://127.0.0.1:{port}"
    with server.running([str(PROGRAM)], {**_env(port), **env}, log=log, ready=f"{url}/_ministack/health"):
        yield url


def _env(port: int) -> dict[str, str]:
    # functions run on the interpreter that is first on the path: the one their packages were made with
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **{"PATH": path, "HOME": os.environ.get("HOME", "/"), "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1"},
        **{"SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "LAMBDA_EXECUTOR": "local", "AUTH": "true"},
        **{"MINISTACK_ACCOUNT_ID": ACCOUNT, "MINISTACK_REGION": REGION, "LOG_LEVEL": "INFO"},
        **{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    }
