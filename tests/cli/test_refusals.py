"""What an operator is told when a cloud refuses: one line with the remedy, and a way on. Errors are planted."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from scripts.cli import run
from scripts.package import DEPLOYABLES, MARKER
from scripts.scale import scale_command
from tests.cli.shop import Done, Shop

# terraform's commands without their work: `fails` names the one that ends with the text in `says`
TERRAFORM = """#!/bin/sh
here={here}
case "$1" in
init) touch .terraform.made ;;
plan) code=2 ;;
apply) echo aws_s3_bucket.store > "$here/stands" ;;
state) cat "$here/stands" 2>/dev/null; exit 0 ;;
output) echo '{{}}'; exit 0 ;;
esac
if test "$1" = "$(cat "$here/fails" 2>/dev/null)"; then cat "$here/says" >&2; exit 1; fi
test "$1" = destroy && rm -f "$here/stands"
exit "${{code:-0}}"
"""
# as terraform writes an error when nobody looks at it: 78 columns, no box
TEMPLATE = """
Error: {head}

  with aws_s3_bucket.store,
  on bucket.tf line 5, in resource "aws_s3_bucket" "store":
   5: resource "aws_s3_bucket" "store" {{

{detail}
"""
REGION = "say a region that the cloud has"
LOGIN = "log in again: `aws configure`"
NAME = "else choose another by `--environment` or, for a bucket, `--var bucket=…`"
CREDENTIALS = {
    "aws": {"AWS_PROFILE": "mine"},
    "gcp": {"GOOGLE_CREDENTIALS": "{}"},
    "azure": {"ARM_CLIENT_ID": "mine"},
}
TOLD = {"aws": (), "gcp": ("--var", "project=mine-123"), "azure": ("--var", "subscription_id=mine")}


class Field:
    """A folder with packages and a planted terraform."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self._shop, self.folder = shop, folder
        (folder / "dist").mkdir()
        for name in DEPLOYABLES:
            self.pack(name)

    def pack(self, name: str, **about: str) -> None:
        with zipfile.ZipFile(self.folder / "dist" / f"{name}.zip", "w") as file:
            file.writestr(MARKER, json.dumps({"package": name, "sets": [], **about}))

    def fail(self, command: str, head: str = "", detail: str = "") -> None:
        """Let a command of terraform fail; an empty name lets all succeed."""
        (self.folder / "fails").write_text(command)
        (self.folder / "says").write_text(TEMPLATE.format(head=head, detail=detail))

    def run(self, command: str, cloud: str, *arguments: str) -> Done:
        told = TOLD[cloud] if command == "deploy" else ()
        return self._shop.run(command, cloud, *told, *arguments)

    def refused(self, command: str, cloud: str, *arguments: str) -> str:
        """Return the last line of a command that fails, which must be the only one of ours and no traceback."""
        done = self.run(command, cloud, *arguments)
        assert done.code in (1, 2), done
        assert "Traceback" not in done.err
        assert done.err.count("polysky: ") == 1
        return done.err.splitlines()[-1]

    def kept(self, cloud: str, environment: str = "prod") -> dict[str, object]:
        found: dict[str, object] = json.loads(
            (self.folder / ".polysky" / cloud / environment / "variables.json").read_text()
        )
        return found

    @property
    def stands(self) -> bool:
        return (self.folder / "stands").exists()


@pytest.fixture
def field(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Field:
    folder, programs = tmp_path / "work", tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()
    (programs / "terraform").write_text(TERRAFORM.format(here=folder))
    (programs / "terraform").chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    for settings in CREDENTIALS.values():
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
    return Field(shop, folder)


@pytest.mark.parametrize(
    ("cloud", "head", "detail", "remedy"),
    [
        ("aws", "invalid AWS Region: mars", "", REGION),
        ("azure", '"mars" was not found in the list of supported Azure Locations: "westeurope"', "", REGION),
        (
            "gcp",
            "googleapi: Error 403: Permission denied on 'locations/mars-west1'",
            "",
            REGION,
        ),
        ("aws", "No valid credential sources found", "Please see https://registry.terraform.io\nfor more", LOGIN),
        (
            "aws",
            "Retrieving AWS account details: api error ExpiredToken: it is expired",
            "",
            LOGIN,
        ),
        ("gcp", "Attempted to load application default credentials", "No credentials loaded. To use", LOGIN),
        ("azure", "unable to build authorizer for Resource Manager API: could not configure AzureCli", "", LOGIN),
        ("aws", "Failed to query available provider packages", "Could not retrieve the list", "check the network"),
        ("aws", "Unsupported Terraform Core version", "This configuration does not support", "1.11 or newer"),
        ("aws", "Error acquiring the state lock", "resource temporarily unavailable", "terraform force-unlock ID"),
        ("gcp", "googleapi: Error 403: Eventarc API has not been used in project 1 before", "", "ask its owner"),
    ],
)
def test_what_the_plan_is_refused_for_is_told_with_the_remedy(
    field: Field, cloud: str, head: str, detail: str, remedy: str
) -> None:
    field.fail("plan", head, detail)
    line = field.refused("deploy", cloud)
    assert line.startswith(f"polysky: terraform plan: {head}")
    assert " ".join(detail.split()) in line
    assert "; nothing was changed: " in line
    assert remedy in line.partition("; nothing was changed: ")[2]
    assert field.refused("status", cloud).startswith("polysky: nothing is deployed here")
    assert not field.stands
    field.fail("")
    assert field.run("deploy", cloud).code == 0


@pytest.mark.parametrize(
    ("cloud", "head"),
    [
        ("aws", "creating S3 Bucket (polysky-prod): BucketAlreadyExists"),
        ("aws", "creating Lambda Function (x): api error ResourceConflictException: Function already exist: x"),
        ("aws", "creating IAM Role (x): api error EntityAlreadyExists: Role with name x already exists."),
        ("gcp", "googleapi: Error 409: The requested bucket name is not available., conflict"),
        (
            "azure",
            "creating Storage Account: 409 Conflict with error: StorageAccountAlreadyTaken: the name",
        ),
        ("azure", 'A resource with the ID "/subscriptions/1/x" already exists - it needs to be imported'),
    ],
)
def test_a_name_that_is_taken_is_told_and_what_was_made_is_finished_or_removed(
    field: Field, cloud: str, head: str
) -> None:
    field.fail("apply", head)
    line = field.refused("deploy", cloud, "--environment", "one")
    assert line.startswith(f"polysky: terraform apply: {head}: something has that name")
    assert NAME in line
    assert "run the same command again to finish, or `polysky destroy`" in line
    assert field.stands
    field.fail("")
    assert field.run("deploy", cloud, "--environment", "one").code == 0
    assert field.run("destroy", cloud, "--environment", "one", "--yes").code == 0
    assert not field.stands


@pytest.mark.parametrize(
    ("cloud", "head"),
    [
        ("aws", "deleting S3 Bucket (x): api error BucketNotEmpty: The bucket you tried to delete is not empty"),
        ("gcp", "Error trying to delete bucket x containing objects without `force_destroy` set to true"),
        ("azure", "local-exec provisioner error"),
    ],
)
def test_a_store_that_is_not_empty_stays_and_the_way_to_delete_it_is_told(
    field: Field, cloud: str, head: str
) -> None:
    assert field.run("deploy", cloud).code == 0
    field.fail("destroy", head)
    line = field.refused("destroy", cloud, "--yes")
    assert line.startswith(f"polysky: terraform destroy: {head}")
    assert line.endswith("`polysky destroy --delete-data` deletes models and data too")
    assert field.stands


def test_what_was_only_looked_at_is_forgotten(field: Field) -> None:
    """A plan with other variables must not decide what a later run makes, or where `destroy` looks."""
    assert field.run("deploy", "aws", "--var", "log_days=7", "--dry-run").code == 0
    assert field.refused("status", "aws").startswith("polysky: nothing is deployed here")
    assert field.run("deploy", "aws", "--var", "log_days=14").code == 0
    assert field.run("deploy", "aws", "--var", "log_days=21", "--dry-run").code == 0
    field.fail("plan", "no")
    field.refused("deploy", "aws", "--var", "log_days=28")
    assert field.kept("aws")["log_days"] == 14


@pytest.mark.parametrize(
    ("cloud", "variable", "before"),
    [
        ("aws", "region=us-east-1", "region, which is eu-west-1"),
        ("azure", "location=northeurope", "location, which is westeurope"),
        ("azure", "subscription_id=other", "subscription_id, which is mine"),
        ("gcp", "project=other-123", "project, which is mine-123"),
    ],
)
def test_what_stands_is_not_left_behind_in_another_region_or_account(
    field: Field, cloud: str, variable: str, before: str
) -> None:
    assert field.run("deploy", cloud).code == 0
    line = field.refused("deploy", cloud, "--var", variable)
    assert f"what stands would be left behind: it has {before}: destroy it" in line
    assert field.run("deploy", cloud).code == 0
    assert field.run("destroy", cloud, "--yes").code == 0
    assert field.run("deploy", cloud, "--var", variable).code == 0


def test_another_environment_does_not_take_over_a_folder(field: Field) -> None:
    assert field.run("deploy", "aws", "--state-dir", "mine").code == 0
    line = field.refused("deploy", "aws", "--state-dir", "mine", "--environment", "staging")
    assert "environment, which is prod" in line


@pytest.mark.parametrize("name", ["../x", "Prod_1", "", "a" * 21, "9"])
@pytest.mark.parametrize("command", ["deploy", "status", "destroy"])
def test_an_environment_that_is_no_name_is_refused(field: Field, command: str, name: str) -> None:
    assert "--environment must be 1 to 20" in field.refused(command, "aws", "--environment", name)
    assert not (field.folder / ".polysky").exists()


def test_after_all_was_deleted_the_next_deployment_keeps_its_store(field: Field) -> None:
    assert field.run("deploy", "aws").code == 0
    assert field.run("destroy", "aws", "--yes", "--delete-data").code == 0
    assert field.kept("aws").get("keep_bucket", True) is True


def test_a_package_for_another_processor_is_refused(field: Field) -> None:
    field.pack("aws-train", platform="linux-arm64")
    line = field.refused("deploy", "aws")
    assert "aws-train was built for linux-arm64, not x86_64: `polysky package aws --arch x86_64" in line
    field.pack("aws-predict", platform="linux-arm64")
    assert field.run("deploy", "aws", "--var", "architecture=arm64").code == 0


@pytest.mark.parametrize(("command", "cloud"), [("deploy", "gcp"), ("plan", "gcp")])
def test_a_damaged_package_is_named(field: Field, command: str, cloud: str) -> None:
    (field.folder / "dist" / "gcp-train.zip").write_bytes(b"half a fi")
    assert "gcp-train.zip is damaged: `polysky package gcp` builds it again" in field.refused(command, cloud)


def test_scaling_leaves_the_code_and_what_is_kept_warm_as_they_are(field: Field) -> None:
    (field.folder / "dist").rename(field.folder / "mine")
    told = ("--packages", "mine", "--var", 'predict_instances={"min": 2, "max": 4}')
    assert field.run("deploy", "gcp", *told).code == 0
    assert run(["--deployment-id", "gcp/prod", "--replicas", "7"], command=scale_command) == 0
    kept = field.kept("gcp")
    assert kept["predict_instances"] == {"min": 2, "max": 7}
    assert kept["packages"] == str(field.folder / "mine")
    assert not (field.folder / "dist").exists()


@pytest.mark.parametrize("command", ["status", "destroy"])
def test_without_terraform_nothing_is_looked_at(
    field: Field, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "terraform is not on PATH: install it" in field.refused(command, "aws")
