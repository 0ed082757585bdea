"""Servers of others, started on a port of this machine and ended with the block."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """A running program that answers `url` with 200 once it is ready; what it writes is in `folder`."""

    def __init__(self, line: Sequence[str], folder: Path, url: str) -> None:
        self._log = folder / f"{Path(line[0]).name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=log)
        self._url = url

    def __enter__(self) -> Daemon:
        deadline = time.monotonic() + 30
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(self._log.read_text()[-2000:])
            time.sleep(0.1)
        return self

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
