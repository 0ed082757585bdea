"""`python -m scripts.deploy --model-version … --strategy …`: a version into production, all or a share."""

from __future__ import annotations

import uuid

import click

from core.errors import Conflict
from core.state import PRODUCTION, Split, State
from scripts.cli import run
from scripts.console import find_registry, find_store, store_option
from scripts.doors import deployment_id, find_model, told


@click.command()
@click.option("--model-version", "version", required=True, help="The version (v-…).")
@click.option("--strategy", required=True, type=click.Choice(["blue_green", "canary"]))
@click.option("--traffic", default=10, show_default=True, type=click.IntRange(1, 99), help="Per cent of a canary.")
@click.option("--model", help="Default: the only model that has the version.")
@click.option("--reason", default="", help="Why, for the history.")
@store_option
def deploy_command(
    *, version: str, strategy: str, traffic: int, model: str | None, reason: str, store: str | None
) -> None:
    """Deploy a model's version: all traffic at once, the old one staying at hand, or a share of it as a canary.

    The switch is one small document, which servers follow within seconds, and so is the way back.
    """
    registry = find_registry(find_store(store))
    name = find_model(registry, model, lambda state: version in state.versions, f"version {version}")
    wanted = [(version, 100)] if strategy == "blue_green" else _canary(registry.state(name), version, traffic)
    told_why = reason or strategy
    op_id = f"deploy-{uuid.uuid4().hex}"
    registry.move(name, PRODUCTION, wanted, op_id=op_id, role="operator", reason=told_why)
    click.echo(f"{name}: {told([Split(*share) for share in wanted])}; deployment {deployment_id(registry, name)}")


def _canary(state: State, version: str, traffic: int) -> list[tuple[str, int]]:
    """Return the shares: the rest stays with the heaviest other version. Raises Conflict if there is none."""
    serving = state.aliases[PRODUCTION].splits if PRODUCTION in state.aliases else ()
    others = sorted((split for split in serving if split.version != version), key=lambda split: -split.weight)
    if not others:
        raise Conflict("a canary needs another version in production: deploy by blue_green first")
    return [(others[0].version, 100 - traffic), (version, traffic)]


if __name__ == "__main__":
    raise SystemExit(run(command=deploy_command))
