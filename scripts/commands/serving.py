"""`polysky serve` and `polysky worker`."""

from __future__ import annotations

import os

import click

from scripts.console import read_settings, store_option


@click.command("serve")
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, envvar="POLYSKY_HOST")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    envvar="POLYSKY_PORT",
    type=click.IntRange(0, 65535),
    help="0: any free one.",
)
@click.option(
    "--workers",
    default=lambda: min(4, os.cpu_count() or 1),
    envvar="POLYSKY_WORKERS",
    type=click.IntRange(1, 64),
    help="HTTP processes (default: one a processor, at most 4).",
)
def serve_command(*, store: str | None, host: str, port: int, workers: int) -> None:
    """Serve the store's models over HTTP, and retrain them from what arrives in the store.

    Log lines go to stderr as JSON. Ctrl-C or SIGTERM stops everything.
    """
    from handlers_onprem.main import serve

    serve(read_settings(store), host=host, port=port, workers=workers, env=os.environ)
