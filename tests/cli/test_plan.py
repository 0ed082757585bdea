"""`polysky plan`: sizes beside limits, rights, and a bill that adds up."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest

from scripts import plan
from scripts.plan import Traffic, bill, grants, read_prices
from scripts.stacks import INFRA
from tests.cli.shop import Shop


def zipped(folder: Path, name: str, size: int) -> None:
    with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("core/app.py", b"\0" * size)


def test_a_bill_of_ten_million_requests_is_what_a_calculator_gives() -> None:
    """By hand from the price lists: 10 million requests of 120 ms each."""
    prices, traffic = read_prices(), Traffic(10_000_000, 120.0)
    sums = {cloud: {item.what: item.usd for item in bill(prices[cloud], traffic)} for cloud in plan._GRANTS}
    gb_seconds = 10_000_000 * 0.120 * 1769 / 1024
    assert sums["aws"] == {
        "requests": pytest.approx(9 * 0.20),
        "gb_seconds": pytest.approx((gb_seconds - 400_000) * 0.0000166667),
        "gateway": pytest.approx(10.0),
    }
    # Cloud Run counts tenths of a second: 0.2 s of one processor and one GiB
    assert sums["gcp"] == {
        "requests": pytest.approx(8 * 0.40),
        "gb_seconds": pytest.approx((2_000_000 - 360_000) * 0.0000025),
        "cpu_seconds": pytest.approx((2_000_000 - 180_000) * 0.000024),
        "gateway": pytest.approx(8 * 3.0),
    }
    # Flex Consumption bills one second at least, of 2 GB
    assert sums["azure"] == {
        "requests": pytest.approx(9.75 * 0.40),
        "gb_seconds": pytest.approx((20_000_000 - 100_000) * 0.000026),
    }


def test_nothing_asked_costs_nothing() -> None:
    prices = read_prices()
    assert [item.usd for cloud in plan._GRANTS for item in bill(prices[cloud], Traffic(0, 50.0))] == [0.0] * 9


def test_every_price_names_its_source_and_date() -> None:
    prices = tomllib.loads(plan.PRICES.read_text())
    figures = [one for cloud in plan._GRANTS for one in prices[cloud].values() if isinstance(one, dict)]
    assert len(figures) == 9
    assert all(one["source"] and one["date"] and one["usd"] > 0 and one["free"] >= 0 for one in figures)


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_memory_in_the_prices_is_that_of_the_stack(cloud: str) -> None:
    text = (INFRA / cloud / "terraform" / "variables.tf").read_text()
    block = text.partition('variable "predict_memory_mb"')[2].partition("\n}")[0]
    assert f"default     = {read_prices()[cloud]['memory_mb']}\n" in block


def test_the_rights_are_those_that_the_stack_names(tmp_path: Path) -> None:
    found = grants("aws")
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= set(found)
    assert not [name for name in found if "*" in name]
    (tmp_path / "aws" / "terraform").mkdir(parents=True)
    (tmp_path / "aws" / "terraform" / "roles.tf").write_text('actions = ["s3:*", "sts:AssumeRole"]')
    assert grants("aws", tmp_path) == ["s3:*"]
    assert grants("gcp", tmp_path) == []


def test_the_plan_tells_sizes_what_is_not_built_and_costs(shop: Shop, tmp_path: Path) -> None:
    zipped(tmp_path, "aws-predict", 1000)
    done = shop.run("plan", "aws", "azure", "--requests", "10000000", "--packages", str(tmp_path), "--json")
    assert done.code == 0, done.err
    assert done.json["packages"]["aws-predict"]["unzipped"] == 1000
    assert done.json["packages"]["aws-predict"]["limit"] == 262_144_000
    assert done.json["not_built"] == ["aws-train", "azure-predict", "azure-train"]
    assert 0 < done.json["modules"] < 92
    assert set(done.json["cost_usd"]) == {"aws", "gcp", "azure"}
    assert set(done.json["grants"]) == {"aws", "azure"}
    out = shop.run("plan", "aws", "azure", "--packages", str(tmp_path)).out
    assert "`polysky package aws azure` builds them" in out
    assert "1,000,000 requests of 50 ms" in out
    assert "which must be checked" in out


def test_a_package_over_its_limit_fails_the_plan_with_the_reason(shop: Shop, tmp_path: Path) -> None:
    zipped(tmp_path, "aws-train", 262_144_001)
    done = shop.run("plan", "aws", "--packages", str(tmp_path))
    assert done.code == 1
    assert done.err == (
        "polysky: aws-train unzips to 262,144,001 bytes, over the limit of 262,144,000: it cannot be deployed\n"
    )
    assert "USD" in done.out
