"""`polysky init`: a working spec for a data file."""

from __future__ import annotations

import os

import click

from scripts.console import DASH, progress_bar, read_settings, whole_file


@click.command("init")
@click.argument("data", type=click.Path(exists=True))
@click.option("--label", required=True, metavar="COLUMN", help="The column to predict.")
@click.option("--name", help="The model's name (default: from the file's).")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The spec to write; - is stdout.")
@click.option("--compare/--no-compare", default=True, help="Choose the estimator by trial on small tables.")
def init_command(*, data: str, label: str, name: str | None, out: str, compare: bool) -> None:
    """Write a model spec (TOML) that fits DATA: its columns, an estimator, the rules of the gate.

    Read it, change what you know better, then: polysky train SPEC.toml --data DATA
    """
    from core.dataset.limits import Limits
    from core.inspection import infer

    limits = Limits.of(read_settings(None))
    with progress_bar() as progress:
        found = infer(data, label=label, name=name, limits=limits, compare=compare, progress=progress)
    text = found.toml()
    kept = _keep(out, text)
    with whole_file(out) as file:
        file.write(text)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if kept:
        click.echo(f"note: what {out} said before is kept in {kept}", err=True)
    if out != DASH:
        kinds = ", ".join(f"{column.name} ({column.kind})" for column in found.spec.columns[:8])
        more = f" and {len(found.spec.columns) - 8} more" if len(found.spec.columns) > 8 else ""
        estimator = found.spec.estimator
        what = (
            f"model {found.spec.name}, {found.spec.task} of {label} from {kinds}{more} with {estimator.algorithm}"
        )
        click.echo(f"{out}: {what}", err=True)


def _keep(out: str, text: str) -> str:
    """Return where a copy of another spec in `out` lies now, "" if there was none: it may hold edits."""
    if out == DASH or not os.path.isfile(out):
        return ""
    with open(out, "rb") as file:
        before = file.read()
    if before in (b"", text.encode()):
        return ""
    kept = f"{out}.bak"
    with open(kept, "wb") as file:
        file.write(before)
    return kept
