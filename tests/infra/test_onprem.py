"""The on-premises stack: its files are what their programs take, and the real ones watch the real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from core.local_store import open_store
from core.telemetry import METRICS
from core.tokens import create_token
from scripts.cli import run
from scripts.demo.stage import Server, command, environment
from tests.infra.daemons import Daemon, free_port
from tests.infra.documents import read_yaml
from tests.infra.tools import tool
from tests.mood import SPEC, rows

ONPREM = Path(__file__).resolve().parents[2] / "infra" / "onprem"
PROMETHEUS, DASHBOARD = ONPREM / "prometheus", ONPREM / "grafana" / "dashboards" / "polysky.json"
TOKEN_FILE = "/run/secrets/metrics_token"
_WORDS = {"by", "or", "and", "unless", "offset", "sum", "max"}
_SELECTOR = re.compile(r"([a-z_]+)(?:\{([^}]*)\})?")


def accepts(*line: str | Path, folder: Path | None = None) -> bool:
    """Tell whether a program accepts the files it is given."""
    program = tool(str(line[0]))
    done = subprocess.run([program, *line[1:]], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode == 0


def edited(source: Path, target: Path, old: str, new: str) -> Path:
    """Return `target`, a copy of `source` with one text replaced."""
    text = source.read_text()
    assert text.count(old) == 1, f"{old} is not once in {source.name}"
    target.write_text(text.replace(old, new))
    return target


# -- compose -----------------------------------------------------------------------------------------------


def compose_accepts(file: Path) -> bool:
    return accepts("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_compose_keeps_its_schema() -> None:
    assert compose_accepts(ONPREM / "compose.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    mem_limit:", "    mem_limits:"),
        ("profiles: [s3]", "profiles: s3"),
        ("stop_grace_period: 15s", "ports: 1"),
    ],
)
def test_a_misspelt_compose_file_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    assert not compose_accepts(edited(ONPREM / "compose.yaml", tmp_path / "compose.yaml", old, new))


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_yaml(ONPREM / "compose.yaml")["services"]
    return found


def test_no_password_or_token_has_a_default() -> None:
    text = (ONPREM / "compose.yaml").read_text()
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+):?[-?]([^}]*)\}", text))
    assert defaults["GRAFANA_ADMIN_PASSWORD"].startswith("is not set")
    assert defaults["POLYSKY_METRICS_TOKEN_FILE"].startswith("names no file")
    assert (defaults["S3_ROOT_USER"], defaults["S3_ROOT_PASSWORD"]) == ("", "")
    assert services()["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith(
        "${GRAFANA_ADMIN_PASSWORD:?"
    )


def test_every_service_is_hardened_pinned_and_on_this_machine_alone() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "server" or re.search(r":\S*\d", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_every_folder_that_is_mounted_exists() -> None:
    volumes = read_yaml(ONPREM / "compose.yaml")["volumes"]
    for service in services().values():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert source in volumes or (ONPREM / source).is_dir(), mount


# -- Prometheus, Alertmanager, Grafana: their files --------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A copy of Prometheus's folder whose token file exists."""
    token = tmp_path / "token"
    token.write_text("x")
    (tmp_path / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text())
    return edited(PROMETHEUS / "prometheus.yml", tmp_path / "prometheus.yml", TOKEN_FILE, str(token))


def test_promtool_accepts_configuration_and_rules(config: Path) -> None:
    assert accepts("promtool", "check", "config", config)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prometheus.yml", "evaluation_interval: 15s", "evaluation_interval: often"),
        ("prometheus.yml", "metrics_path", "metric_path"),
        ("rules.yml", "histogram_quantile(", "histogram_quartile("),
    ],
)
def test_broken_configuration_is_noticed(config: Path, file: str, old: str, new: str) -> None:
    edited(config.parent / file, config.parent / file, old, new)
    assert not accepts("promtool", "check", "config", config)


def rules_hold(folder: Path) -> bool:
    return accepts("promtool", "test", "rules", "rules.test.yml", folder=folder / "tests")


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    assert rules_hold(PROMETHEUS)


def test_every_alert_is_tested_both_ways() -> None:
    alerts = {rule["alert"] for rule in rules()}
    cases = read_yaml(PROMETHEUS / "tests" / "rules.test.yml")["tests"]
    told = [(case["alertname"], "exp_alerts" in case) for test in cases for case in test["alert_rule_test"]]
    assert set(told) == {(alert, fires) for alert in alerts for fires in (True, False)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.99, sum by", "0.9, sum by"),
        (") > 0.5\n        for: 5m", ") > 0.5\n        for: 1m"),
        (" > 0.01", " > 0.1"),
        ('{endpoint=~"/predict.*"}', ""),
        ("== 0\n        for: 1m", "== 0\n        for: 10m"),
        (" unless integrity_failures_count offset 15m", ""),
        (" * 0)", " * 1)"),
    ],
)
def test_a_changed_rule_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "rules.test.yml").write_text((PROMETHEUS / "tests" / "rules.test.yml").read_text())
    edited(PROMETHEUS / "rules.yml", tmp_path / "rules.yml", old, new)
    assert not rules_hold(tmp_path)


