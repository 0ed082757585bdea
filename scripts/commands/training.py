"""`polysky train`: from a spec and a data file to a published version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from scripts.console import find_store, json_option, person, print_json, progress_bar, read_settings, store_option


@click.command("train")
@click.argument("spec", type=click.Path(exists=True, dir_okay=False))
@click.option("--file", "--data", "path", required=True, type=click.Path(exists=True), help="The data.")
@store_option
@json_option
def train_command(*, spec: str, path: str, store: str | None, as_json: bool) -> None:
    """Train a model from a SPEC.toml and a data file, publish it, and put it before the gate.

    A version that passes serves at once. One that does not stays in staging: the exit code is 0 all the same,
    the answer says why. The same data and spec give the version that they gave before, wherever it is now.
    """
    from core.building import Builder
    from core.retraining import train_from_file
    from core.spec import load_spec
    from core.worker import build_workshop

    model = load_spec(spec)
    target = find_store(store)
    with progress_bar() as progress:
        builder = Builder(n_jobs=os.cpu_count() or 1, progress=progress)
        shop = build_workshop(read_settings(store), target, actor=person(), builder=builder)
        found = train_from_file(shop, model, path, progress=lambda rows: progress(f"reading row {rows}", 0, 0))
    answer = {
        "model": found.model,
        "version": found.version,
        "alias": found.alias or None,
        "metrics": dict(found.metrics),
        "gate": dict(found.gate),
    }
    if as_json:
        print_json(answer)
    else:
        _tell(answer)


def _tell(answer: Mapping[str, Any]) -> None:
    gate = answer["gate"]
    figures = "  ".join(f"{n} {v:.4f}" for n, v in answer["metrics"].items() if isinstance(v, float))
    where = answer["alias"] or "no alias: a later version took its place"
    click.echo(f"{answer['model']} {answer['version']} → {where}")
    click.echo(f"  {figures}")
    click.echo(f"  gate {'passed' if gate.get('passed') else 'not passed'}: {'; '.join(gate.get('reasons', ()))}")
