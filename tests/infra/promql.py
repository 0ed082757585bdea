"""The expressions of the on-premises rules and panels, and what they ask the server for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from core.telemetry import METRICS
from tests.infra.documents import read_yaml

ONPREM = Path(__file__).resolve().parents[2] / "infra" / "onprem"
PROMETHEUS, DASHBOARD = ONPREM / "prometheus", ONPREM / "grafana" / "dashboards" / "polysky.json"
TOKEN_FILE = "/run/secrets/metrics_token"
_WORDS = {"by", "or", "and", "unless", "offset", "sum", "max"}
_SELECTOR = re.compile(r"([a-z_]+)(?:\{([^}]*)\})?")


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    groups = read_yaml(PROMETHEUS / "rules.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """Return every expression of the rules and of the panels."""
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