def test_amtool_accepts_the_routes_and_notices_a_receiver_that_is_none(tmp_path: Path) -> None:
    source = ONPREM / "alertmanager" / "alertmanager.yml"
    assert accepts("amtool", "check-config", source)
    broken = edited(source, tmp_path / "alertmanager.yml", "receiver: pager", "receiver: nobody-at-all")
    assert not accepts("amtool", "check-config", broken)


def test_every_severity_has_a_receiver_of_its_own() -> None:
    severities = {rule["labels"]["severity"] for rule in rules()}
    routes = read_yaml(ONPREM / "alertmanager" / "alertmanager.yml")["route"]["routes"]
    assert {matcher for route in routes for matcher in route["matchers"]} == {
        f'severity = "{s}"' for s in severities
    }


def test_grafanas_panels_ask_the_provisioned_datasource() -> None:
    board = json.loads(DASHBOARD.read_text())
    source = read_yaml(ONPREM / "grafana/provisioning/datasources/prometheus.yml")
    known = {(one["type"], one["uid"]) for one in source["datasources"]}
    assert {(p["datasource"]["type"], p["datasource"]["uid"]) for p in board["panels"]} == known
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# -- names in expressions ----------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    groups = read_yaml(PROMETHEUS / "rules.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules()] + [t["expr"] for panel in panels for t in panel["targets"]]


def selectors(expression: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return (metric, labels it is selected by) of an expression of PromQL."""
    bare = re.sub(r"\bby \([^)]*\)|\[[^]]*\]|offset \w+", " ", expression)
    bare = re.sub(r"\b[a-z_]+ *\((?! *\))", "(", bare)
    found = _SELECTOR.findall(re.sub(r"\b[0-9.]+[a-z]*", " ", bare))
    return {(name, tuple(re.findall(r"(\w+)[=!]", labels))) for name, labels in found if name not in _WORDS}


def unknown(expression: str) -> list[str]:
    """Return what an expression asks for that no server exposes: metrics, labels, groups."""
    wrong: list[str] = []
    legal = {"le", "job", "instance"}
    for name, labels in selectors(expression):
        metric = METRICS.get(re.sub(r"_(bucket|sum|count)$", "", name)) if name not in METRICS else METRICS[name]
        if name == "up":
            continue
        if metric is None or (metric.type == "histogram") == (metric.name == name):
            wrong.append(name)
            continue
        legal |= set(metric.labels)
        wrong += [f"{name}.{label}" for label in labels if label not in {*metric.labels, "job"}]
    groups = re.findall(r"\bby \(([^)]*)\)", expression)
    return wrong + [word for group in groups for word in re.split(r"[ ,]+", group) if word not in legal]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_only_what_the_server_has(expression: str) -> None:
    assert selectors(expression)
    assert unknown(expression) == []


def test_a_metric_a_label_or_a_group_that_is_none_is_noticed() -> None:
    assert unknown("sum by (le) (rate(app_request_latency_seconds[5m]))") == ["app_request_latency_seconds"]
    assert unknown("rate(app_requests_total[5m]) > 1") == ["app_requests_total"]
    assert unknown('jobs_count{state="parked"}') == ["jobs_count.state"]
    assert unknown("sum by (version) (jobs_count)") == ["version"]
    assert unknown("rate(app_request_count_bucket[5m])") == ["app_request_count_bucket"]


# -- the real programs -------------------------------------------------------------------------------------


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


def until(condition: Callable[[], Any], timeout_s: float = 30) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "it did not come true in time"
        time.sleep(0.2)


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
        (folder / "prometheus.yml").write_text(text)
        (folder / "rules.yml").write_text((PROMETHEUS / "rules.yml").read_text())
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


def test_a_broken_log_and_an_unreadable_alias_reach_alertmanager(watched: Watched) -> None:
    broken = watched.store / "reg" / "spoilt" / "log"
    broken.mkdir(parents=True)
    (broken / "000000000000.json").write_text("garbage")
    (watched.store / "reg" / "_models" / "spoilt.json").write_text("{}")
    alias = watched.store / "reg" / "mood" / "alias" / "production.json"
    alias.write_text("nothing")
    until(lambda: ("PolyskyIntegrity", "spoilt") in watched.alerts())
    until(lambda: watched.query('model_refresh_failures_count{model="mood"} > 0'))
