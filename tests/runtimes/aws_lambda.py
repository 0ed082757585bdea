"""A packaged function as Lambda runs it: the Runtime Interface Emulator and AWS's own runtime client.

The package and the runtime client are all that is on the path: no site-packages, no project.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from scripts.package import CACHE, REQUIREMENTS
from scripts.packaging import installation
from scripts.packaging.installation import Target
from tests.emulators.missing import absent

INVOKE = "/2015-03-31/functions/function/invocations"
START_S, ANSWER_S = 60.0, 120.0
_EMULATORS = re.compile(r"$|[0-9]{2} [A-Z][a-z]{2} [0-9]{4} .*\(rapid\)|START |END |REPORT ")
_MACHINES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Result(NamedTuple):
    """What an invocation gave: the function's result, or what went wrong."""

    value: Any
    error: str = ""


class Function:
    """One execution environment of a function: a process that is started at the first invocation, and again."""

    def __init__(self, package: Path, entry: str, env: Mapping[str, str], *, timeout_s: int = 60) -> None:
        self._port, runtime_port = _free_port(), _free_port()
        runtime = installation.installed(REQUIREMENTS / "aws-runtime.txt", Target(), CACHE)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()  # two invocations at once end the emulator
        addresses = ["--runtime-api-address", f"127.0.0.1:{runtime_port}"]
        addresses += ["--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        self._process = subprocess.Popen(
            [emulator(), *addresses, sys.executable, "-S", "-m", "awslambdaric", f"handlers_aws.main.{entry}"],
            cwd=package,
            env={**_environment(package, runtime, entry, timeout_s), **env},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Function:
        try:
            wait_for(self._is_listening, START_S, what=self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def invoke(self, event: object) -> Result:
        """Return what came of an event; the emulator answers 200 for errors of the function too."""
        with self._lock:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
            with contextlib.closing(connection):
                try:
                    connection.request("POST", INVOKE, json.dumps(event))
                    text = connection.getresponse().read().decode()
                except (OSError, HTTPException) as error:
                    return Result(None, repr(error))
        if text.startswith("Task timed out"):
            return Result(None, text)
        value = json.loads(text, parse_constant=lambda name: {"errorMessage": f"{name} in the result"})
        failed = isinstance(value, dict) and "errorMessage" in value
        return Result(None, f"{value.get('errorType')}: {value['errorMessage']}") if failed else Result(value)

    def processes(self) -> list[int]:
        """Return the process id of the function, as a list of one or none."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def signal(self, number: int) -> int:
        """Send the function's process a signal; return how many got it."""
        pids = self.processes()
        for pid in pids:
            os.kill(pid, number)
        return len(pids)

    def log(self) -> str:
        """Return everything that was written to stdout and stderr."""
        return os.pread(self._log.fileno(), 1 << 26, 0).decode("utf-8", "replace")

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Return the log lines of an event of that name."""
        return [line for line in self._objects() if line.get("message") == message]

    def metrics(self) -> list[dict[str, Any]]:
        """Return the documents in the Embedded Metric Format."""
        return [line for line in self._objects() if "_aws" in line]

    def noise(self) -> list[str]:
        """Return the lines that neither the function nor the emulator means to write."""
        ours = [line for line in self.log().splitlines() if not _EMULATORS.match(line)]
        return [line for line in ours if not line.startswith(('{"level":', '{"_aws":'))]

    def _objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def _is_listening(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the emulator ended: {self.log()}")
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True


def emulator() -> str:
    """Return the path of the Runtime Interface Emulator, which lies in aws-sam-cli."""
    spec = find_spec("samcli")
    if spec is None or spec.origin is None:
        absent("aws-sam-cli, which holds Lambda's emulator,")
    name = f"aws-lambda-rie-{_MACHINES[platform.machine()]}"
    return str(Path(spec.origin).parent / "local" / "rapid" / name)


def _environment(package: Path, runtime: Path, entry: str, timeout_s: int) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{package}:{runtime}",
        "LAMBDA_TASK_ROOT": str(package),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{_PYTHON}",
        "AWS_LAMBDA_FUNCTION_NAME": f"polysky-{entry}",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], Any], seconds: float, *, what: Callable[[], str] = str) -> Any:
    """Return what `condition` returns once that is true; fail after `seconds`, telling `what()`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what()}")
        time.sleep(0.02)
    return found
