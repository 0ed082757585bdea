"""The clouds' runtimes, each the real program: Lambda's emulator, functions-framework, Azure's Python worker."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from scripts.bench import cold_packages
from scripts.bench.cold_process import Cost, Process, Question, ask, imported

_MACHINES = {"x86_64": "x86_64", "aarch64": "arm64"}
_AZURE_HOST = Path(__file__).parents[2] / "tests" / "runtimes" / "azure_host.py"


class Started(NamedTuple):
    """A runtime that was started, and how to get the first answer: it returns the seconds that took."""

    process: Process
    answer: Callable[[], float]


class Function(NamedTuple):
    """One packaged function, its environment, and what it is asked."""

    cloud: str
    variant: str
    package: Path
    env: Mapping[str, str]
    text: str
    token: str

    def headers(self) -> dict[str, str]:
        """Return the headers of the request."""
        return {"authorization": f"Bearer {self.token}", "content-type": "application/json", "host": "localhost"}

    def body(self) -> bytes:
        """Return the body of the request."""
        return json.dumps({"text": self.text}).encode()


def cold_start(function: Function, scratch: Path) -> Cost:
    """Return what one cold start took, from the start of the process to the first prediction."""
    started = _RUNTIMES[function.cloud](function, scratch, ())
    try:
        return started.process.cost(started.answer())
    finally:
        started.process.stop()


def modules(function: Function, scratch: Path) -> list[str]:
    """Return the modules that a function imports until it has answered; this start is not to be timed."""
    started = _RUNTIMES[function.cloud](function, scratch, ("-X", "importtime"))
    try:
        started.answer()
        return imported(started.process.said())
    finally:
        started.process.stop()


def _aws(function: Function, scratch: Path, options: Sequence[str]) -> Started:
    """The emulator starts the function's process when it is asked for the first time: the clock starts there."""
    port, api = _free_port(), _free_port()
    addresses = ["--runtime-api-address", f"127.0.0.1:{api}"]
    addresses += ["--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    python = [sys.executable, "-S", *options, "-m", "awslambdaric", cold_packages.entry(function.variant)]
    runtime = cold_packages.runtime()
    env = {
        **_env(function, scratch, runtime),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "LAMBDA_TASK_ROOT": str(function.package),
    }
    process = Process([str(_emulator()), *addresses, *python], env, function.package, scratch / "log")

    def answer() -> float:
        process.wait(lambda: _listens(port))
        began = time.perf_counter()
        path = "/2015-03-31/functions/function/invocations"
        assert ask(port, Question(path, json.dumps(_event(function)).encode(), {}, _is_event_answer))
        return time.perf_counter() - began

    return Started(process, answer)


def _event(function: Function) -> dict[str, object]:
    """Return the event of an API Gateway HTTP API."""
    path = "/predict/bench"
    call = {"method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "bench"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": function.headers(),
        "requestContext": {"http": call, "requestId": "bench", "stage": "$default", "domainName": "localhost"},
        "body": function.body().decode(),
        "isBase64Encoded": False,
    }


def _is_event_answer(status: int, body: bytes) -> bool:
    answer = json.loads(body) if body.startswith(b"{") else {}
    return status == 200 and answer.get("statusCode") == 200


def _gcp(function: Function, scratch: Path, options: Sequence[str]) -> Started:
    port = _free_port()
    command = [
        sys.executable,
        "-S",
        *options,
        "-m",
        "functions_framework",
        "--source",
        "main.py",
        "--target",
        "http",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {**_env(function, scratch), "FUNCTION_TARGET": "http"}
    process = Process(command, env, function.package, scratch / "log")
    return Started(process, lambda: _first(process, function, lambda: port))


def _azure(function: Function, scratch: Path, options: Sequence[str]) -> Started:
    command = [sys.executable, "-I", "-S", *options, str(_AZURE_HOST), str(function.package)]
    process = Process(command, _env(function, scratch), function.package, scratch / "log")

    def port() -> int:
        found = re.search(r'^\{"port": (\d+)', process.said(), re.M)
        return int(found[1]) if found else 0

    return Started(process, lambda: _first(process, function, port))


_RUNTIMES = {"aws": _aws, "gcp": _gcp, "azure": _azure}


def _first(process: Process, function: Function, port: Callable[[], int]) -> float:
    """Return the seconds from the start of the process to the first answer."""
    question = Question("/predict/bench", function.body(), function.headers(), lambda status, _: status == 200)

    def answered() -> bool:
        number = port()
        return number > 0 and ask(number, question)

    process.wait(answered)
    return time.perf_counter() - process.began


def _env(function: Function, scratch: Path, *folders: Path) -> dict[str, str]:
    """Return the whole environment of a function: nothing is inherited but PATH. Its disk counts as read-only."""
    path = os.pathsep.join(map(str, (function.package, *folders)))
    places = {"HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return {**places, "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **function.env}


def _emulator() -> Path:
    spec = find_spec("samcli")
    if spec is None or spec.origin is None:
        raise RuntimeError("the Lambda Runtime Interface Emulator is missing: `make test` installs it")
    return Path(spec.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{_MACHINES[os.uname().machine]}"


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with closing(socket.socket()) as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
