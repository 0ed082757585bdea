"""`polysky deploy`, `status`, `destroy`: refused before anything is made; terraform itself on a small stack."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from scripts import stacks
from scripts.cli import run
from scripts.package import DEPLOYABLES
from scripts.scale import scale_command
from tests.cli.shop import Done, Shop
from tests.emulators.missing import absent
from tests.infra.terraform import mirror

# resources of terraform itself: no provider, no account
STACK = """
variable "environment" {
  type    = string
  default = "prod"
}
variable "packages" {
  type = string
}
variable "architecture" {
  type    = string
  default = "x86_64"
}
variable "size" {
  type    = number
  default = 1
}
variable "limits" {
  type    = map(string)
  default = {}
}
resource "terraform_data" "first" {
  input = "polysky-${var.environment}-${jsonencode(var.limits)}"
}
resource "terraform_data" "second" {
  input = var.size
  depends_on = [terraform_data.first]
  lifecycle {
    precondition {
      condition     = var.size != 13
      error_message = "the name is taken"
    }
  }
  provisioner "local-exec" {
    command = "test ${var.size} != 14"
  }
}
output "url" {
  value = "https://${terraform_data.first.output}"
}
"""


class Place:
    """A folder with packages to deploy, and the commands run there."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self._shop = shop
        self.folder = folder
        self.state = folder / ".polysky" / "aws" / "prod"

    def run(self, command: str, cloud: str, *arguments: str) -> Done:
        return self._shop.run(command, cloud, *arguments)

    def refused(self, *arguments: str, code: int = 2) -> str:
        """Return the one line of a deployment that is refused before terraform is run."""
        done = self.run("deploy", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
        assert not (self.folder / ".polysky").exists()
        return done.err

    def state_of(self, name: str = "prod") -> list[str]:
        """Return the resources in a state."""
        told = json.loads((self.state.parent / name / "terraform.tfstate").read_text())
        return sorted(one["name"] for one in told["resources"])


@pytest.fixture
def place(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if shutil.which("terraform") is None:
        absent("terraform")
    folder = tmp_path / "work"
    (folder / "dist").mkdir(parents=True)
    for name in DEPLOYABLES:
        with zipfile.ZipFile(folder / "dist" / f"{name}.zip", "w") as file:
            file.writestr("core/app.py", "")
    monkeypatch.chdir(folder)
    settings = tmp_path / "terraform.rc"
    settings.write_text(f'provider_installation {{\n filesystem_mirror {{\n path = "{mirror()}"\n }}\n}}\n')
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(settings))
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "ARM_"))]:
        monkeypatch.delenv(name)
    return Place(shop, folder)


