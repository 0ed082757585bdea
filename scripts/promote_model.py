"""`python -m scripts.promote_model`: what alias `staging` points to becomes production."""

from __future__ import annotations

import uuid

import click

from core.state import PRODUCTION
from scripts.cli import run
from scripts.console import find_registry, find_store, store_option
from scripts.doors import deployment_id, find_model, told


@click.command()
@click.option("--model", help="Default: the only model that has the alias.")
@click.option("--from", "alias", default="staging", show_default=True, help="The alias, or a version.")
@click.option("--reason", default="promoted", show_default=True, help="Why, for the history.")
@store_option
def promote_command(*, model: str | None, alias: str, reason: str, store: str | None) -> None:
    """Promote what is staged to production, once your tests have passed. Servers follow within seconds."""
    registry = find_registry(find_store(store))
    name = find_model(registry, model, lambda state: alias in state.aliases or alias in state.versions, alias)
    splits = registry.resolve(name, alias)
    shares = [(split.version, split.weight) for split in splits]
    op_id = f"promote-{uuid.uuid4().hex}"
    registry.move(name, PRODUCTION, shares, op_id=op_id, role="operator", reason=reason)
    click.echo(f"{name}: production → {told(splits)}; deployment {deployment_id(registry, name)}")


if __name__ == "__main__":
    raise SystemExit(run(command=promote_command))
