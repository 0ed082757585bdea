"""The real Prometheus and Alertmanager watch the real server: what they collect, and what reaches whom."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import yaml  # type: ignore[import-untyped]

from core.local_store import open_store
from core.tokens import create_token
from scripts.cli import run
from scripts.demo.stage import Server, command, environment
from tests.infra.daemons import Daemon, free_port
from tests.infra.promql import ONPREM, PROMETHEUS, TOKEN_FILE, expressions, rules, selectors
from tests.infra.tools import tool
from tests.mood import SPEC, rows

SLOW_S = 0.8  # more than half a second, by a good deal


class Watched(NamedTuple):
    """A server with one model, and the Prometheus and Alertmanager that watch it."""

    server: Server
    store: Path
    prometheus: str
    alertmanager: str

    def query(self, expression: str) -> list[Any]:
        """Return the samples that an expression has now."""
        found = read(f"{self.prometheus}/api/v1/query?query={quote(expression)}")
        samples: list[Any] = found["data"]["result"]
        return samples

    def alerts(self) -> set[tuple[str, str]]:
        """Return (alert, model) that Alertmanager knows."""
        labels = [alert["labels"] for alert in read(f"{self.alertmanager}/api/v2/alerts")]
        return {(found["alertname"], found.get("model", "")) for found in labels}


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def until(condition: Callable[[], Any], timeout_s: float = 30, pause_s: float = 0.2) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not come true in time"
        time.sleep(pause_s)


def hurried(alert: str) -> str:
    """Return a rule whose minutes are seconds."""
    rule = next(rule for rule in rules() if rule["alert"] == alert)
    text: str = yaml.safe_dump({"groups": [{"name": "hurried", "rules": [rule]}]})
    assert text.count("5m") == 2
    return text.replace("5m", "12s")


def slow_questions(server: Server) -> Callable[[], None]:
    """Return a call that asks one question whose answer takes longer than it may: more rows until it does."""
    count = 10_000

    def ask() -> None:
        nonlocal count
        body = json.dumps({"texts": ["cake and a friend in the rain with tears"] * count}).encode()
        started = time.monotonic()
        assert server.ask("POST", "/predict/mood", body).status == 200
        if time.monotonic() - started < SLOW_S:
            count *= 2

    return ask


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("onprem")
    store = folder / "store"
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    assert (
        run(["train", str(folder / "mood.toml"), "--data", str(folder / "data.csv"), "--store", str(store)]) == 0
    )
    tokens = {
        role: create_token(open_store(str(store)), role, clock=time.time, random_bytes=os.urandom)[0]
        for role in ("metrics", "predictor")
    }
    (folder / "token").write_text(tokens["metrics"])
    env = environment(store) | {"POLYSKY_REFRESH_S": "0.5", "POLYSKY_MIN_UPLOAD_AGE_S": "0.1"}
    env |= {"POLYSKY_MAX_BATCH_ROWS": "1000000", "POLYSKY_MAX_BODY_BYTES": "67108864"}
    line = command("serve", "--port", "0", "--workers", "1")
    with ExitStack() as stack:
        server = stack.enter_context(Server(line, folder, env, folder / "server.log"))
        server.token = tokens["predictor"]
        keeper = f"127.0.0.1:{free_port()}"
        listen = [f"--web.listen-address={keeper}", f"--storage.path={folder / 'alertmanager'}"]
        settings = f"--config.file={ONPREM / 'alertmanager' / 'alertmanager.yml'}"
        line = [str(tool("prometheus-alertmanager")), settings, *listen, "--cluster.listen-address="]
        stack.enter_context(Daemon(line, folder, f"http://{keeper}/-/ready"))
        watcher = f"127.0.0.1:{free_port()}"
        text = (PROMETHEUS / "prometheus.yml").read_text().replace(TOKEN_FILE, str(folder / "token"))
        text = text.replace("server:8080", server.url.removeprefix("http://")).replace("localhost:9090", watcher)
        text = text.replace("alertmanager:9093", keeper).replace(": 15s", ": 1s")
        text = text.replace("[rules.yml]", "[rules.yml, hurried.yml]")
        (folder / "prometheus.yml").write_text(text)
        (folder / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text())
        (folder / "hurried.yml").write_text(hurried("PolyskySlow"))
        listen = [f"--web.listen-address={watcher}", f"--storage.tsdb.path={folder / 'prometheus'}"]
        line = [str(tool("prometheus")), f"--config.file={folder / 'prometheus.yml'}", *listen]
        stack.enter_context(Daemon(line, folder, f"http://{watcher}/-/ready"))
        yield Watched(server, store, f"http://{watcher}", f"http://{keeper}")


def test_prometheus_scrapes_the_server_with_its_token_and_loads_the_rules(watched: Watched) -> None:
    until(lambda: watched.query('up{job="polysky"} == 1'))
    groups = read(f"{watched.prometheus}/api/v1/rules")["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {rule["alert"] for rule in rules()}


def test_every_metric_of_the_rules_and_panels_comes_out_of_the_real_server(watched: Watched) -> None:
    for _ in range(3):
        assert watched.server.ask("POST", "/predict/mood", b'{"text":"cake and a friend"}').status == 200
    assert watched.server.ask("POST", "/predict/mood", b"{}", token="polysky_nobody").status == 401
    (watched.store / "uploads" / "mood" / "bad.csv").write_text("text,label\n")
    (watched.store / "uploads" / "mood" / "good.csv").write_text(rows(200, 60))
    asked = {name for expression in expressions() for name, _ in selectors(expression)}
    # what only a broken store shows is provoked below
    asked -= {"model_refresh_failures_count", "integrity_failures_count"}
    until(lambda: all(watched.query(name) for name in asked), 60)


def test_an_upload_that_is_refused_reaches_alertmanager(watched: Watched) -> None:
    until(lambda: ("PolyskyDataRejected", "mood") in watched.alerts())


def test_a_slow_minute_reaches_alertmanager_and_is_over_with_it(watched: Watched) -> None:
    slow, ask = ("PolyskySlow", ""), slow_questions(watched.server)

    def told_of_slow() -> bool:
        ask()
        return slow in watched.alerts()

    def told_of_quick() -> bool:
        assert watched.server.ask("POST", "/predict/mood", b'{"text":"cake"}').status == 200
        return slow in watched.alerts()

    until(lambda: not told_of_quick())  # the first answers of a process may be slow
    until(told_of_slow, 60, pause_s=2)
    until(lambda: not told_of_quick(), 60)


def test_a_broken_log_and_an_unreadable_alias_reach_alertmanager(watched: Watched) -> None:
    broken = watched.store / "reg" / "spoilt" / "log"
    broken.mkdir(parents=True)
    (broken / "000000000000.json").write_text("garbage")
    (watched.store / "reg" / "_models" / "spoilt.json").write_text("{}")
    alias = watched.store / "reg" / "mood" / "alias" / "production.json"
    alias.write_text("nothing")
    until(lambda: ("PolyskyIntegrity", "spoilt") in watched.alerts())
    until(lambda: watched.query('model_refresh_failures_count{model="mood"} > 0'))
