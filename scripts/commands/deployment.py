"""`polysky deploy`, `status` and `destroy`: a cloud's stack, driven through terraform."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from core.errors import ConfigError
from scripts.console import json_option, print_json, print_table
from scripts.packaging.bundles import CLOUDS

if TYPE_CHECKING:
    from scripts.stacks import Stack

Function = TypeVar("Function", bound=Callable[..., Any])
_NOT_EMPTY = ("BucketNotEmpty", "without `force_destroy`", "not empty", "local-exec")
_OURS = ("environment", "packages")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}", re.ASCII)


def cloud_options(function: Function) -> Function:
    """Add the cloud, `--environment` and `--state-dir` to a command."""
    told = "Folder of the deployment: its variables and its state."
    function = click.option("--state-dir", metavar="FOLDER", help=f"{told} Default: .polysky/CLOUD/ENVIRONMENT.")(
        function
    )
    name = click.option("--environment", default="prod", show_default=True, help="Several stand side by side.")
    return click.argument("cloud", type=click.Choice(CLOUDS))(name(function))


@click.command("deploy")
@cloud_options
@click.option(
    "--var", "told", multiple=True, metavar="NAME=VALUE", help="A variable of the stack; kept for later."
)
@click.option("--packages", default="dist", show_default=True, help="Folder of the packages; made if missing.")
@click.option("--backend", metavar="KIND", help="Keep the state elsewhere: s3, gcs, azurerm … (default: local).")
@click.option("--backend-config", multiple=True, metavar="NAME=VALUE", help="A setting of that backend.")
@click.option("--dry-run", is_flag=True, help="Show terraform's plan and change nothing.")
@click.option("--check-credentials/--no-check-credentials", default=True, help="No check: an instance's own role.")
def deploy_command(
    *,
    cloud: str,
    environment: str,
    state_dir: str | None,
    told: tuple[str, ...],
    packages: str,
    backend: str | None,
    backend_config: tuple[str, ...],
    dry_run: bool,
    check_credentials: bool,
) -> None:
    """Make or update a cloud's stack: from nothing to a URL. Run again, it finishes what was left half done."""
    from scripts import stacks

    new = stacks.parse_variables(stacks.source_of(cloud), told)
    _refuse_ours(new)
    stack = _stack(cloud, environment, state_dir)
    folder = Path(packages).absolute()
    variables = {**stack.variables, **new, "environment": environment, "packages": str(folder)}
    if moved := _asked(lambda: stack.moved(variables)):
        raise ConfigError(f"what stands would be left behind: it has {moved}: destroy it, or say --environment")
    arch = variables.get("architecture", "x86_64")
    _check_arch(cloud, arch)
    if check_credentials and not variables.get("endpoint"):
        stacks.check_credentials(cloud, os.environ)
    _check_packages(cloud, folder, arch)
    _run(stack, variables, _backend(backend, backend_config), dry_run=dry_run)
    if not dry_run:
        _tell(stack, as_json=False)


def _run(stack: Stack, variables: dict[str, Any], backend: Any, *, dry_run: bool) -> None:
    from scripts.stacks import TerraformFailed

    known = stack_variables(stack)
    try:
        stack.prepare({name: value for name, value in variables.items() if name in known}, backend)
        changes = stack.plan()
    except TerraformFailed as error:
        raise click.ClickException(f"{error}; nothing was changed{_remedy(error)}") from error
    if dry_run or not changes:
        if not dry_run:
            stack.keep()
        click.echo(
            "the plan changes nothing" if not changes else "nothing was changed: this was the plan", err=True
        )
        return
    try:
        stack.apply()
    except TerraformFailed as error:
        hint = "mend it and run the same command again to finish, or `polysky destroy` to remove what was made"
        raise click.ClickException(f"{error}{_remedy(error)}; {hint}") from error


def _remedy(error: Exception) -> str:
    from scripts.remedies import find_remedy

    return f": {found}" if (found := find_remedy(str(error))) else ""


def stack_variables(stack: Stack) -> dict[str, str]:
    """Return the variables that the stack of a deployment has."""
    from scripts.stacks import variables_of

    return variables_of(stack.source)


