"""The on-premises stack: its files are what their programs take, and name what the server and each other have."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from handlers_onprem.tracing import VARIABLES
from tests.infra.documents import read_yaml
from tests.infra.promql import DASHBOARD, ONPREM, PROMETHEUS, TOKEN_FILE, expressions, rules, selectors, unknown
from tests.infra.tools import tool

COMPOSED = ("compose.yaml", "s3.yaml", "jaeger.yaml")


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


@pytest.mark.parametrize("file", COMPOSED)
def test_compose_keeps_its_schema(file: str) -> None:
    assert compose_accepts(ONPREM / file)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("compose.yaml", "    mem_limit:", "    mem_limits:"),
        ("compose.yaml", "stop_grace_period: 15s", "ports: 1"),
        ("s3.yaml", "cap_add: [CHOWN", "cap_add: [2"),
        ("s3.yaml", "networks: [stored]", "networks: stored"),
        ("jaeger.yaml", "mem_limit", "memory_limit"),
    ],
)
def test_a_misspelt_compose_file_is_noticed(tmp_path: Path, file: str, old: str, new: str) -> None:
    assert not compose_accepts(edited(ONPREM / file, tmp_path / file, old, new))


def services() -> dict[str, dict[str, Any]]:
    """Return the services of all files by name, put together."""
    found: dict[str, dict[str, Any]] = {}
    for file in COMPOSED:
        for name, one in read_yaml(ONPREM / file)["services"].items():
            found[name] = {**found.get(name, {}), **one}
    return found


def test_no_password_or_token_has_a_default() -> None:
    text = "".join((ONPREM / file).read_text() for file in COMPOSED)
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+):\?", text))
    assert wanted == {"GRAFANA_ADMIN_PASSWORD", "POLYSKY_METRICS_TOKEN_FILE", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    secret = [
        line for line in text.splitlines() if re.match(r"\s+[A-Z0-9_]*(PASSWORD|SECRET|KEY)[A-Z0-9_]*:", line)
    ]
    assert len(secret) == 3
    assert all(re.search(r": \$\{[A-Z0-9_]+:\?[^}]+\}$", line) for line in secret)


def test_every_service_is_hardened_pinned_and_on_this_machine_alone() -> None:
    for name, service in services().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "server" or re.search(r":\S*\d", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_every_folder_that_is_mounted_exists() -> None:
    volumes = {name for file in COMPOSED for name in read_yaml(ONPREM / file).get("volumes", ())}
    for service in services().values():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert source in volumes or (ONPREM / source).is_dir(), mount


def test_an_upload_of_the_largest_size_finds_room() -> None:
    """It is read through /tmp, with as much again beside it: no tmpfs, which counts as memory."""
    server = services()["server"]
    assert "scratch:/tmp" in server["volumes"]
    assert "tmpfs" not in server


def test_the_configurations_name_services_ports_and_files_that_there_are() -> None:
    known, image = services(), (ONPREM.parent / "docker" / "Dockerfile").read_text()
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    (port,) = re.findall(r"^EXPOSE (\d+)$", image, re.MULTILINE)
    assert scraped["polysky"] == [f"server:{port}"]
    assert known["server"]["ports"][0].endswith(f":{port}")
    (keeper,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    (source,) = read_yaml(ONPREM / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    for name, url in (("alertmanager", keeper), ("prometheus", source["url"].removeprefix("http://"))):
        assert url.startswith(f"{name}:")
        assert known[name]["ports"][0].endswith(url.removeprefix(name))
    secret = config["scrape_configs"][0]["authorization"]["credentials_file"]
    assert [secret] == [f"/run/secrets/{name}" for name in known["prometheus"]["secrets"]] == [TOKEN_FILE]
    assert known["server"]["environment"][VARIABLES[0]] == "http://jaeger:4318"
    assert set(known["server"]["networks"]) & set(known["jaeger"]["networks"])
    (boards,) = read_yaml(ONPREM / "grafana/provisioning/dashboards/dashboards.yml")["providers"]
    assert f"./grafana/dashboards:{boards['options']['path']}:ro" in known["grafana"]["volumes"]


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


def test_a_panel_of_now_asks_for_now_and_the_others_name_their_lines() -> None:
    """Of a table's answer over time Grafana shows one series at once."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            asked = (target.get("format"), target.get("instant", False))
            assert asked == (("table", True) if panel["type"] == "table" else (None, False)), panel["title"]
            assert panel["type"] == "table" or target["legendFormat"], panel["title"]


# -- names in expressions ----------------------------------------------------------------------------------


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
