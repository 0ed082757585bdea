"""Three pipelines of one meaning: valid files that call the same make targets in the same order."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.infra.documents import read_yaml
from tests.infra.tools import tool

ROOT = Path(__file__).resolve().parents[2]
GITHUB, GITLAB, JENKINS = ROOT / ".github/workflows/ci.yml", ROOT / ".gitlab-ci.yml", ROOT / "Jenkinsfile"
STEPS = ["check", "test", "test-deploy", "demo", "package", "plan", "deploy", "promote"]
SCHEMAS = {
    GITHUB: ("--builtin-schema", "vendor.github-workflows"),
    GITLAB: ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}
TOOL = ".tools/terraform"
_PREPARES = (
    "sudo apt-get ",
    "terraform -chdir=infra/aws/terraform providers mirror ",
)  # the machine, for the tests
_MAKE = re.compile(r"^make (?:PYTHON=python )?([a-z-]+)$")


def valid(file: Path, schema: tuple[str, ...]) -> bool:
    line = [str(tool("check-jsonschema")), *schema, str(file)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.name)
def test_a_pipeline_keeps_its_schema(file: Path) -> None:
    assert valid(file, SCHEMAS[file])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (GITHUB, "    environment: production", "    environments: production"),
        (GITHUB, "    needs: package\n", "    needs: {}\n"),
        (GITHUB, "    runs-on: ubuntu-24.04\n    timeout-minutes: 20\n", ""),
        (GITLAB, "      when: manual", "      when: sometimes"),
        (GITLAB, "  resource_group:", "  resource_groups:"),
        (GITLAB, "  artifacts:\n    paths:", "  artifacts:\n    path:"),
    ],
)
def test_one_broken_argument_is_noticed(tmp_path: Path, file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    (tmp_path / file.name).write_text(text.replace(old, new))
    assert not valid(tmp_path / file.name, SCHEMAS[file])


def github() -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(GITHUB)["jobs"]
    return found


def gitlab() -> dict[str, Any]:
    """Return the jobs but for the one that brings terraform."""
    found = read_yaml(GITLAB)
    jobs = {name: job for name, job in found.items() if isinstance(job, dict) and "script" in job}
    assert jobs.pop("terraform")["artifacts"]["paths"] == [TOOL]
    return jobs


def targets(commands: list[str]) -> list[str]:
    """Return the make targets of command lines, which are nothing but calls of make."""
    found = [_MAKE.match(command) for command in commands]
    assert all(found), commands
    return [match[1] for match in found if match]


def github_commands() -> list[str]:
    steps = [step for job in github().values() for step in job["steps"] if "run" in step]
    return [step["run"] for step in steps if not step["run"].startswith(_PREPARES)]


def jenkins_commands() -> list[str]:
    return re.findall(r"^\s*sh '([^']*)'$", JENKINS.read_text(), re.MULTILINE)


def test_all_three_call_the_same_targets_in_the_same_order() -> None:
    assert targets(github_commands()) == STEPS
    assert targets([line for job in gitlab().values() for line in job["script"]]) == STEPS
    assert targets(jenkins_commands()) == STEPS


@pytest.mark.parametrize("commands", [["make tests; make check"], ["pip install x"], ["make -k check"]])
def test_a_step_that_does_more_than_make_is_noticed(commands: list[str]) -> None:
    with pytest.raises(AssertionError):
        targets(commands)


@pytest.mark.parametrize("target", STEPS)
def test_each_target_is_one_of_the_makefile(target: str) -> None:
    line = ["make", "--dry-run", "--question", target]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "No rule to make target" not in done.stderr
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_a_deployment_waits_for_all_that_is_before_it_and_for_a_person() -> None:
    jobs = github()
    assert set(jobs["package"]["needs"]) == {"verify", "apply", "demo"}
    assert jobs["deploy"]["needs"] == "package"
    assert jobs["deploy"]["environment"].startswith("production-")
    assert "github.ref == 'refs/heads/main'" in jobs["deploy"]["if"]
    jobs = gitlab()
    stages = read_yaml(GITLAB)["stages"]
    order = {name: stages.index(job["stage"]) for name, job in jobs.items()}
    assert order == {"verify": 0, "apply": 0, "demo": 0, "package": 1, "deploy": 2}
    assert set(jobs["deploy"]["needs"]) == {"terraform", "package"}
    assert [rule["when"] for rule in jobs["deploy"]["rules"]] == ["manual"]
    assert jobs["deploy"]["environment"]["name"].startswith("production-")
    deploy = JENKINS.read_text()[JENKINS.read_text().index("stage('deploy')") :]
    assert deploy.index("beforeInput true") < deploy.index("input {") < deploy.index("sh 'make deploy'")
    assert deploy.index("unstash 'packages'") < deploy.index("sh 'make deploy'")


def test_terraform_is_there_where_it_is_asked_for() -> None:
    """`make test`, `make test-deploy` and `make deploy` run it."""
    for name, job in github().items():
        asks = {"test", "test-deploy", "deploy"} & {
            step.get("run", "").split()[-1] for step in job["steps"] if "run" in step
        }
        brought = any(step.get("uses", "").startswith("hashicorp/setup-terraform@") for step in job["steps"])
        assert brought == bool(asks), name
    path = f'export PATH="$CI_PROJECT_DIR/{TOOL.rpartition("/")[0]}:$PATH"'
    common = read_yaml(GITLAB)[".python"]["before_script"]
    for name, job in gitlab().items():
        assert path in job.get("before_script", common), name


def test_the_versions_of_python_are_those_that_are_promised() -> None:
    promised = ["3.11", "3.12", "3.13"]
    assert github()["verify"]["strategy"]["matrix"]["python"] == promised
    assert gitlab()["verify"]["parallel"]["matrix"] == [{"PYTHON_VERSION": promised}]
    (values,) = re.findall(r"values (.*)", JENKINS.read_text())
    assert re.findall(r"'([^']*)'", values) == promised


def test_actions_are_pinned_by_their_major_version() -> None:
    used = {step["uses"] for job in github().values() for step in job["steps"] if "uses" in step}
    assert used
    assert all(re.fullmatch(r"[a-z-]+/[a-z-]+@v\d+", action) for action in used)


def test_rights_are_few_and_no_secret_is_written_down() -> None:
    workflow = read_yaml(GITHUB)
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in github().items() if "id-token" in job.get("permissions", {})] == ["deploy"]
    for file in (GITHUB, GITLAB, JENKINS):
        assert not re.search(r"(?i)(password|secret|token) *[:=] *['\"]?[a-z0-9]{8}", file.read_text()), file.name


def test_nothing_of_an_input_is_put_into_a_command() -> None:
    """An expression within a command would be run as what somebody typed."""
    assert not [command for command in github_commands() if "${{" in command]
    assert not [command for command in jenkins_commands() if "$" in command]


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Run a target of the Makefile with a `polysky` that only writes its arguments."""
    program = tmp_path / "polysky"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)

    def make(target: str, **env: str) -> tuple[int, list[str]]:
        line = ["make", "--silent", "--assume-old", ".venv/.polysky", f"BIN={tmp_path}", target]
        env = {"PATH": os.environ["PATH"], **env}
        done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    return make


