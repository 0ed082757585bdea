"""One cold start, seen from outside: a function's process begins, fetches its model and answers."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_DEADLINE_S = 120.0
_IMPORTED = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s*(\S+)$", re.M)


class Cost(NamedTuple):
    """Seconds of wall clock and of CPU until the first answer, peak memory in MB."""

    wall_s: float
    cpu_s: float
    rss_mb: float


class Question(NamedTuple):
    """An HTTP request and what its answer must look like."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    answered: Callable[[int, bytes], bool]


class Process:
    """A runtime of one function in its own process group; what it writes goes to the file `log`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> None:
        self.log = log
        self.began = time.perf_counter()
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command, env=dict(env), cwd=folder, stdout=output, stderr=output, start_new_session=True
            )

    def stop(self) -> None:
        """End the process and its descendants, and wait until they are gone: the next one measured is alone.

        Lambda's emulator starts the function in a process group of its own; unasked it would end in its own time.
        """
        family = self._family()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # those too whose parent has ended
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        while any(map(_runs, family)):
            time.sleep(0.002)

    def said(self) -> str:
        """Return what it wrote so far."""
        return self.log.read_text(errors="replace")

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until `done`. Raises RuntimeError if the process ends, or does not get there in time."""
        while not done():
            if self._process.poll() is not None or time.perf_counter() - self.began > _DEADLINE_S:
                raise RuntimeError(f"no answer:\n{self.said()[-3000:]}")
            time.sleep(0.002)

    def pids(self) -> list[int]:
        """Return the process and its descendants that run Python."""
        python = os.path.realpath(sys.executable)
        return [pid for pid in self._family() if os.path.realpath(f"/proc/{pid}/exe") == python]

    def _family(self) -> list[int]:
        found, parents = [self._process.pid], _parents()
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cost(self, wall_s: float) -> Cost:
        """Return what its Python processes took until now; memory is that of the largest."""
        pids = self.pids()
        return Cost(wall_s, sum(map(cpu_of, pids)), max(map(_peak_mb, pids)))


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, of all its threads, those that ended too."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock that clock_getcpuclockid(3) names


def _peak_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return float(text.partition("VmHWM:")[2].split()[0]) / 1024


def _runs(pid: int) -> bool:
    """Return whether a process still holds anything; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/stat").read_text()
            except OSError:  # it has ended
                continue
            found[int(name)] = int(text.rpartition(")")[2].split()[1])
    return found


def imported(log: str) -> list[str]:
    """Return the modules that an interpreter with `-X importtime` wrote of, each once, in order.

    It writes of import statements only, not of the few modules that importlib.import_module loads by name.
    """
    return list(dict.fromkeys(_IMPORTED.findall(log)))


def ask(port: int, question: Question) -> bool:
    """Return whether the function answered, not yet if nothing listens. Raises RuntimeError for a wrong answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_DEADLINE_S)
    try:
        connection.request("POST", question.path, question.body, dict(question.headers))
        answer = connection.getresponse()
        body = answer.read()
    except (ConnectionError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if not question.answered(answer.status, body):
        raise RuntimeError(f"status {answer.status}: {body[:500].decode(errors='replace')}")
    return True
