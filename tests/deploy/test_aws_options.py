"""AWS's stack with its options, applied to moto: what the account then holds; an update; destroyed.

moto 5.2.5 keeps no settings of a function's log lines and no SnapStart; it changes no function's processor and no
stage ("The update_stage action has not been implemented"); and no host name can be made, for its answer has no
status ("waiting for API Gateway v2 Domain Name create: unexpected state '', wanted target 'AVAILABLE'"). Those
three are planned only (tests/infra): MiniStack keeps them, but there an apply with SnapStart was seen to hang.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from tests.deploy import account, moto, promised_watch, promised_work
from tests.deploy.ministack import ACCOUNT, REGION
from tests.infra.promises import broken, spoil
from tests.infra.terraform import INFRA, Stack

PROMISES = promised_work.PROMISES | promised_watch.PROMISES
SOURCE = INFRA / "aws" / "terraform"
JWT = {"issuer": "https://id.example.com", "audience": ["polysky"]}
# what moto does not keep of functions
FORGOTTEN = ["only who predicts starts from a snapshot", "lines are JSON, in a group of the function's own"]


class Cloud(NamedTuple):
    """An account on moto, and a folder for packages and stacks."""

    endpoint: str
    folder: Path

    def client(self, service: str) -> Any:
        """Return an SDK client."""
        keys = {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "emulator"}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **keys)

    def pack(self, text: str) -> None:
        """Make packages; nothing runs them here."""
        for name in ("aws-predict", "aws-train"):
            (self.folder / f"{name}.zip").write_bytes(_zip(f"{text} {name}"))


class Applied(NamedTuple):
    """An environment that stands, and the variables that it was made with."""

    cloud: Cloud
    stack: Stack
    told: dict[str, Any]

    def change(self, **variables: Any) -> Applied:
        """Return it with other values of some variables."""
        told = self.told | variables
        self.stack.run("apply", "-auto-approve", "-input=false", variables=told)
        return self._replace(told=told)

    def facts(self) -> account.Facts:
        """Return what the account holds of it."""
        return account.read(self.cloud.client, self.told)


def _zip(text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("main.py"), text)
    return made.getvalue()


@contextmanager
def begun(folder: Path) -> Iterator[Cloud]:
    """Yield an account in which nothing is but the layer that reads secrets; AWS has it in every region."""
    with moto.start(folder / "log") as endpoint:
        cloud = Cloud(endpoint, folder)
        cloud.pack("first")
        cloud.client("lambda").publish_layer_version(LayerName="Secrets", Content={"ZipFile": _zip("layer")})
        yield cloud


def variables(cloud: Cloud, environment: str) -> dict[str, Any]:
    """Return every option that moto can follow."""
    return {
        **{"endpoint": cloud.endpoint, "packages": str(cloud.folder), "environment": environment},
        **{"keep_bucket": False, "jwt": JWT, "tokens_secret": True, **promised_work.OPTIONS},
        "secrets_extension_layer": f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:Secrets:1",
    }


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """The stack as it is."""
    with begun(tmp_path_factory.mktemp("cloud")) as cloud:
        yield Applied(cloud, Stack(SOURCE, cloud.folder / "prod"), variables(cloud, "prod")).change()


def test_the_account_holds_what_the_stack_promises(prod: Applied) -> None:
    assert broken(PROMISES, prod.facts()) == FORGOTTEN
    assert 0 not in account.left(prod.cloud.client).values()


def test_a_plan_changes_nothing_but_what_is_not_kept_here(prod: Applied) -> None:
    assert prod.stack.changes(prod.told) == {
        **{f'aws_lambda_function.function["{name}"]': {"logging_config"} for name in account.FUNCTIONS},
        'aws_lambda_function.function["predict"]': {"logging_config", "snap_start"},
    }


def test_each_promise_can_be_broken_by_one_argument(tmp_path: Path) -> None:
    with begun(tmp_path) as cloud:
        stack = Stack(SOURCE, tmp_path / "odd")
        spoil(PROMISES, stack)
        odd = Applied(cloud, stack, variables(cloud, "odd")).change()
        assert set(broken(PROMISES, odd.facts())) == PROMISES.keys()


# what can be taken back or changed here
LESS = {
    **{"jwt": None, "tokens_secret": False, "secrets_extension_layer": None, "alarm_email": None},
    **{"predict_concurrency": -1, "train_concurrency": -1, "snap_start": False, "settings": {}},
    **{"log_days": 14, "tick_minutes": 1, "train_memory_mb": 4096},
}


def test_a_canary_gets_its_share_and_options_are_taken_back(prod: Applied) -> None:
    before = prod.facts()["functions"]["predict"]
    prod.cloud.pack("second")
    begun = prod.change(canary={"version": before["Served"], "weight": 0.25}, **LESS)
    found = begun.facts()
    predict = found["functions"]["predict"]
    assert (predict["Served"], predict["CodeSha256"]) == (before["Served"], before["CodeSha256"])
    assert predict["Shares"] == {predict["Newest"]: 0.25}
    assert predict["Newest"] != before["Served"]
    assert (found["secrets"], found["mail"], found["api"]["authorizers"]) == ([], [], [])
    assert found["functions"]["predict"]["Reserved"] is found["functions"]["job"]["Reserved"] is None
    # what the old version was made with stays with it
    assert predict["Environment"] == before["Environment"]


def test_the_canary_takes_over_and_all_is_as_told(prod: Applied) -> None:
    ended = prod.change(canary=None, **LESS)
    found = ended.facts()
    assert broken(PROMISES, found) == FORGOTTEN[1:]
    assert found["functions"]["predict"]["Shares"] == {}


def test_destroy_leaves_nothing(prod: Applied) -> None:
    prod.stack.run("destroy", "-auto-approve", "-input=false", variables=prod.told | LESS)
    assert {kind for kind, many in account.left(prod.cloud.client).items() if many} == set()
