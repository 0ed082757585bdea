"""AWS as moto's server keeps it: nothing runs there and nothing is refused, but it keeps what it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deploy import server
from tests.deploy.ministack import ACCOUNT, ROOT
from tests.emulators.missing import absent

PROGRAM = ROOT / "build" / "moto" / "bin" / "moto_server"


@contextmanager
def start(log: Path) -> Iterator[str]:
    """Yield the URL of a running moto without anything in it; what it writes goes to `log`."""
    if not PROGRAM.exists():
        absent("moto's server")
    port = server.free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "MOTO_ACCOUNT_ID": ACCOUNT}
    command = [str(PROGRAM), "--host", "127.0.0.1", "--port", str(port)]
    with server.running(command, env, log=log, ready=f"{url}/moto-api/data.json"):
        yield url
