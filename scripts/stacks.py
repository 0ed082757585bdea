"""A cloud's stack and the terraform that makes it: checked before anything is created, in a folder of its own.

A deployment's folder holds a copy of the stack, the variables it was made with and, unless another backend is
told, its state. So a second run finishes what the first left half done, and `destroy` knows all that was made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import ConfigError

INFRA = Path(__file__).resolve().parent.parent / "infra"
_VARIABLE = re.compile(r'^variable "(\w+)" \{(.*?)^\}', re.M | re.S)
_TYPE = re.compile(r"^\s*type\s*=\s*(\w+)", re.M)
_EXAMPLES = {"object": ', {"name": "value"}', "map": ', {"name": "value"}', "bool": ", true or false"}
_DEFAULT = re.compile(r'^\s*default\s*=\s*"(.*)"$', re.M)
# where a stack stands: another value would leave what stands behind, unknown to any state
FIXED = ("environment", "region", "location", "project", "subscription_id")
_ERROR = re.compile(r"^[│|\s]*Error: (.*)")
_KEEPS = ("keep_bucket", "keep_store")  # variables by which a stack keeps what its store holds
_HOLDS = re.compile(
    r"_bucket\.store|_account\.store|^terraform_data\.\w*(keep|kept|store)"
)  # what those are told to
_EDGE = re.compile(r"^[│╷╵]")  # of the box around an error
_PLACE = re.compile(r"(with|on) \S|\d+:|[├│]")  # where in the stack an error is, before what it says
_LONGEST = 20  # lines of an error that are looked at
_LEFT = shutil.ignore_patterns(".terraform*", "*.tfstate*", "tests", "*.tfvars*")
# whatever lets a provider in; a file counts if it is there
_LETS_IN = {
    "aws": (
        (
            *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
            *("AWS_CONFIG_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        ),
        ("~/.aws/credentials", "~/.aws/config"),
        "run `aws configure`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "gcp": (
        ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CREDENTIALS", "GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_CONFIG"),
        ("~/.config/gcloud/application_default_credentials.json",),
        "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "azure": (
        ("ARM_CLIENT_ID", "ARM_USE_MSI", "ARM_USE_OIDC", "ARM_ACCESS_TOKEN", "AZURE_CONFIG_DIR"),
        ("~/.azure/azureProfile.json",),
        "run `az login`, or set ARM_CLIENT_ID, ARM_CLIENT_SECRET, ARM_TENANT_ID and ARM_SUBSCRIPTION_ID",
    ),
}


class TerraformFailed(RuntimeError):
    """A command of terraform failed; the text is its errors in one line."""


class Backend(NamedTuple):
    """Where the state is kept: a kind that terraform knows with its settings; `local`: the deployment's folder."""

    kind: str = "local"
    settings: Mapping[str, str] = {}


def source_of(cloud: str) -> Path:
    """Return the folder of a cloud's stack. Raises ConfigError."""
    folder = INFRA / cloud / "terraform"
    if not (folder / "variables.tf").is_file():
        raise ConfigError(f"there is no stack for {cloud}: {folder} is not there")
    return folder


def variables_of(folder: Path) -> dict[str, str]:
    """Return the variables of a stack: the first word of the type, by name."""
    text = "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))
    found = {}
    for name, body in _VARIABLE.findall(text):
        kind = _TYPE.search(body)
        found[name] = kind[1] if kind else "any"
    return found


def default_of(folder: Path, name: str) -> str | None:
    """Return the text that a variable of a stack has if it is not told; None if there is none."""
    text = "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))
    body = next((body for found, body in _VARIABLE.findall(text) if found == name), "")
    told = _DEFAULT.search(body)
    return told[1] if told else None


def parse_variables(folder: Path, told: Sequence[str]) -> dict[str, Any]:
    """Return NAME=VALUE texts as variables of a stack. Raises ConfigError that names the wrong one."""
    known, found = variables_of(folder), dict[str, Any]()
    for text in told:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--var {text}: must be NAME=VALUE")
        if name not in known:
            raise ConfigError(f"--var {name}: the stack has no such variable; it has {', '.join(sorted(known))}")
        found[name] = _value(name, known[name], value)
    return found


def _value(name: str, kind: str, text: str) -> Any:
    """Return a value as JSON has it: text stays text where text is wanted."""
    if kind == "string" and text != "null":
        return text
    try:
        return json.loads(text)
    except ValueError:
        if kind in ("string", "any"):
            return text
        raise ConfigError(
            f"--var {name}: {text} is no {kind}: write it as JSON{_EXAMPLES.get(kind, '')}"
        ) from None


def check_credentials(cloud: str, env: Mapping[str, str]) -> None:
    """Raise ConfigError with the remedy if nothing here would let the cloud's provider in."""
    names, files, remedy = _LETS_IN[cloud]
    if not any(env.get(name) for name in names) and not any(_expand(file, env).is_file() for file in files):
        raise ConfigError(f"no credentials for {cloud}: {remedy}; a machine's own role: --no-check-credentials")


def _expand(file: str, env: Mapping[str, str]) -> Path:
    return Path(file.replace("~", env.get("HOME", "/nonexistent"), 1))


