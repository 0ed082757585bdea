"""What a deployment weighs, may do and costs, before anything is made."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from scripts.stacks import INFRA

ROOT = Path(__file__).resolve().parent.parent
PRICES = Path(__file__).with_name("prices.toml")
_GRANTS = {
    "aws": (re.compile(r'"([a-z0-9-]+:[A-Za-z*]+)"'), "roles.tf"),
    "gcp": (re.compile(r'"(roles/[\w.]+)"'), "*.tf"),
    "azure": (re.compile(r'role(?:_definition_name)?\s*=\s*"([^"]+)"'), "*.tf"),
}
_BUDGET = """
import sys
before = set(sys.modules)
import core.app, core.config, core.reader, core.telemetry, core.web
print(len(set(sys.modules) - before))
"""


class Traffic(NamedTuple):
    """Requests of a month, and how long each takes while the function is warm."""

    requests: int
    latency_ms: float


class Item(NamedTuple):
    """One line of a bill: how much of what, and what it costs; `source` and `date` are those of the price."""

    what: str
    amount: float
    usd: float
    source: str
    date: str


def read_prices(path: Path = PRICES) -> dict[str, Any]:
    """Return the table of prices."""
    return tomllib.loads(path.read_text())


def bill(prices: dict[str, Any], traffic: Traffic) -> list[Item]:
    """Return a cloud's lines of a month. Each request is billed as if it were alone in its instance."""
    step = prices["rounds_up_to_ms"]
    billed_s = max(prices["least_ms"], math.ceil(traffic.latency_ms / step) * step) / 1000
    amounts = {
        "requests": float(traffic.requests),
        "gb_seconds": traffic.requests * billed_s * prices["memory_mb"] / 1024,
        "cpu_seconds": traffic.requests * billed_s,
        "gateway": float(traffic.requests),
    }
    return [_item(what, amount, prices[what]) for what, amount in amounts.items() if what in prices]


def _item(what: str, amount: float, price: dict[str, Any]) -> Item:
    usd = max(0.0, amount - price["free"]) / price["per"] * price["usd"]
    return Item(what, amount, usd, price["source"], price["date"])


def grants(cloud: str, infra: Path = INFRA) -> list[str]:
    """Return the rights or roles that a cloud's stack names, sorted; empty if there is no stack."""
    pattern, files = _GRANTS[cloud]
    folder = infra / cloud / "terraform"
    found = {name for file in folder.glob(files) for name in pattern.findall(file.read_text())}
    return sorted(found - {"sts:AssumeRole"})


def budget() -> int:
    """Return how many modules a fresh interpreter loads for the application that predicts."""
    command = [sys.executable, "-S", "-c", _BUDGET]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))
