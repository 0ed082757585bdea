"""`python -m scripts.scale --deployment-id aws/prod --replicas N`: how many instances may predict at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from core.errors import ConfigError
from scripts.cli import run
from scripts.commands.deployment import deploy_command
from scripts.packaging.bundles import CLOUDS

_MOST_PODS = 10  # maxReplicas of infra/kubernetes/autoscaler.yaml
# the variable of each stack that bounds its instances
_VARIABLES = {"aws": "predict_concurrency", "gcp": "predict_instances", "azure": "predict_instances"}


@click.command()
@click.option("--deployment-id", "deployment", required=True, help="CLOUD/ENVIRONMENT, or kubernetes.")
@click.option("--replicas", required=True, type=click.IntRange(1, 1000))
@click.option("--dry-run", is_flag=True, help="Show terraform's plan and change nothing.")
@click.option("--state-dir", metavar="FOLDER", help="As it was told to `polysky deploy`.")
@click.pass_context
def scale_command(
    context: click.Context, *, deployment: str, replicas: int, dry_run: bool, state_dir: str | None
) -> None:
    """Set how many instances may predict at once.

    On the clouds functions come and go with the traffic, down to none: N is the most there may be (on AWS also
    the number that is kept free for them), set through the stack's variable by terraform. For Kubernetes the
    command is printed, since its autoscaler decides: N is the least it keeps.
    """
    cloud, _, environment = deployment.partition("/")
    if cloud == "kubernetes":
        bounds = {"minReplicas": replicas, "maxReplicas": max(replicas, _MOST_PODS)}
        patch = json.dumps({"spec": bounds})
        click.echo(f"kubectl patch hpa polysky --patch '{patch}'")
        return
    if cloud not in CLOUDS or not environment:
        raise ConfigError(f"--deployment-id {deployment}: must be {'/…, '.join(CLOUDS)}/… or kubernetes")
    folder = state_dir or str(Path(".polysky", cloud, environment))
    if not Path(folder, "variables.json").is_file():
        raise ConfigError(f"{deployment} was not deployed from here: there is nothing in {folder}")
    kept = json.loads(Path(folder, "variables.json").read_text())
    context.invoke(
        deploy_command,
        cloud=cloud,
        environment=environment,
        state_dir=folder,
        told=(f"{_VARIABLES[cloud]}={_value(cloud, replicas, kept)}",),
        packages=kept.get("packages", "dist"),  # the code stays as it is
        backend=None,
        backend_config=(),
        dry_run=dry_run,
        check_credentials=True,
    )


def _value(cloud: str, replicas: int, kept: Mapping[str, Any]) -> str:
    """Return the stack's variable; those that Google Cloud keeps warm stay."""
    if cloud != "gcp":
        return str(replicas)
    least = kept.get(_VARIABLES[cloud], {}).get("min", 0)
    return json.dumps({"min": min(least, replicas), "max": replicas})


if __name__ == "__main__":
    raise SystemExit(run(command=scale_command))
