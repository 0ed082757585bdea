"""A packaged function as Google Cloud runs it: functions-framework's server, gunicorn, on a free port.

The package is all that is on the path: no site-packages, no project.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

START_S = 60.0


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


class FunctionServer:
    """A running function; `target` is which of the package's."""

    def __init__(self, package: Path, target: str, env: Mapping[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-S", "-m", "functions_framework", "--target", target]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            cwd=package,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **env},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> FunctionServer:
        try:
            wait_for(self._is_listening, START_S, what=self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 60,
    ) -> Reply:
        """Return the answer to one request. Raises OSError, HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, names, answer.read())

    def kill_workers(self) -> int:
        """Kill gunicorn's workers as the kernel does when memory runs out; return how many. Others are started."""
        pids = self.workers()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def workers(self) -> list[int]:
        """Return the process ids of gunicorn's workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def log(self) -> str:
        """Return everything that was written to stdout and stderr."""
        return os.pread(self._log.fileno(), 1 << 26, 0).decode("utf-8", "replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in found if line["message"] == event]

    def _is_listening(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def wait_for(condition: Callable[[], Any], seconds: float, *, what: Callable[[], str] = str) -> Any:
    """Return what `condition` returns once that is true; fail after `seconds`, telling `what()`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what()}")
        time.sleep(0.02)
    return found
