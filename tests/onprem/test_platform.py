"""The on-premises platform as it runs: a supervisor, two HTTP workers and a job worker on one folder.

The tests share one server and run in order; each leaves it serving.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from core.local_store import open_store
from core.tokens import create_token
from scripts.cli import run
from scripts.demo.stage import Answer, Server, command, environment
from tests.mood import SPEC, rows

LIMIT = 50_000
QUESTION = {"text": "cake and a friend and a gift"}


class Live(NamedTuple):
    """A running platform."""

    server: Server
    folder: Path
    log: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.server.ask(method, path, data, **options)

    def version(self) -> str:
        answer = self.ask("POST", "/predict/mood", QUESTION)
        assert answer.status == 200, answer.body
        return answer.headers["x-model-version"]

    def everywhere(self) -> set[str]:
        """Return the versions that answer 24 new connections."""
        with ThreadPoolExecutor(4) as pool:
            return set(pool.map(lambda _: self.version(), range(24)))

    def settled(self) -> str:
        """Return the version in production, once every worker answers with it."""
        versions = self.ask("GET", "/models/mood/versions").json()["versions"]
        serving = next(str(item["version"]) for item in versions if "production" in item["aliases"])
        until(lambda: self.everywhere() == {serving}, 5)
        return serving

    def job(self, path: str) -> dict[str, Any]:
        """Return the job once it has its outcome."""
        found: dict[str, Any] = {}

        def is_done() -> bool:
            found.update(self.ask("GET", path).json())
            return found["status"] in {"rejected", "parked"} or bool(found["gate"])

        until(is_done, 40)
        return found

    def samples(self) -> dict[str, float]:
        text = self.ask("GET", "/metrics").body.decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def pid(self, child: str) -> int:
        return int(next(e["pid"] for e in reversed(self.events("child_started")) if e["child"] == child))

    def workers(self) -> set[int]:
        """Return the HTTP worker processes (multiprocessing's resource tracker is none)."""
        found = {pid for pid, parent in processes() if parent == self.pid("server")}
        return {pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def processes() -> Iterator[tuple[int, int]]:
    """Yield (process, parent) of all processes."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


def until(condition: Callable[[], Any], timeout_s: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not come true in time"
        time.sleep(0.1)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("platform")
    store = folder / "store"
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    train = ["train", str(folder / "mood.toml"), "--data", str(folder / "data.csv"), "--store", str(store)]
    assert run(train) == 0
    token, _ = create_token(open_store(str(store)), "admin", clock=time.time, random_bytes=os.urandom)
    env = environment(store) | {
        "POLYSKY_REFRESH_S": "1",
        "POLYSKY_MIN_UPLOAD_AGE_S": "0.5",
        "POLYSKY_MAX_BODY_BYTES": str(LIMIT),
    }
    log = folder / "server.log"
    with Server(command("serve", "--port", "0", "--workers", "2"), folder, env, log) as server:
        server.token = token
        yield Live(server, folder, log)


def test_a_prediction_is_answered(live: Live) -> None:
    answer = live.ask("POST", "/predict/mood", QUESTION)
    assert (answer.status, answer.json()["predictions"][0]["label"]) == (200, "glad")


def test_without_a_token_nothing_is_answered(live: Live) -> None:
    assert live.ask("POST", "/predict/mood", QUESTION, token="").status == 401


def raw(live: Live, lines: list[bytes], body: bytes = b"") -> bytes:
    """Return what the server answers to these bytes."""
    host, port = urlsplit(live.server.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"\r\n".join([*lines, b"Host: x", b"Connection: close", b"", b""]) + body)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)


def test_two_authorization_headers_are_refused_even_if_one_is_right(live: Live) -> None:
    right = f"Authorization: Bearer {live.server.token}".encode()
    answer = raw(live, [b"GET /models HTTP/1.1", right, b"Authorization: Bearer other"])
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert raw(live, [b"GET /models HTTP/1.1", right]).startswith(b"HTTP/1.1 200 ")


def test_head_answers_the_headers_alone(live: Live) -> None:
    head, _, body = raw(live, [b"HEAD /health/live HTTP/1.1"]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 0" not in head
    assert body == b""


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (LIMIT + 1), b"Transfer-Encoding: chunked"])
def test_a_body_over_the_limit_is_refused(live: Live, framing: bytes) -> None:
    token = f"Authorization: Bearer {live.server.token}".encode()
    body = json.dumps({"text": "x" * (LIMIT + 1)}).encode()[: LIMIT + 1]
    if framing.startswith(b"T"):
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    lines = [b"POST /predict/mood HTTP/1.1", token, b"Content-Type: application/json", framing]
    assert raw(live, lines, body).startswith(b"HTTP/1.1 413 ")


def test_a_body_with_broken_chunks_is_the_clients_fault(live: Live) -> None:
    token = f"Authorization: Bearer {live.server.token}".encode()
    kind = (b"Content-Type: application/json", b"Transfer-Encoding: chunked")
    answer = raw(live, [b"POST /predict/mood HTTP/1.1", token, *kind], b"zz\r\n{}\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"malformed_body"' in answer


def test_an_endless_head_is_cut_off(live: Live) -> None:
    fields = [b"X-%d: %s" % (index, b"a" * 10_000) for index in range(100)]
    answer = b""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        answer = raw(live, [b"GET /health HTTP/1.1", *fields])
    assert not answer.startswith(b"HTTP/1.1 2")
    assert live.ask("GET", "/health").status == 200


def test_clients_that_stall_do_not_stop_the_others(live: Live) -> None:
    host, port = urlsplit(live.server.url).netloc.split(":")
    head = b"POST /predict/mood HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    with contextlib.ExitStack() as held:
        for index in range(60):
            client = held.enter_context(socket.create_connection((host, int(port)), timeout=10))
            client.sendall(head if index % 2 else head + b"\r\n{")
        started = time.monotonic()
        assert len(live.everywhere()) == 1
        assert time.monotonic() - started < 3


def test_an_upload_delivered_five_times_makes_one_version_that_serves_everywhere(live: Live) -> None:
    before = len(live.ask("GET", "/models/mood/versions").json()["versions"])
    answers = [live.ask("POST", "/retrain/mood", rows(1000, 40).encode(), kind="text/csv") for _ in range(5)]
    assert [answer.status for answer in answers] == [202] * 5
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    job = live.job(answers[0].json()["status_url"])
    assert (job["status"], job["gate"]["passed"]) == ("succeeded", True)
    until(lambda: live.everywhere() == {job["version"]}, 5)
    assert len(live.ask("GET", "/models/mood/versions").json()["versions"]) == before + 1


def test_a_file_copied_into_the_store_is_learnt_from(live: Live) -> None:
    before = live.settled()
    (live.folder / "more.csv").write_text(rows(2000, 40))
    inbox = live.store / "uploads" / "mood"
    inbox.mkdir(parents=True, exist_ok=True)
    shutil.copy(live.folder / "more.csv", inbox / "more.csv")
    until(lambda: live.version() != before, 30)


def test_a_worse_version_stays_in_staging_with_the_reason(live: Live) -> None:
    serving = live.settled()
    wrong = rows(3000, 400, names=("sad", "glad")).encode()
    accepted = live.ask("POST", "/retrain/mood", wrong, kind="text/csv")
    job = live.job(accepted.json()["status_url"])
    assert not (job["gate"] or {}).get("passed", False)
    assert live.everywhere() == {serving}


def test_a_rollback_is_seen_by_every_worker_within_five_seconds(live: Live) -> None:
    serving = live.settled()
    moved = live.ask("POST", "/models/mood/rollback", {"reason": "test"})
    assert moved.status == 200
    target = moved.json()["splits"][0]["version"]
    assert target != serving
    assert until(lambda: live.everywhere() == {target}, 5) < 5


def test_metrics_are_the_totals_of_all_workers_and_of_the_job_worker(live: Live) -> None:
    name = 'app_request_count{method="POST",endpoint="/predict/{model}",status="200"}'
    before = live.samples()[name]
    live.everywhere()
    assert [live.samples()[name] for _ in range(6)] == [before + 24] * 6
    assert live.samples()['retraining_events_count{model="mood",outcome="promoted"}'] >= 2


def test_a_killed_worker_is_replaced_and_its_counts_stay(live: Live) -> None:
    name = 'app_request_count{method="POST",endpoint="/predict/{model}",status="200"}'
    before, workers = live.samples()[name], live.workers()
    assert len(workers) == 2
    os.kill(min(workers), signal.SIGKILL)

    def is_replaced() -> bool:
        now = live.workers()
        return len(now) == 2 and min(workers) not in now

    until(is_replaced, 10)
    with contextlib.suppress(OSError, http.client.HTTPException):
        live.version()  # may have met the dead worker's connection
    until(lambda: len(live.everywhere()) == 1, 5)
    assert live.samples()[name] >= before + 24


def test_a_killed_job_worker_is_replaced_and_takes_up_the_work(live: Live) -> None:
    before = live.settled()
    killed = live.pid("jobs")
    os.kill(killed, signal.SIGKILL)
    live.ask("POST", "/retrain/mood", rows(4000, 40).encode(), kind="text/csv")
    until(lambda: live.pid("jobs") != killed, 5)
    until(lambda: live.version() != before, 30)


def test_a_second_server_on_the_same_port_says_so(live: Live, capfd: pytest.CaptureFixture[str]) -> None:
    port = urlsplit(live.server.url).netloc.split(":")[1]
    assert run(["serve", "--port", port, "--store", str(live.store)]) == 2
    assert "cannot listen on 127.0.0.1:" + port in capfd.readouterr().err


def test_a_store_that_is_a_file_is_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["serve", "--port", "0", "--store", str(tmp_path / "file")]) == 2
    assert capfd.readouterr().err == "polysky: the store is a file where a folder should be\n"


def test_no_log_line_holds_the_token_or_a_text(live: Live) -> None:
    log = live.log.read_text()
    assert live.server.token not in log
    assert QUESTION["text"] not in log


def test_sigterm_ends_everything_cleanly(live: Live) -> None:
    pids = {live.pid("server"), live.pid("jobs"), *live.workers()}
    started = time.monotonic()
    assert live.server.stop() == 0
    assert time.monotonic() - started < 8
    assert pids & {pid for pid, _ in processes()} == set()
    assert live.events("child_ended")[-1]["child"] == "jobs"  # the one that a test killed; none since
