"""Common rules of safe deployments, by checkov: a stack breaks just those that infra/checkov.toml excuses.

A stack comes under the rules by its section there: the folder below infra/, checkov's framework, what is accepted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.infra.terraform import INFRA
from tests.infra.tools import tool

STACKS = tomllib.loads((INFRA / "checkov.toml").read_text())


def broken(folder: Path, framework: str) -> dict[str, set[str]]:
    """Return the rules that a folder's files break, each with the resources that do."""
    command = [str(tool("checkov")), "--directory", str(folder), "--framework", framework, "--output", "json"]
    quiet = [
        "--quiet",
        "--compact",
        "--skip-download",
    ]  # the rules are checkov's own, none from its makers' server
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run([*command, *quiet], env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0, "checkov found nothing to look at"
    found: dict[str, set[str]] = {}
    for one in report["results"]["failed_checks"]:
        found.setdefault(one["check_id"], set()).add(one["resource"])
    return found


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_a_stack_breaks_just_the_rules_that_it_has_reasons_for(stack: str) -> None:
    told = STACKS[stack]
    found = broken(INFRA / stack, told["framework"])
    assert {rule: found[rule] for rule in found.keys() - told["accepted"].keys()} == {}
    assert told["accepted"].keys() - found.keys() == set(), "exceptions that nothing needs"
    for rule, reason in told["accepted"].items():
        named = reason.removeprefix("as ")
        assert len(STACKS[named]["accepted"][rule] if named in STACKS else reason) > 20, rule


# by rule: what breaks it in AWS's stack
PLANTED = {
    "CKV_AWS_53": ("bucket.tf", "block_public_acls       = true", "block_public_acls       = false"),
    "CKV_AWS_21": ("bucket.tf", '{ status = "Enabled" }', '{ status = "Suspended" }'),
    "CKV_AWS_27": ("functions.tf", "sqs_managed_sse_enabled   = true", "sqs_managed_sse_enabled   = false"),
    "CKV_AWS_55": ("bucket.tf", "ignore_public_acls      = true", "ignore_public_acls      = false"),
}


def test_broken_rules_are_noticed(tmp_path: Path) -> None:
    shutil.copytree(INFRA / "aws" / "terraform", tmp_path / "stack", ignore=shutil.ignore_patterns(".terraform*"))
    for file, old, new in PLANTED.values():
        path = tmp_path / "stack" / file
        assert path.read_text().count(old) == 1, old
        path.write_text(path.read_text().replace(old, new))
    found = broken(tmp_path / "stack", "terraform").keys() - STACKS["aws/terraform"]["accepted"].keys()
    assert found >= PLANTED.keys()
