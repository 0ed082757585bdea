"""The image: no engine runs here, so its recipe is linted, read, and our own wheel made of what it copies."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from core.api import ENDPOINTS
from core.web import PUBLIC
from tests.infra.tools import tool

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
TEXT = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))


def instructions(name: str) -> list[str]:
    """Return what follows an instruction, each time."""
    return re.findall(rf"^\s*{name} (.*)$", TEXT, re.MULTILINE)


def lints(file: Path) -> bool:
    line = [str(tool("hadolint")), "--failure-threshold", "style", str(file)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def test_hadolint_has_nothing_to_say() -> None:
    assert lints(DOCKERFILE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FROM python:3.13-slim AS build", "FROM python AS build"),
        ("USER 10001:10001", "USER root"),
        ('ENTRYPOINT ["polysky"]', "ENTRYPOINT polysky"),
        ("WORKDIR /src", "WORKDIR src"),
    ],
)
def test_a_bad_habit_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    text = DOCKERFILE.read_text()
    assert text.count(old) == 1
    (tmp_path / "Dockerfile").write_text(text.replace(old, new))
    assert not lints(tmp_path / "Dockerfile")


def copied() -> list[str]:
    """Return what is copied from the repository, not from a stage."""
    lines = [shlex.split(line) for line in instructions("COPY")]
    return [source for line in lines if not line[0].startswith("--from") for source in line[:-1]]


def test_what_is_copied_exists_and_reaches_the_engine() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == sent
    assert all((ROOT / source).exists() for source in copied())


def test_nothing_else_reaches_the_engine() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    assert lines[0] == "*"
    assert any(fnmatch("core/__pycache__/api.pyc", line) for line in lines[1:])


def test_packages_come_by_hash_and_from_no_named_registry() -> None:
    installs = re.findall(r"pip install ([^&\n]*)", TEXT)
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or install.split() == ["--no-deps", "dist/*.whl"], install
    assert not re.search(r"https?://(?!127\.0\.0\.1)|--index-url|[a-z0-9-]+\.(io|com)/", TEXT)


def test_the_last_stage_has_no_pip_runs_as_nobody_special_and_serves() -> None:
    last = TEXT[TEXT.rindex("FROM ") :]
    assert "pip" not in last
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["10001:10001"]
    assert last.rstrip().endswith('ENTRYPOINT ["polysky"]\nCMD ["serve"]')
    assert len(re.findall(r"^FROM python:3\.13-slim\b", TEXT, re.MULTILINE)) == 2


def test_the_health_check_asks_what_needs_no_token() -> None:
    path = re.findall(r"\}(/[a-z/]+)\"?", instructions("HEALTHCHECK")[0])[0].rstrip("\\")
    assert path in {endpoint.path for endpoint in ENDPOINTS if endpoint.permission == PUBLIC}


def test_the_health_check_fails_where_nobody_listens() -> None:
    script = re.findall(r'"-c", "(.*)"\]', instructions("HEALTHCHECK")[0])[0].replace('\\"', '"')
    env = {"PATH": os.environ["PATH"], "POLYSKY_PORT": "9"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_the_wheel_of_what_is_copied_serves(tmp_path: Path) -> None:
    source, dist = tmp_path / "src", tmp_path / "dist"
    source.mkdir()
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / Path(name).name)
    python = tool("check-jsonschema").parent / "python"  # an environment with setuptools
    code = f"import setuptools.build_meta as b, os; os.makedirs({str(dist)!r}); b.build_wheel({str(dist)!r})"
    subprocess.run([python, "-c", code], cwd=source, capture_output=True, check=True)
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    assert (
        "polysky = scripts.cli:main" in next((tmp_path / "site").glob("*.dist-info/entry_points.txt")).read_text()
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    code = "import core.app, core.worker, handlers_onprem.launch as l; print(l.__file__)"
    code += "; from scripts.cli import main; main()"
    line = [sys.executable, "-c", code, "serve", "--help"]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "site") in done.stdout
    assert "--workers" in done.stdout
