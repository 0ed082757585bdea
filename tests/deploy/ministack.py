"""AWS in one process: MiniStack, which enforces IAM policies, runs functions and delivers events."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.emulators.missing import absent

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "ministack" / "bin" / "ministack"
ACCOUNT, REGION = "123456789012", "eu-west-1"
_DEADLINE_S = 60.0


@contextmanager
def start(log: Path, **env: str) -> Iterator[str]:
    """Yield the URL of a running MiniStack without anything in it; what it writes goes to `log`."""
    if not PROGRAM.exists():
        absent("MiniStack")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [str(PROGRAM)],
            env={**_env(port), **env},
            cwd=log.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/_ministack/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _env(port: int) -> dict[str, str]:
    # functions run on the interpreter that is first on the path: the one their packages were made with
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **{"PATH": path, "HOME": os.environ.get("HOME", "/"), "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1"},
        **{"SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "LAMBDA_EXECUTOR": "local", "AUTH": "true"},
        **{"MINISTACK_ACCOUNT_ID": ACCOUNT, "MINISTACK_REGION": REGION, "LOG_LEVEL": "INFO"},
        **{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    }


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("MiniStack did not start")