@pytest.fixture
def small(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same with a stack that needs no account."""
    (tmp_path / "infra" / "aws" / "terraform").mkdir(parents=True)
    (tmp_path / "infra" / "aws" / "terraform" / "variables.tf").write_text(STACK)
    monkeypatch.setattr(stacks, "INFRA", tmp_path / "infra")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    return place


@pytest.mark.parametrize(
    ("cloud", "remedy"),
    [("aws", "run `aws configure`"), ("gcp", "run `gcloud auth"), ("azure", "run `az login`")],
)
def test_no_credentials_are_told_with_the_remedy(place: Place, cloud: str, remedy: str) -> None:
    told = place.refused(cloud)
    assert f"no credentials for {cloud}" in told
    assert remedy in told


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("memory=1", "--var memory: the stack has no such variable; it has alarm_email, architecture"),
        ("region", "--var region: must be NAME=VALUE"),
        ("throttle=fast", 'throttle: fast is no object: write it as JSON, {"name": "value"}'),
        ("snap_start=yes", "snap_start: yes is no bool: write it as JSON, true or false"),
        ("architecture=riscv64", "architecture riscv64: functions of aws run on x86_64 or arm64"),
        ("environment=test", "--var environment: say --environment"),
    ],
)
def test_a_wrong_variable_is_named(place: Place, variable: str, told: str) -> None:
    assert told in place.refused("aws", "--var", variable)


def test_missing_terraform_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "terraform is not on PATH: install it" in place.refused("aws")


def test_a_package_over_the_limit_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    with zipfile.ZipFile(place.folder / "dist" / "aws-train.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("heavy", b"\0" * 262_144_001)
    assert "aws-train unzips to 262,144,001 bytes, over the limit of 262,144,000" in place.refused("aws")


def test_the_real_stack_is_planned_up_to_the_account(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys that no account knows, terraform itself ends the plan, and nothing was made."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    done = place.run("deploy", "aws", "--dry-run")
    assert done.code == 1
    assert "terraform plan: " in done.err.splitlines()[-1]
    assert "nobody" in done.err.splitlines()[-1]
    assert "nothing was changed" in done.err.splitlines()[-1]
    assert not (place.state / "terraform.tfstate").exists()


def test_a_stack_is_made_seen_updated_and_removed(small: Place) -> None:
    assert small.run("status", "aws").code == 1
    done = small.run("deploy", "aws", "--var", 'limits={"a": "b"}')
    assert done.code == 0, done.err
    assert small.run("status", "aws", "--json").json == {
        "resources": 2,
        "outputs": {"url": 'https://polysky-prod-{"a":"b"}'},
    }
    assert small.run("deploy", "aws").err.splitlines()[-1] == "the plan changes nothing"  # variables are kept
    assert small.run("deploy", "aws", "--var", "size=2").code == 0
    assert small.run("destroy", "aws", "--yes").out == "2 resources are removed\n"
    assert small.state_of() == []
    assert "nothing is deployed here" in small.run("destroy", "aws", "--yes").out


def test_two_environments_stand_side_by_side(small: Place) -> None:
    for name in ("one", "two"):
        assert small.run("deploy", "aws", "--environment", name).code == 0
    assert small.run("destroy", "aws", "--environment", "one", "--yes").code == 0
    assert small.state_of("one") == []
    assert small.state_of("two") == ["first", "second"]


def test_a_plan_alone_changes_nothing(small: Place) -> None:
    assert small.run("deploy", "aws", "--dry-run").code == 0
    assert not (small.state / "terraform.tfstate").exists()


@pytest.mark.parametrize("size", [13, 14])
def test_what_a_failure_leaves_half_made_is_finished_or_removed(small: Place, size: int) -> None:
    """13 fails in the plan of the resource, 14 while it is made, after the first one was."""
    done = small.run("deploy", "aws", "--var", f"size={size}")
    assert done.code == 1
    line = done.err.splitlines()[-1]
    if size == 13:
        assert line == (
            "polysky: terraform plan: Resource precondition failed the name is taken; nothing was changed"
        )
        return
    assert line.startswith("polysky: terraform apply: local-exec provisioner error")
    assert "run the same command again to finish, or `polysky destroy`" in line
    assert "first" in small.state_of()
    assert small.run("deploy", "aws", "--var", "size=1").code == 0
    assert small.state_of() == ["first", "second"]
    assert small.run("deploy", "aws", "--var", "size=14").code == 0  # an update runs no provisioner
    assert small.run("destroy", "aws", "--yes").code == 0
    assert small.state_of() == []


def test_without_yes_nothing_is_removed(small: Place) -> None:
    assert small.run("deploy", "aws").code == 0
    assert small.run("destroy", "aws").err.startswith("polysky: say --yes to remove 2 resources")
    assert small.state_of() == ["first", "second"]


KEEPING = """
variable "keep_store" {
  type    = bool
  default = true
}
resource "terraform_data" "kept" {
  input = var.keep_store
  provisioner "local-exec" {
    when    = destroy
    command = self.input ? "exit 1" : "exit 0"
  }
}
"""


def test_a_store_that_is_kept_ends_a_removal_unless_the_data_shall_go(small: Place) -> None:
    with open(stacks.INFRA / "aws" / "terraform" / "storage.tf", "w") as file:
        file.write(KEEPING)
    assert small.run("deploy", "aws").code == 0
    done = small.run("destroy", "aws", "--yes")
    assert done.code == 1
    assert "`polysky destroy --delete-data` deletes models and data too" in done.err.splitlines()[-1]
    assert "kept" in small.state_of()
    assert small.run("destroy", "aws", "--yes", "--delete-data").code == 0
    assert small.state_of() == []


def test_scaling_sets_the_variable_of_a_deployment_and_keeps_the_others(small: Place) -> None:
    with open(stacks.INFRA / "aws" / "terraform" / "scale.tf", "w") as file:
        file.write('variable "predict_concurrency" {\n  type = number\n  default = -1\n}\n')
        file.write('output "most" {\n  value = var.predict_concurrency\n}\n')
    assert small.run("deploy", "aws", "--var", "size=3").code == 0
    assert run(["--deployment-id", "aws/prod", "--replicas", "7"], command=scale_command) == 0
    assert small.run("status", "aws", "--json").json["outputs"]["most"] == 7
    kept = json.loads((small.state / "variables.json").read_text())
    assert (kept["size"], kept["predict_concurrency"]) == (3, 7)
