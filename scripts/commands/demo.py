"""`polysky demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Play in this folder and keep it.")
def demo_command(keep: Path | None) -> None:
    """Train, serve, retrain and roll back three models in a temporary store."""
    from scripts.demo.stage import DemoFailed
    from scripts.demo.story import run

    try:
        run(keep)
    except DemoFailed as error:
        raise click.ClickException(f"demo: {error}") from error
