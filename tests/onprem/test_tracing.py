"""Traces of the real server at a collector that speaks OTLP; none, and nothing loaded, where none is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from core.local_store import open_store
from core.tokens import create_token
from scripts.cli import run
from scripts.demo.stage import Server, command, environment
from tests.emulators.missing import absent
from tests.infra.daemons import free_port
from tests.mood import SPEC, rows

ROOT = Path(__file__).parents[2]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """A collector of traces; `received` are the bodies that were posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Post)
        self.received: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self) -> list[Any]:
        """Return the spans by now, as OTLP's own types."""
        types = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        batches = [types.ExportTraceServiceRequest.FromString(body) for body in self.received]
        resources = [resource for batch in batches for resource in batch.resource_spans]
        assert all(("service.name", "polysky") in told(resource.resource).items() for resource in resources)
        return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


class Post(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self) -> None:
        """Answer as a collector does."""
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        self.server.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


def told(span: Any) -> dict[str, Any]:
    """Return the attributes of a span or resource."""
    return {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("opentelemetry.sdk") is None:
        absent("OpenTelemetry's SDK")
    folder = tmp_path_factory.mktemp("traced")
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    line = [
        "train",
        str(folder / "mood.toml"),
        "--data",
        str(folder / "data.csv"),
        "--store",
        str(folder / "store"),
    ]
    assert run(line) == 0
    return folder / "store"


@contextmanager
def serving(store: Path, url: str) -> Iterator[Server]:
    """Yield a server that sends its spans to `url`."""
    env = environment(store) | {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    line = command("serve", "--port", "0", "--workers", "1")
    with Server(line, store.parent, env, store.parent / "log") as server:
        kept = open_store(str(store))
        server.token = create_token(kept, "predictor", clock=time.time, random_bytes=os.urandom)[0]
        yield server


def ask(server: Server, body: bytes, **headers: str) -> tuple[int, str]:
    """Return status and request id of a prediction."""
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json", **headers}
    try:
        with urlopen(
            Request(server.url + "/predict/mood?version=production", body, headers), timeout=30
        ) as answer:
            return answer.status, answer.headers["X-Request-Id"]
    except HTTPError as error:
        return error.code, error.headers["X-Request-Id"]


def test_a_request_is_a_span_of_its_callers_trace_without_what_was_sent(store: Path) -> None:
    with ExitStack() as stack:
        collector = stack.enter_context(Collector())
        Thread(target=collector.serve_forever, daemon=True).start()
        stack.callback(collector.shutdown)
        with serving(store, collector.url) as server:
            asked = ask(server, b'{"text":"zanzibar"}', traceparent=f"00-{TRACE}-{PARENT}-01")
            refused = ask(server, b'{"text":"zanzibar"}', Authorization="Bearer polysky_nobody")
        # the server has ended, and sent what was left
        spans = {told(span)["polysky.request_id"]: span for span in collector.spans()}
        secret = [server.token.encode(), b"nobody", b"zanzibar", b"version="]
        assert not [word for word in secret if any(word in body for body in collector.received)]
    assert (asked[0], refused[0]) == (200, 401)
    first, second = spans[asked[1]], spans[refused[1]]
    assert (first.trace_id.hex(), first.parent_span_id.hex(), first.name) == (TRACE, PARENT, "POST")
    facts = told(first)
    assert facts.pop("polysky.version").startswith("v-")
    assert facts == {
        "http.request.method": "POST",
        "url.path": "/predict/mood",
        "http.response.status_code": 200,
        "polysky.request_id": asked[1],
        "polysky.model": "mood",
    }
    assert second.trace_id.hex() != TRACE
    assert told(second)["http.response.status_code"] == 401
    assert first.end_time_unix_nano > first.start_time_unix_nano


def test_a_collector_that_is_away_delays_nobody_and_is_told_of_in_lines_of_json(store: Path) -> None:
    with serving(store, f"http://127.0.0.1:{free_port()}") as server:
        assert [ask(server, b'{"text":"cake"}')[0] for _ in range(3)] == [200] * 3
    lines = (store.parent / "log").read_text().splitlines()
    assert all(line.startswith('{"ts": ') for line in lines), lines


def python(code: str, **env: str) -> str:
    """Return the last line of what a fresh interpreter writes."""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()[-1]


def test_without_a_collector_nothing_is_loaded() -> None:
    code = "import os, sys; from handlers_onprem.tracing import open_traces; "
    code += "print(open_traces({}), [m for m in sys.modules if m.startswith('opentelemetry')])"
    assert python(code) == "None []"


def test_a_missing_library_is_named() -> None:
    code = "import sys; sys.modules['opentelemetry.sdk.trace'] = None; "
    code += "from handlers_onprem.tracing import open_traces; open_traces({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})"
    reason = "OTEL_EXPORTER_OTLP_ENDPOINT needs opentelemetry-exporter-otlp-proto-http"
    assert python(code) == f"core.errors.ConfigError: {reason}"
