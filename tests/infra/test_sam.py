"""AWS's stack by SAM: valid, buildable, and the same stack as Terraform's, fact by fact."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scripts import gateways
from tests.infra import aws_plan, aws_template
from tests.infra.aws_template import TEMPLATE
from tests.infra.tools import tool

_LAYER = "arn:aws:lambda:eu-west-1:015030872274:layer:AWS-Parameters-and-Secrets-Lambda-Extension:12"
# what each run of aws_values.tftest.hcl is to SAM
PARAMETERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "options": {
        **{"TokensSecret": "true", "SecretsExtensionLayer": _LAYER, "SnapStart": "true"},
        **{"PredictConcurrency": 5, "TrainConcurrency": -1, "AlarmEmail": "night@example.com"},
        **{"JwtIssuer": "https://issuer.example.com", "JwtAudience": "polysky"},
    },
}
RUNS = sorted(PARAMETERS)


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The facts of Terraform's stack, by run."""
    return aws_plan.planned(aws_plan.copied(tmp_path_factory.mktemp("terraform") / "stack"))


@pytest.fixture(scope="module", params=RUNS)
def both(request: pytest.FixtureRequest, terraform: dict[str, Any]) -> tuple[Any, Any]:
    """The facts of SAM and of Terraform, told the same."""
    told = PARAMETERS[request.param]
    (found,) = aws_template.translated([TEMPLATE], told)
    return aws_template.facts(found, told), terraform[request.param]


TOPICS = (
    *("functions", "grants", "refusals", "triggers", "tick", "failures", "routes", "throttle", "access log"),
    *("alarms", "told", "logs", "mail", "issuers", "secrets", "dashboard", "bucket"),
)


@pytest.mark.parametrize("topic", TOPICS)
def test_both_stacks_say_the_same(both: tuple[Any, Any], topic: str) -> None:
    sam, terraform = both
    assert sam[topic] == terraform[topic]
    assert set(sam) == set(terraform) == set(TOPICS)


class Break(NamedTuple):
    """An edit of one argument, and the topic in which the stacks then differ."""

    old: str
    new: str
    topic: str


BREAKS = {
    "less time": Break("Timeout: 900", "Timeout: 300", "functions"),
    "other memory": Break("MemorySize: 1769", "MemorySize: 1024", "functions"),
    "another handler": Break("handlers_aws.main.tick", "handlers_aws.main.job", "functions"),
    "no store": Break("POLYSKY_STORE:", "POLYSKY_SHOP:", "functions"),
    "a wider right": Break('Action: "s3:ListBucket"', 'Action: "s3:*"', "grants"),
    "anyone deletes the log": Break(
        "LogIsKept\n            Effect: Deny", "LogIsKept\n            Effect: Allow", "refusals"
    ),
    "a trigger for models": Break("Value: jobs/", "Value: reg/", "triggers"),
    "a slower tick": Break("rate(${TickMinutes} minutes)", "rate(${TickMinutes} hours)", "tick"),
    "no second try": Break("MaximumRetryAttempts: 2", "MaximumRetryAttempts: 0", "failures"),
    "an open route": Break(", AuthorizationType: !If [HasIssuer, JWT, NONE]", "", "routes"),
    "no limit": Break("ThrottlingRateLimit: !Ref ThrottleRate", "ThrottlingRateLimit: 99999", "throttle"),
    "a late alarm": Break("EvaluationPeriods: 5", "EvaluationPeriods: 50", "alarms"),
    "a pattern that never matches": Break('status = "parked"', 'status = "barked"', "told"),
    "a bucket without versions": Break(
        "Status: Enabled }\n      Public", "Status: Suspended }\n      Public", "bucket"
    ),
}


def test_one_broken_argument_is_noticed(terraform: dict[str, Any], tmp_path: Path) -> None:
    text, paths = TEMPLATE.read_text(), []
    for place, (what, broken) in enumerate(BREAKS.items()):
        assert broken.old in text, what
        paths.append(tmp_path / f"{place}.yaml")
        paths[-1].write_text(text.replace(broken.old, broken.new, 1))
    told = PARAMETERS["options"]
    for (what, broken), found in zip(BREAKS.items(), aws_template.translated(paths, told), strict=True):
        differ = [
            topic for topic, fact in aws_template.facts(found, told).items() if fact != terraform["options"][topic]
        ]
        assert differ == [broken.topic], what


def test_a_new_version_gets_its_requests_little_by_little_and_alarms_take_it_back() -> None:
    (found,) = aws_template.translated([TEMPLATE], {})
    ((_, group),) = aws_template.Template(found, {}).all("AWS::CodeDeploy::DeploymentGroup")
    assert {one["Name"] for one in group["AlarmConfiguration"]["Alarms"]} == {
        "errorspredict",
        "slow",
        "servererrors",
    }
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    assert "Canary10Percent5Minutes" in group["DeploymentConfigName"]


def test_the_routes_are_those_of_the_endpoint_table() -> None:
    assert TEMPLATE.read_text() == gateways.sam_template()


def _run(program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command, env = [str(tool(program)), *arguments], aws_template.environment()
    return subprocess.run(command, cwd=cwd, env=env, timeout=120, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("old", "new", "code"), [("", "", 0), ("Timeout: 900", "Timeout: 9000", 1)])
def test_sam_finds_the_template_valid_and_a_broken_one_not(tmp_path: Path, old: str, new: str, code: int) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE.read_text().replace(old, new, 1) if old else TEMPLATE.read_text())
    done = _run("sam", "validate", "--lint", "--template", str(path))
    assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize("run", RUNS)
def test_what_sam_makes_of_it_is_valid_cloudformation(tmp_path: Path, run: str) -> None:
    (found,) = aws_template.translated([TEMPLATE], PARAMETERS[run])
    (tmp_path / "made.json").write_text(json.dumps(found))
    # SAM has already put in the parameter that chooses the deployment; empty defaults are never used
    ignored = ("--ignore-checks", "W2001", "W1030")
    done = _run("cfn-lint", "--regions", "eu-west-1", *ignored, "--", str(tmp_path / "made.json"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_sam_builds_of_the_packages_that_the_template_names(tmp_path: Path) -> None:
    folder = tmp_path / TEMPLATE.parent.relative_to(TEMPLATE.parents[3])
    folder.mkdir(parents=True)
    (folder / "template.yaml").write_text(TEMPLATE.read_text())
    (tmp_path / "build").mkdir()
    for name in ("aws-predict", "aws-train"):
        with zipfile.ZipFile(tmp_path / "build" / f"{name}.zip", "w") as archive:
            archive.writestr("handlers_aws/main.py", "")
    done = _run("sam", "build", "--template", str(folder / "template.yaml"), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    built = (folder / ".aws-sam" / "build" / "template.yaml").read_text()
    places = [line.split(": ")[1] for line in built.splitlines() if "CodeUri:" in line]
    assert len(places) == 4
    assert all((folder / ".aws-sam" / "build" / place).is_file() for place in places)
