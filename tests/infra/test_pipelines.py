"""Three pipelines of one meaning: valid files that call the same make targets in the same order."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.infra.documents import read_yaml
from tests.infra.tools import tool

ROOT = Path(__file__).resolve().parents[2]
GITHUB, GITLAB, JENKINS = ROOT / ".github/workflows/ci.yml", ROOT / ".gitlab-ci.yml", ROOT / "Jenkinsfile"
STEPS = ["check", "test", "demo", "package", "plan", "deploy", "promote"]
SCHEMAS = {
    GITHUB: ("--builtin-schema", "vendor.github-workflows"),
    GITLAB: ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}
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
    found = read_yaml(GITLAB)
    return {name: job for name, job in found.items() if isinstance(job, dict) and "script" in job}


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
    assert set(jobs["package"]["needs"]) == {"verify", "demo"}
    assert jobs["deploy"]["needs"] == "package"
    assert jobs["deploy"]["environment"].startswith("production-")
    assert "github.ref == 'refs/heads/main'" in jobs["deploy"]["if"]
    jobs = gitlab()
    stages = read_yaml(GITLAB)["stages"]
    assert [jobs[name]["stage"] for name in ("verify", "demo", "package", "deploy")] == [
        stages[0],
        stages[0],
        stages[1],
        stages[2],
    ]
    assert [rule["when"] for rule in jobs["deploy"]["rules"]] == ["manual"]
    assert jobs["deploy"]["environment"]["name"].startswith("production-")
    deploy = JENKINS.read_text()[JENKINS.read_text().index("stage('deploy')") :]
    assert deploy.index("beforeInput true") < deploy.index("input {") < deploy.index("sh 'make deploy'")


def test_the_versions_of_python_are_those_that_are_promised() -> None:
    promised = ["3.11", "3.12", "3.13"]
    assert github()["verify"]["strategy"]["matrix"]["python"] == promised
    assert gitlab()["verify"]["parallel"]["matrix"] == [{"PYTHON_VERSION": promised}]


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


def test_the_jenkinsfile_is_balanced_and_keeps_the_order_of_its_sections() -> None:
    """Its grammar is Jenkins's own, and there is no Jenkins here."""
    text = re.sub(r"//.*|'[^'\n]*'", "", JENKINS.read_text())
    depth = 0
    for sign in re.findall(r"[{}]", text):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    sections = re.findall(r"^    (\w+) \{", JENKINS.read_text(), re.MULTILINE)
    assert sections == ["agent", "options", "parameters", "environment", "stages"]
