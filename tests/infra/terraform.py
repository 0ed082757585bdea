"""Terraform: the program, providers from a folder instead of a registry, and a stack copied to work on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.emulators.missing import absent
from tests.infra.providers.attached import attachment

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
_MIRRORS = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
)


class Failed(AssertionError):
    """A command of terraform failed; the text is what it wrote."""


def mirror() -> Path:
    """Return the folder of providers: TF_PLUGIN_MIRROR, or where terraform itself looks, or one below /opt."""
    told = os.environ.get("TF_PLUGIN_MIRROR")
    places = [told] if told else [*_MIRRORS, *map(str, Path("/opt").glob("*"))]
    found = (Path(os.path.expanduser(place)) for place in places)
    place = next((place for place in found if (place / "registry.terraform.io/hashicorp/aws").is_dir()), None)
    if place is None:
        absent("the AWS provider of terraform is in no plugin folder; TF_PLUGIN_MIRROR names one")
    return place


class Stack:
    """A copy of a stack's folder, initialised.

    `providers` (google, google-beta, azurerm) are attached from tests.infra.providers; without any, plugins come
    from the mirror.
    """

    def __init__(self, source: Path, folder: Path, *, providers: tuple[str, ...] = ()) -> None:
        program = shutil.which("terraform")
        if program is None:
            absent("terraform is not installed")
        self._program = program
        self.folder = folder
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        settings = folder.parent / f"{folder.name}.tfrc"
        plugins = folder.parent / "no-plugins" if providers else mirror()
        settings.write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{plugins}"\n  }}\n}}\n'
            "disable_checkpoint = true\n"
        )
        self._env = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **{"TF_CLI_CONFIG_FILE": str(settings), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"},
            **{"AWS_ACCESS_KEY_ID": "123456789012", "AWS_SECRET_ACCESS_KEY": "emulator"},
            **{"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-west-1"},
            **({"TF_REATTACH_PROVIDERS": attachment(*providers)} if providers else {}),
        }
        self.run("init", "-backend=false", "-input=false")

    def run(self, command: str, *arguments: str, variables: Mapping[str, Any] | None = None) -> str:
        """Return what a command writes; a variable that is None keeps its default. Raises Failed."""
        told = [f"-var={name}={_hcl(value)}" for name, value in (variables or {}).items() if value is not None]
        done = subprocess.run(
            [self._program, command, "-no-color", *arguments, *told],
            cwd=self.folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"terraform {command}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done.stdout

    def outputs(self) -> dict[str, Any]:
        """Return the outputs of what is applied."""
        return {name: one["value"] for name, one in json.loads(self.run("output", "-json")).items()}

    def changes(self, variables: Mapping[str, Any]) -> dict[str, set[str]]:
        """Return, of each resource that an apply would change, what is known to become different."""
        plan = self.folder.parent / f"{self.folder.name}.plan"
        self.run("plan", "-input=false", f"-out={plan}", variables=variables)
        resources = json.loads(self.run("show", "-json", str(plan)))["resource_changes"]
        found = {one["address"]: _differences(one["change"]) for one in resources if one["mode"] == "managed"}
        return {address: names for address, names in found.items() if names}

    def edit(self, file: str, old: str, new: str) -> None:
        """Change one place of a file. Raises Failed if the place is not there exactly once."""
        path = self.folder / file
        text = path.read_text()
        if text.count(old) != 1:
            raise Failed(f"{file} holds {old!r} {text.count(old)} times")
        path.write_text(text.replace(old, new))


def _differences(change: Mapping[str, Any]) -> set[str]:
    """Return the names of what a change makes different; a thing made or removed is different as a whole."""
    if change["actions"] == ["no-op"]:
        return set()
    if change["actions"] != ["update"]:
        return {"all of it"}
    before, after = change["before"], change["after"]
    return {name for name in after if before.get(name) != after[name]}


def _hcl(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def hcl_files() -> Iterator[Path]:
    """Yield all files of terraform's language."""
    for pattern in ("*.tf", "*.tftest.hcl"):
        yield from sorted(path for path in INFRA.rglob(pattern) if ".terraform" not in path.parts)
