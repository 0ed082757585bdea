"""The server under test: `polysky serve` as people start it, on a bad disk; its processes and their memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from core.local_store import open_store
from core.tokens import create_token
from scripts.demo.stage import Server, command, environment
from scripts.soak.disk import Switch
from scripts.soak.field import SPEC, rows

REFRESH_S = 1.0
FIRST_ROWS = 400
_PAGE_KB = 4


class Machine(NamedTuple):
    """A running server, its folder's parts and the switch of its disk."""

    server: Server
    store: Path
    log: Path
    disk: Switch

    def events(self, *names: str) -> Iterator[dict[str, object]]:
        """Yield the log lines of these events."""
        wanted = tuple(f'"{name}"' for name in names)
        with self.log.open() as lines:
            for line in lines:
                if any(name in line for name in wanted) and (found := json.loads(line)).get("event") in names:
                    yield found

    def http_workers(self) -> list[int]:
        """Return the HTTP worker processes."""
        started = [event for event in self.events("child_started") if event["child"] == "server"]
        return [pid for pid in _children(int(str(started[-1]["pid"]))) if b"spawn_main" in _command(pid)]


@contextmanager
def machine(folder: Path, *, rate: float, seed: int, workers: int = 2) -> Iterator[Machine]:
    """Run the server on a fresh store with two versions of one model."""
    store, log = folder / "store", folder / "server.log"
    (folder / "soak.toml").write_text(SPEC)
    for number in range(2):
        (folder / "rows.csv").write_text(rows(seed + number, FIRST_ROWS))
        train = command("train", "soak.toml", "--data", "rows.csv", "--store", str(store))
        subprocess.run(train, cwd=folder, env=environment(store), check=True, capture_output=True)
    disk = Switch(folder / "disk", store, rate=rate, seed=seed)
    env = {**disk.env(environment(store)), "POLYSKY_REFRESH_S": str(REFRESH_S), "POLYSKY_MIN_UPLOAD_AGE_S": "0.5"}
    line = command("serve", "--port", "0", "--workers", str(workers))
    with Server(line, folder, env, log) as server:
        server.token, _ = create_token(open_store(str(store)), "admin", clock=time.time, random_bytes=os.urandom)
        yield Machine(server, store, log, disk)


def _children(parent: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(path.parent.name)


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class Memory:
    """Samples the resident memory of the HTTP workers, all together."""

    def __init__(self, machine: Machine, every_s: float) -> None:
        self._machine, self._every_s = machine, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples_kb: list[int] = []

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pids = self._machine.http_workers()
        while not self._stop.wait(self._every_s):
            with suppress(OSError):
                pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
                self.samples_kb.append(sum(pages) * _PAGE_KB)

    def growth(self, warm: float = 0.2) -> tuple[int, int]:
        """Return the kilobytes after the warm-up, the first share `warm`, and at the end: medians of a tenth."""
        count = len(self.samples_kb)
        tenth, start = max(1, count // 10), int(count * warm)
        return (
            int(statistics.median(self.samples_kb[start : start + tenth])),
            int(statistics.median(self.samples_kb[-tenth:])),
        )
