"""AWS's stack without an account: it is formatted, valid, keeps its promises, and notices what breaks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts import gateways
from tests.infra.terraform import INFRA, Failed, Stack

SOURCE = INFRA / "aws" / "terraform"


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A copy of the stack beside packages that are none."""
    packages = tmp_path / "stack" / "tests" / "packages"
    made = Stack(SOURCE, tmp_path / "stack")
    packages.mkdir()
    for name in ("aws-predict.zip", "aws-train.zip"):
        (packages / name).write_bytes(b"")
    return made


def test_the_stack_is_formatted_valid_and_keeps_its_promises(stack: Stack) -> None:
    stack.run("fmt", "-check", "-recursive")
    stack.run("validate")
    assert "0 failed" in stack.run("test")


class Break(NamedTuple):
    """An edit of one argument, and the command that must notice it."""

    file: str
    old: str
    new: str
    command: str


BREAKS = {
    "a misspelt argument": Break("functions.tf", "  memory_size  ", "  memory_sise  ", "validate"),
    "a reference to nothing": Break(
        "schedule.tf", "resources = [aws_lambda_alias.live", "resources = [aws_lambda_alias.dead", "validate"
    ),
    "a bucket without versions": Break("bucket.tf", '{ status = "Enabled" }', '{ status = "Suspended" }', "test"),
    "an extension that remembers": Break("functions.tf", '{ SECRETS_MANAGER_TTL = "0" }', "{}", "test"),
    "alarms that cannot be sent": Break(
        "observability.tf", '-alarms"\n}', '-alarms"\n  kms_master_key_id = "alias/aws/sns"\n}', "test"
    ),
    "a canary that takes over": Break("functions.tf", "{ predict = var.canary.version }", "{}", "test"),
    "a trigger for everything": Break("bucket.tf", '"${lambda_function.value}/"', '""', "test"),
}


@pytest.mark.parametrize("what", sorted(BREAKS))
def test_one_broken_argument_is_noticed(stack: Stack, what: str) -> None:
    broken = BREAKS[what]
    stack.edit(broken.file, broken.old, broken.new)
    with pytest.raises(Failed):
        stack.run(broken.command)


def test_the_routes_are_those_of_the_endpoint_table() -> None:
    assert gateways.AWS_ROUTES.read_text() == gateways.aws_routes()
    routes = json.loads(gateways.aws_routes())
    assert routes["POST /predict/{model}"] == {"function": "predict", "public": False}
    assert routes["POST /models/{model}/rollback"] == {"function": "control", "public": False}
    assert routes["GET /health"]["public"]
    assert len(routes) <= 300  # of an HTTP API