class Stack:
    """A deployment of a cloud's stack in `folder`."""

    def __init__(self, cloud: str, folder: Path, env: Mapping[str, str]) -> None:
        """Raises ConfigError if terraform, or the stack, is not there."""
        self.source = source_of(cloud)
        program = shutil.which("terraform", path=env.get("PATH", ""))
        if program is None:
            raise ConfigError("terraform is not on PATH: install it (https://developer.hashicorp.com/terraform)")
        self.folder, self._program, self._copy = folder.absolute(), program, folder.absolute() / "stack"
        self._env = {**env, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}

    @property
    def variables(self) -> dict[str, Any]:
        """Return the variables of what stands, or of what was last about to be made."""
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.folder / "variables.json").read_text())
            return found
        return {}

    @property
    def is_begun(self) -> bool:
        """Return whether anything was ever made here; a plan alone makes nothing."""
        return (self.folder / "variables.json").is_file()

    def moved(self, variables: Mapping[str, Any]) -> str:
        """Return the variable that would leave behind what stands, or "". Raises TerraformFailed."""
        before = {name: self.variables.get(name, default_of(self.source, name)) for name in FIXED}
        other = [name for name in FIXED if variables.get(name, before[name]) != before[name]]
        return f"{other[0]}, which is {before[other[0]]}" if other and self.is_begun and self.resources() else ""

    def prepare(self, variables: Mapping[str, Any], backend: Backend | None = None) -> None:
        """Copy the stack, write down the variables for the plan, and initialise. Raises TerraformFailed."""
        self._copy.mkdir(parents=True, exist_ok=True)
        (self.folder / ".gitignore").write_text("*\n")  # states and variables may hold secrets
        for old in self._copy.glob("*"):
            if old.name != "backend.tf":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copytree(self.source, self._copy, ignore=_LEFT, dirs_exist_ok=True)
        self._write(self.folder / "planned.json", json.dumps(dict(variables), indent=1) + "\n")
        if backend or not (self._copy / "backend.tf").is_file():
            self._write(self._copy / "backend.tf", self._backend(backend or Backend()))
        self._call("init")

    def plan(self) -> bool:
        """Return whether the plan, which is kept for `apply`, changes anything. Raises TerraformFailed."""
        told = [
            f"-var-file={self.folder / 'planned.json'}",
            f"-out={self.folder / 'plan'}",
            "-detailed-exitcode",
        ]
        return self._call("plan", *told, fine=(0, 2)) == 2

    def keep(self) -> None:
        """Keep the planned variables for later runs: what was only looked at changes none of them."""
        os.replace(self.folder / "planned.json", self.folder / "variables.json")

    def apply(self) -> None:
        """Make what was planned. Raises TerraformFailed: the state knows what was made by then."""
        self.keep()
        try:
            self._call("apply", str(self.folder / "plan"))
        finally:
            (self.folder / "plan").unlink(missing_ok=True)

    def destroy(self, *, delete_data: bool = False) -> None:
        """Remove all that the state knows; a store that holds anything only with `delete_data`.

        Raises TerraformFailed: another run goes on. The next deployment keeps its store again.
        """
        knobs = [name for name in _KEEPS if delete_data and name in variables_of(self.source)]
        file = self.folder / "planned.json"
        self._write(file, json.dumps({**self.variables, **dict.fromkeys(knobs, False)}, indent=1) + "\n")
        targets = [f"-target={address}" for address in self.resources() if _HOLDS.search(address)]
        if knobs and targets:
            self._call("apply", f"-var-file={file}", "-auto-approve", *targets)
        self._call("destroy", f"-var-file={file}", "-auto-approve")

    def outputs(self) -> dict[str, Any]:
        """Return what the stack tells of itself. Raises TerraformFailed."""
        return {name: one["value"] for name, one in json.loads(self._read("output", "-json")).items()}

    def resources(self) -> list[str]:
        """Return the addresses of what stands, as the state has it; data sources are none."""
        text = self._read("state", "list", missing="No state file was found")
        return [line for line in text.split() if not line.startswith("data.") and ".data." not in line]

    # --- the program

    def _backend(self, backend: Backend) -> str:
        settings = dict(backend.settings)
        if backend.kind == "local":
            settings.setdefault("path", str(self.folder / "terraform.tfstate"))
        lines = "".join(f"    {name} = {json.dumps(value)}\n" for name, value in settings.items())
        return f'terraform {{\n  backend "{backend.kind}" {{\n{lines}  }}\n}}\n'

    def _write(self, path: Path, text: str) -> None:
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        os.replace(new, path)

    def _call(self, command: str, *arguments: str, fine: Sequence[int] = (0,)) -> int:
        """Run a command and show what it says on stderr. Raises TerraformFailed."""
        with subprocess.Popen(
            [self._program, command, "-no-color", "-input=false", *arguments],
            cwd=self._copy,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                sys.stderr.write(line)
        if process.returncode not in fine:
            raise TerraformFailed(f"terraform {command}: {'; '.join(_errors(lines)) or 'failed'}")
        return process.returncode

    def _read(self, *arguments: str, missing: str = "") -> str:
        command = [self._program, *arguments]
        done = subprocess.run(command, cwd=self._copy, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode and missing and missing in done.stderr:
            return ""
        if done.returncode:
            told = "; ".join(_errors(done.stderr.splitlines())) or done.stderr
            raise TerraformFailed(f"terraform {arguments[0]}: {told}")
        return done.stdout


def _errors(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first line of each error that terraform wrote, and the paragraph that it says of it."""
    for number, line in enumerate(lines):
        if (found := _ERROR.match(line)) is not None:
            rest = (_EDGE.sub("", other).strip() for other in lines[number + 1 : number + _LONGEST])
            said = dropwhile(lambda other: not other or _PLACE.match(other), takewhile(_is_of_error, rest))
            yield " ".join([found[1], *takewhile(bool, said)])


def _is_of_error(line: str) -> bool:
    return _ERROR.match(line) is None
