"""The four scripts of a model's way into production and back, with the flags that people know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from scripts import stacks
from scripts.cli import run
from scripts.deploy import deploy_command
from scripts.package import ROOT
from scripts.promote_model import promote_command
from scripts.rollback import rollback_command
from scripts.scale import scale_command
from tests.cli.shop import Done, Shop
from tests.mood import SPEC, rows


class Ways(Shop):
    """A shop with two versions, and the scripts run on it."""

    old = ""
    new = ""

    def door(self, command: click.Command, *arguments: str) -> Done:
        self._capture.readouterr()
        code = run(arguments, command=command)
        out, err = self._capture.readouterr()
        return Done(code, out, err)

    def do(self, command: click.Command, *arguments: str) -> str:
        """Run a script on the store; return the id of the deployment that it tells."""
        done = self.door(command, *arguments, "--store", str(self.store))
        assert done.code == 0, done.err
        return done.out.rpartition("deployment ")[2].strip()

    def stopped(self, command: click.Command, *arguments: str) -> str:
        """Return the one line that a script fails with."""
        done = self.door(command, *arguments)
        assert done.code != 0
        assert (done.out, done.err.count("\n")) == ("", 1)
        return done.err

    @property
    def serving(self) -> Any:
        """Return where production points."""
        return self.call("models", "history", "mood", "--json").json["aliases"]["production"]["points_to"]


@pytest.fixture
def ways(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ways:
    monkeypatch.delenv("POLYSKY_STORE", raising=False)
    ways = Ways(tmp_path, capfd)
    for size in (120, 200):
        ways.train(SPEC, ways.write("mood.csv", rows(0, size)))
    ways.new, ways.old = (one["version"] for one in ways.call("models", "show", "mood", "--json").json)
    return ways


def test_blue_green_moves_all_traffic_and_the_rollback_of_that_deployment_moves_it_back(ways: Ways) -> None:
    deployment = ways.do(deploy_command, "--model-version", ways.old, "--strategy", "blue_green")
    assert ways.serving == ways.old
    ways.do(rollback_command, "--deployment-id", deployment)
    assert ways.serving == ways.new


def test_a_canary_gets_its_share_and_goes_on_to_all_or_back(ways: Ways) -> None:
    canary = ["--model-version", ways.old, "--strategy", "canary", "--traffic", "20"]
    first = ways.do(deploy_command, *canary)
    assert ways.serving == f"{ways.new} (80), {ways.old} (20)"
    second = ways.do(deploy_command, "--model-version", ways.old, "--strategy", "blue_green")
    assert ways.serving == ways.old
    ways.do(rollback_command, "--deployment-id", second)
    assert ways.serving == f"{ways.new} (80), {ways.old} (20)"
    assert "serves no more" in ways.stopped(rollback_command, "--deployment-id", first, "--store", str(ways.store))


def test_a_version_or_a_first_deployment_is_rolled_back_to_or_refused(ways: Ways) -> None:
    ways.do(rollback_command, "--version", ways.old)
    assert ways.serving == ways.old
    where = ["--store", str(ways.store)]
    assert "must be MODEL:N" in ways.stopped(rollback_command, "--deployment-id", "dep_001", *where)
    assert "is no deployment" in ways.stopped(rollback_command, "--deployment-id", "mood:0", *where)
    assert "say either" in ways.stopped(rollback_command, *where)
    assert "no model has version v-000000000000" in ways.stopped(
        rollback_command, "--version", "v-000000000000", *where
    )


def test_a_canary_beside_nothing_is_refused(ways: Ways) -> None:
    told = ["--model-version", ways.new, "--strategy", "canary", "--store", str(ways.store)]
    assert "a canary needs another version in production" in ways.stopped(deploy_command, *told)


def test_what_is_staged_is_promoted(ways: Ways) -> None:
    assert "no model has staging" in ways.stopped(promote_command, "--store", str(ways.store))
    ways.call("models", "promote", "mood", ways.old, "--alias", "staging")
    ways.do(promote_command)
    assert ways.serving == ways.old


def test_scaling_kubernetes_prints_the_command(ways: Ways) -> None:
    out = ways.door(scale_command, "--deployment-id", "kubernetes", "--replicas", "12").out
    patch = json.loads(out.split("'")[1])
    assert patch == {"spec": {"minReplicas": 12, "maxReplicas": 12}}


def test_scaling_what_was_not_deployed_is_refused(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ways.folder)
    for told, why in (("dep_001", "must be aws/…"), ("aws/prod", "aws/prod was not deployed from here")):
        assert why in ways.stopped(scale_command, "--deployment-id", told, "--replicas", "5")


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_scaling_sets_a_variable_that_the_stack_has(cloud: str) -> None:
    from scripts.scale import _VARIABLES

    assert _VARIABLES[cloud] in stacks.variables_of(stacks.source_of(cloud))


@pytest.mark.parametrize("name", ["promote_model", "deploy", "rollback", "scale"])
def test_each_is_a_program(name: str) -> None:
    done = subprocess.run(
        [sys.executable, f"scripts/{name}.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