@click.command("status")
@cloud_options
@json_option
def status_command(*, cloud: str, environment: str, state_dir: str | None, as_json: bool) -> None:
    """Tell what stands: how many resources, and the stack's outputs (URL, store …). Fails if nothing does."""
    stack = _stack(cloud, environment, state_dir)
    if not stack.is_begun or not _asked(stack.resources):
        raise click.ClickException(f"nothing is deployed here: {stack.folder} knows of nothing")
    _tell(stack, as_json=as_json)


@click.command("destroy")
@cloud_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--delete-data", is_flag=True, help="Delete the bucket with all models and data in it, too.")
def destroy_command(*, cloud: str, environment: str, state_dir: str | None, yes: bool, delete_data: bool) -> None:
    """Remove all of a cloud's stack. Stops at a bucket that holds anything, unless told to delete the data."""
    stack = _stack(cloud, environment, state_dir)
    left = _asked(stack.resources) if stack.is_begun else []
    if not left:
        click.echo(f"nothing is deployed here: {stack.folder} knows of nothing")
        return
    data = " AND ALL MODELS AND DATA" if delete_data else ""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(f"say --yes to remove {len(left)} resources: nobody is here to be asked")
    if not yes and not click.confirm(f"Remove {len(left)} resources of {cloud}, {environment}{data}?"):
        raise click.Abort
    _asked(lambda: stack.destroy(delete_data=delete_data))
    click.echo(f"{len(left)} resources are removed")


def _asked(action: Callable[[], Any]) -> Any:
    from scripts.stacks import TerraformFailed

    try:
        return action()
    except TerraformFailed as error:
        holds = any(sign in str(error) for sign in _NOT_EMPTY)
        hint = "; `polysky destroy --delete-data` deletes models and data too" if holds else _remedy(error)
        raise click.ClickException(f"{error}{hint}") from error


def _stack(cloud: str, environment: str, state_dir: str | None) -> Stack:
    from scripts.stacks import Stack

    if not _NAME.fullmatch(environment):
        raise ConfigError("--environment must be 1 to 20 lower-case letters, digits and hyphens, a letter first")
    return Stack(cloud, Path(state_dir) if state_dir else Path(".polysky", cloud, environment), os.environ)


def _refuse_ours(variables: dict[str, Any]) -> None:
    for name in _OURS:
        if name in variables:
            raise ConfigError(f"--var {name}: say --{name}")


def _check_arch(cloud: str, arch: str) -> None:
    from scripts.packaging.bundles import ARCHITECTURES

    if arch not in ARCHITECTURES[cloud]:
        raise ConfigError(f"architecture {arch}: functions of {cloud} run on {' or '.join(ARCHITECTURES[cloud])}")


def _check_packages(cloud: str, folder: Path, arch: str) -> None:
    """Build what is missing; refuse what the platform would. Raises ConfigError, ClickException."""
    from scripts.commands.packaging import build_all
    from scripts.packaging.bundles import found, over

    there, missing = found(cloud, folder)
    if missing:
        build_all(cloud, folder, arch=arch)
        there, _ = found(cloud, folder)
    if wrong := over(there):
        raise ConfigError(f"{'; '.join(wrong)}: build it with fewer --extras")
    for one in there:
        if one.platform not in ("", f"linux-{arch}"):
            remedy = f"`polysky package {cloud} --arch {arch} --out {folder}`"
            raise ConfigError(f"{one.name} was built for {one.platform}, not {arch}: {remedy} builds it")


def _backend(kind: str | None, settings: tuple[str, ...]) -> Any:
    from scripts.stacks import Backend

    if kind is None and not settings:
        return None
    pairs = {name: value for name, _, value in (text.partition("=") for text in settings)}
    if kind is None or not all(pairs.values()):
        raise ConfigError("--backend-config must be NAME=VALUE, beside --backend")
    return Backend(kind, pairs)


def _tell(stack: Stack, *, as_json: bool) -> None:
    outputs, resources = _asked(stack.outputs), _asked(stack.resources)
    if as_json:
        print_json({"resources": len(resources), "outputs": outputs})
        return
    rows = [(name, value) for name, value in sorted(outputs.items()) if value is not None]
    print_table(("output", "value"), [("resources", len(resources)), *rows])
