"""`polysky plan`: sizes, limits, rights and costs of a deployment, before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scripts.console import json_option, print_json, print_table
from scripts.packaging.bundles import CLOUDS

if TYPE_CHECKING:
    from scripts.packaging.bundles import Bundle


@click.command("plan")
@click.argument("clouds", nargs=-1, required=True, type=click.Choice(CLOUDS), metavar="aws|gcp|azure...")
@click.option("--requests", default=1_000_000, show_default=True, type=click.IntRange(0), help="In a month.")
@click.option("--latency-ms", default=50.0, show_default=True, type=click.FloatRange(0.1), help="Of one request.")
@click.option(
    "--packages", default="dist", show_default=True, type=click.Path(path_type=Path), help="Their folder."
)
@json_option
def plan_command(
    *, clouds: tuple[str, ...], requests: int, latency_ms: float, packages: Path, as_json: bool
) -> None:
    """Tell what a deployment weighs beside the limits, what it may do, and what all three clouds ask a month.

    Fails, after it has told all, if a package is over its limit.
    """
    from scripts import plan
    from scripts.packaging.bundles import found, over

    prices, traffic = plan.read_prices(), plan.Traffic(requests, latency_ms)
    bills = {cloud: plan.bill(prices[cloud], traffic) for cloud in CLOUDS}
    told = {cloud: found(cloud, packages) for cloud in clouds}
    wrong = [line for there, _ in told.values() for line in over(there)]
    report = {
        "packages": {one.name: _sizes(one) for there, _ in told.values() for one in there},
        "not_built": [name for _, missing in told.values() for name in missing],
        "modules": plan.budget(),
        "grants": {cloud: plan.grants(cloud) for cloud in clouds},
        "prices_assembled": prices["assembled"],
        "traffic": traffic._asdict(),
        "cost_usd": {cloud: round(sum(item.usd for item in bills[cloud]), 2) for cloud in CLOUDS},
        "items": {cloud: [item._asdict() for item in bills[cloud]] for cloud in CLOUDS},
        "over_limit": wrong,
    }
    if as_json:
        print_json(report)
    else:
        _show(report)
    if wrong:
        raise click.ClickException(f"{'; '.join(wrong)}: it cannot be deployed")


def _sizes(one: Bundle) -> dict[str, int]:
    return {"zipped": one.zipped, "unzipped": one.unzipped, "limit": one.limit}


def _show(report: dict[str, Any]) -> None:
    rows = [(name, *(f"{size:,}" for size in one.values())) for name, one in report["packages"].items()]
    if rows:
        print_table(("package", "zipped, bytes", "unzipped", "limit"), rows)
    if report["not_built"]:
        clouds = sorted({name.partition("-")[0] for name in report["not_built"]})
        click.echo(
            f"not built: {', '.join(report['not_built'])}; `polysky package {' '.join(clouds)}` builds them"
        )
    click.echo(f"\nThe application that predicts loads {report['modules']} modules.\n")
    for cloud, named in report["grants"].items():
        click.echo(f"Rights in {cloud}'s stack: {', '.join(named) or 'no stack in infra'}\n")
    _show_costs(report)


def _show_costs(report: dict[str, Any]) -> None:
    traffic = report["traffic"]
    click.echo(
        f"A month of {traffic['requests']:,} requests of {traffic['latency_ms']:g} ms, by list prices assembled "
        f"on {report['prices_assembled']} (scripts/prices.toml), which must be checked:"
    )
    rows = [
        (cloud, item["what"], f"{item['amount']:,.0f}", f"{item['usd']:.2f}", item["date"], item["source"])
        for cloud, items in report["items"].items()
        for item in items
    ]
    print_table(("cloud", "what", "amount", "USD", "price of", "source"), rows)
    click.echo("; ".join(f"{cloud} {usd:.2f} USD" for cloud, usd in report["cost_usd"].items()))
    click.echo("Not in it: storage, data transfer, logs, training, alarms, and on Azure API Management.")
