"""What the demo plays on: a shell that shows its commands, a server process, and requests shown as curl lines."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

WIDTH, LONGEST = 110, 500


class DemoFailed(Exception):
    """A step did not do what it says."""


def expect(holds: bool, what: str) -> None:
    """Raise DemoFailed unless `holds`."""
    if not holds:
        raise DemoFailed(what)


class Answer(NamedTuple):
    """A response: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Shell:
    """Runs `polysky` commands in one folder, shows each as a person would type it."""

    def __init__(self, folder: Path, store: Path) -> None:
        self._folder = folder
        self._env = environment(store)

    def polysky(self, *arguments: str, shown: str | None = None) -> str:
        """Return what the command prints on stdout. Raises DemoFailed if it fails."""
        print(f"  $ polysky {shown or ' '.join(arguments)}", flush=True)
        done = subprocess.run(
            command(*arguments), cwd=self._folder, env=self._env, capture_output=True, text=True, check=False
        )
        expect(done.returncode == 0, f"polysky {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def serve(self, log: Path) -> Server:
        """Start the server on a free port with two workers."""
        print("  $ polysky serve --workers 2", flush=True)
        return Server(command("serve", "--port", "0", "--workers", "2"), self._folder, self._env, log)


def command(*arguments: str) -> list[str]:
    """Return the command line that runs `polysky` with this Python."""
    return [sys.executable, "-m", "scripts.cli", *arguments]


def environment(store: Path) -> dict[str, str]:
    """Return the environment in which `command` finds the project from any folder, and the store."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "POLYSKY_STORE": str(store)}


class Server:
    """A running `polysky serve`; stopped on leaving the `with` block."""

    def __init__(self, line: Sequence[str], folder: Path, env: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                line,
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.token = ""
        self.url = self._read_url(log)

    def _read_url(self, log: Path) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("serving on "):
            self.stop()
            raise DemoFailed(f"the server did not start: {log.read_text()[-500:]}")
        return line.removeprefix("serving on ").strip()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop the server as Ctrl-C does; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        kind: str = "application/json",
        token: str | None = None,
    ) -> Answer:
        """Return the answer to one request over a connection of its own (so either worker may get it)."""
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body:
            headers["Content-Type"] = kind
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def show(self, method: str, path: str, body: Any = None) -> Answer:
        """Return the answer as `ask`; print the curl line and the answer."""
        data = b"" if body is None else json.dumps(body).encode()
        say_curl(method, path, f"-H 'Content-Type: application/json' -d '{data.decode()}'" if data else "")
        answer = self.ask(method, path, data)
        show_answer(answer)
        return answer


def say_curl(method: str, path: str, rest: str = "") -> None:
    """Print the curl lines of a request."""
    verb = "" if method == "GET" else f" -X {method}"
    print(f'  $ curl -s{verb} $URL{path} -H "Authorization: Bearer $TOKEN"' + (" \\" if rest else ""))
    if rest:
        print(f"      {rest}")
    sys.stdout.flush()


def show_answer(answer: Answer) -> None:
    """Print a JSON answer, wrapped and cut."""
    text = re.sub(r',(?=["{])', ", ", answer.body.decode())
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    for line in textwrap.wrap(f"{answer.status} {text}", WIDTH, break_on_hyphens=False):
        print(f"    {line}", flush=True)


def wait_until(what: str, check: Any, timeout_s: float, every_s: float = 0.2) -> float:
    """Wait until `check()` is true; return the seconds it took. Raises DemoFailed after `timeout_s`."""
    started = time.monotonic()
    while not check():
        expect(time.monotonic() - started < timeout_s, f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
    return time.monotonic() - started
