"""`polysky package`: the zip files that the functions of a cloud are deployed as."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scripts.package import EXTRAS
from scripts.packaging.bundles import ARCHITECTURES, CLOUDS, DIRECT, PYTHON

if TYPE_CHECKING:
    from scripts.packaging.bundles import Bundle

_SHOWN = 12  # dependencies in the table of a package


@click.command("package")
@click.argument("clouds", nargs=-1, required=True, type=click.Choice(CLOUDS), metavar="aws|gcp|azure...")
@click.option("--out", default="dist", show_default=True, type=click.Path(path_type=Path), help="The folder.")
@click.option("--arch", default="x86_64", show_default=True, help="Processor: x86_64 or, on AWS, arm64.")
@click.option(
    "--extras", "--with", multiple=True, metavar="NAME", help=f"Of {', '.join(EXTRAS)}; may be repeated."
)
@click.option("--python", "version", default=PYTHON, show_default=True, help="The functions' Python.")
def package_command(
    *, clouds: tuple[str, ...], out: Path, arch: str, extras: tuple[str, ...], version: str
) -> None:
    """Build what a cloud's functions are deployed as: CLOUD-predict.zip and CLOUD-train.zip.

    The same sources give the same bytes. What is over the platform's limit, or does not import from its own folder
    alone, is refused.
    """
    for cloud in clouds:
        check(cloud, arch)
    wanted = tuple(part for given in extras for part in given.replace(",", " ").split())
    for part in wanted:
        if part not in EXTRAS:
            raise click.UsageError(f"--extras {part}: must be of {', '.join(EXTRAS)}")
    for cloud in clouds:
        build_all(cloud, out, arch=arch, extras=wanted, version=version)


def check(cloud: str, arch: str) -> None:
    """Raise UsageError for a processor that a cloud's functions cannot have."""
    if arch not in ARCHITECTURES[cloud]:
        raise click.UsageError(f"--arch {arch}: functions of {cloud} run on {' or '.join(ARCHITECTURES[cloud])}")


def build_all(cloud: str, out: Path, *, arch: str, extras: tuple[str, ...] = (), version: str = PYTHON) -> None:
    """Build and show the packages of a cloud. Raises ClickException."""
    from scripts.package import TooHeavy, interpreter
    from scripts.packaging.bundles import BrokenPackage, Order, make, names_of
    from scripts.packaging.installation import InstallFailed
    from scripts.remedies import explain_pip

    try:
        order = Order(arch, interpreter(version), extras)
        for name in names_of(cloud):
            show(make(name, out, order))
    except TooHeavy as error:
        told, _, table = str(error).partition("\n")
        click.echo(table)
        raise click.ClickException(told) from error
    except InstallFailed as error:
        raise click.ClickException(explain_pip(str(error), f"linux-{arch}")) from error
    except BrokenPackage as error:
        raise click.ClickException(str(error)) from error
    except FileNotFoundError as error:
        raise click.ClickException(f"{error}; install it, or choose another by --python") from error


def show(bundle: Bundle) -> None:
    """Print the table of what a package weighs, beside its limits."""
    from scripts.console import print_table

    heavy = bundle.weights.most_common(_SHOWN)
    rest = bundle.unzipped - sum(size for _, size in heavy)
    rows = [(_mb(size), name) for name, size in heavy]
    rows += [(_mb(rest), f"{len(bundle.weights) - len(heavy)} smaller ones")] if rest else []
    print_table(
        (bundle.name, "of which"), [*rows, (_mb(bundle.unzipped), f"of {_mb(bundle.limit)} that it may be")]
    )
    note = ""
    if bundle.name.startswith("aws") and bundle.zipped > DIRECT:
        note = f"; over {_mb(DIRECT)} Lambda takes it from a bucket only, which the stack does"
    tried = f"imports not tried: {bundle.smoke}" if bundle.smoke else "imports from its folder alone"
    click.echo(f"{bundle.file}: {_mb(bundle.zipped)} zipped, {tried}{note}\n")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
