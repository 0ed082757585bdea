"""`polysky serve` and `polysky worker`."""

from __future__ import annotations

import os

import click

from scripts.console import find_store, json_option, print_json, print_table, read_settings, store_option


@click.command("serve")
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, envvar="POLYSKY_HOST")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    envvar=["AIP_HTTP_PORT", "POLYSKY_PORT"],  # the first is Vertex AI's word
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
    from handlers_onprem.launch import serve

    serve(read_settings(store), host=host, port=port, workers=workers, env=os.environ)


@click.command("worker")
@store_option
@json_option
def worker_command(store: str | None, as_json: bool) -> None:
    """Do the jobs that wait, once: uploads, requests, versions without a verdict."""
    import time
    from contextlib import nullcontext

    from core.errors import Conflict
    from core.local_store import LocalStore
    from core.telemetry import MemoryTelemetry
    from core.worker import build_worker
    from handlers_onprem.telemetry import write_line
    from handlers_onprem.watch import sole_worker

    settings = read_settings(store)
    target = find_store(store)
    telemetry = MemoryTelemetry(write_line, clock=time.time)
    # of a cloud's store there may be several workers: claims keep them apart
    only = sole_worker(target.root, wait=False) if isinstance(target, LocalStore) else nullcontext(True)
    with only as sole:
        if not sole:
            raise Conflict("another worker does the jobs of this store")
        n_jobs = os.cpu_count() or 1
        found = build_worker(settings, target, telemetry=telemetry, n_jobs=n_jobs).tick()
    if as_json:
        print_json([outcome._asdict() for outcome in found])
        return
    rows = [(o.model, o.job_id, o.status, o.version, o.reason) for o in found]
    print_table(("model", "job", "status", "version", "why"), rows)
