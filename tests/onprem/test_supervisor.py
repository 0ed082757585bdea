"""The supervisor with real children."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from handlers_onprem.supervisor import Child, Supervisor

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0: time.sleep(60)\ntime.sleep(60)",
]


class Run:
    """A supervisor at work in a thread (signal handlers are for the main thread, so they are passed by)."""

    def __init__(self, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, grace_s: float = 5.0) -> None:
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.children = [Child(str(index), command) for index, command in enumerate(commands)]
        self.supervisor = Supervisor(
            self.children,
            env=os.environ,
            log=lambda event, **fields: self.events.append((event, fields)),
            grace_s=grace_s,
        )
        self.thread = threading.Thread(target=self.supervisor.run)
        self.thread.start()
        self.wait_for(lambda: all(child.process for child in self.children))

    def wait_for(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> float:
        started = time.monotonic()
        self.supervisor.request_stop()
        self.thread.join(20)
        return time.monotonic() - started

    def pid(self) -> int:
        process = self.children[0].process
        return process.pid if process else 0


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def start(*commands: list[str], grace_s: float = 5.0) -> Run:
        started.append(Run(list(commands), monkeypatch, grace_s))
        return started[-1]

    yield start
    for item in started:
        item.stop()


def group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_child_is_started_again(run: Callable[..., Run]) -> None:
    work = run(SLEEPER)
    first = work.pid()
    os.kill(first, signal.SIGKILL)
    work.wait_for(lambda: work.pid() not in (0, first))
    assert [event for event, _ in work.events] == ["child_started", "child_ended", "child_started"]


def test_a_child_that_keeps_crashing_is_started_at_growing_distances(run: Callable[..., Run]) -> None:
    work = run([sys.executable, "-S", "-c", "raise SystemExit(3)"])
    work.wait_for(lambda: sum(event == "child_ended" for event, _ in work.events) >= 3)
    ends = [fields for event, fields in work.events if event == "child_ended"][:3]
    assert [fields["restart_in_s"] for fields in ends] == [0.5, 1.0, 2.0]
    assert ends[0]["code"] == 3


def test_stop_ends_all_children_at_once(run: Callable[..., Run]) -> None:
    work = run(SLEEPER, SLEEPER)
    pids = [child.process.pid for child in work.children if child.process]
    assert work.stop() < 3
    assert [group_exists(pid) for pid in pids] == [False, False]


def test_a_child_that_ignores_the_request_is_killed_with_what_it_started(run: Callable[..., Run]) -> None:
    work = run(STUBBORN, grace_s=0.5)
    time.sleep(0.5)  # until it ignores SIGTERM
    pid = work.pid()
    assert work.stop() < 5
    work.wait_for(lambda: not group_exists(pid))
