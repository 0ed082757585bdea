"""`python -m scripts.rollback --deployment-id … | --version …`: production goes back."""

from __future__ import annotations

import uuid

import click

from core.state import PRODUCTION
from scripts.cli import run
from scripts.console import find_registry, find_store, store_option
from scripts.doors import before, deployment_id, find_model, told


@click.command()
@click.option("--deployment-id", "deployment", help="MODEL:N: undo this deployment, which must be the newest.")
@click.option("--version", help="The version to go back to.")
@click.option("--model", help="With --version; default: the only model that has it.")
@click.option("--reason", default="rollback", show_default=True, help="Why, for the history.")
@store_option
def rollback_command(
    *, deployment: str | None, version: str | None, model: str | None, reason: str, store: str | None
) -> None:
    """Put production back to before a deployment, or to a version. Servers follow within seconds."""
    if (deployment is None) == (version is None):
        raise click.UsageError("say either --deployment-id or --version")
    registry, op_id = find_registry(find_store(store)), f"rollback-{uuid.uuid4().hex}"
    if version is not None:
        name = find_model(registry, model, lambda state: version in state.versions, f"version {version}")
        registry.rollback(name, to=version, op_id=op_id, role="operator", reason=reason)
    else:
        name, splits = before(registry, deployment or "")
        shares = [(split.version, split.weight) for split in splits]
        rev = registry.state(name).aliases[PRODUCTION].rev
        if len(shares) == 1:
            registry.rollback(name, to=shares[0][0], op_id=op_id, role="operator", reason=reason)
        else:  # back to a canary
            registry.move(name, PRODUCTION, shares, expect_rev=rev, op_id=op_id, role="operator", reason=reason)
    serving = registry.state(name).aliases[PRODUCTION].splits
    click.echo(f"{name}: production → {told(serving)}; deployment {deployment_id(registry, name)}")


if __name__ == "__main__":
    raise SystemExit(run(command=rollback_command))