HOSTILE = 'x"; echo run; echo "$(echo run)'


def test_what_somebody_typed_into_a_form_is_not_run(made: Callable[..., tuple[int, list[str]]]) -> None:
    told = made("promote", POLYSKY_MODEL=HOSTILE, POLYSKY_VERSION=HOSTILE)
    assert told == (0, ["models", "promote", HOSTILE, HOSTILE])
    flags = "--backend s3 --backend-config bucket=b; echo run"
    told = made("deploy", CLOUD=HOSTILE, DEPLOY_FLAGS=flags)
    assert told == (0, ["deploy", HOSTILE, "--packages", "dist", *flags.split()])


def test_nothing_is_promoted_where_no_model_is_named(made: Callable[..., tuple[int, list[str]]]) -> None:
    assert made("promote") == (0, [])


def test_a_runner_that_would_lose_the_state_does_not_deploy(made: Callable[..., tuple[int, list[str]]]) -> None:
    assert made("deploy", CLOUD="aws", CI="true") == (2, [])
    assert made("deploy", CLOUD="aws") == (0, ["deploy", "aws", "--packages", "dist"])
    assert made("deploy")[0] == 2


def test_the_jenkinsfile_is_balanced_and_keeps_the_order_of_its_sections() -> None:
    """Its grammar is Jenkins's own, and there is no Jenkins here."""
    text = re.sub(r"//.*|'[^'\n]*'", "", JENKINS.read_text())
    depth = 0
    for sign in re.findall(r"[{}]", text):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    sections = re.findall(r"^    (\w+) (?:\{|none)$", JENKINS.read_text(), re.MULTILINE)
    assert sections == ["agent", "options", "parameters", "environment", "stages"]
