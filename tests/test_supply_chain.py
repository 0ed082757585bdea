"""What is installed is what was pinned: hashes everywhere, bills that leave nothing out, audits that tell."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scripts.audit_deps import Finding, NoSource, findings
from scripts.package import DEPLOYABLES, EXTRAS
from scripts.packaging.installation import InstallFailed, Target, installed
from scripts.sbom import UnreadableSet, bill, deployables, main, pins_of, requirement_files

ROOT = Path(__file__).resolve().parent.parent
SETS = sorted((ROOT / "infra" / "requirements").glob("*.txt"))
# tools of the tests, with versions of their own
APART = {"audit", "build", "lint", "ministack", "moto", "policy", "runtimes"}
FOLDERS = ("core", "scripts", "handlers_aws", "handlers_azure", "handlers_gcp", "handlers_onprem")


def pinned(path: Path) -> Counter[str]:
    """Return how many hashes each `name==version` of a set has; read apart from what is tested."""
    found: Counter[str] = Counter()
    last = ""
    for word in re.findall(r"^[\w.-]+==[^\s;]+|--hash=sha256:[0-9a-f]{64}\b", path.read_text(), re.MULTILINE):
        last = last if word.startswith("--hash") else word
        found[last] += word.startswith("--hash")
    return found


# --- pins


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_every_pin_of_every_set_has_a_hash(path: Path) -> None:
    counts = pinned(path)
    assert counts
    assert [name for name, hashes in counts.items() if not hashes] == []
    assert pins_of(path.read_text())


def test_sets_pin_the_versions_that_the_tests_run_with() -> None:
    files = (ROOT / "requirements.txt", ROOT / "infra" / "requirements" / "runtimes.txt")
    tested = {pin for file in files for pin in re.findall(r"(?m)^[\w.-]+==[^\s;]+", file.read_text())}
    found = {path.stem: set(pinned(path)) - tested for path in SETS if path.stem not in APART}
    assert {stem: names for stem, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text", ["six\n", "six>=1\n", "six==1\n", "-e .\n", "six @ https://a.example/six.whl\n", "--hash=sha256:00\n"]
)
def test_a_line_that_pins_nothing_is_refused(text: str) -> None:
    with pytest.raises(UnreadableSet):
        pins_of(text)


# --- installation


def wheel(folder: Path) -> str:
    """Make a wheel in `folder`; return the requirement that pins its name and version."""
    folder.mkdir()
    files = {
        "harmless.py": b"answer = 42\n",
        "harmless-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n",
        "harmless-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    with zipfile.ZipFile(folder / "harmless-1.0-py3-none-any.whl", "w") as archive:
        for name, data in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            archive.writestr(name, data)
            lines.append(f"{name},sha256={digest},{len(data)}\n")
        archive.writestr("harmless-1.0.dist-info/RECORD", "".join(lines) + "harmless-1.0.dist-info/RECORD,,\n")
    return "harmless==1.0"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip install from a folder with one wheel, and from nowhere else; return the wheel."""
    wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return next((tmp_path / "wheels").iterdir())


def require(tmp_path: Path, digest: str) -> Path:
    path = tmp_path / "set.txt"
    path.write_text("harmless==1.0" + (f" \\\n    --hash=sha256:{digest}\n" if digest else "\n"))
    return path


def test_a_package_with_the_pinned_hash_is_installed(tmp_path: Path, offline: Path) -> None:
    digest = hashlib.sha256(offline.read_bytes()).hexdigest()
    folder = installed(require(tmp_path, digest), Target(), tmp_path / "cache")
    assert (folder / "harmless.py").read_bytes() == b"answer = 42\n"


def test_a_package_that_was_changed_after_it_was_pinned_is_not_installed(tmp_path: Path, offline: Path) -> None:
    digest = hashlib.sha256(offline.read_bytes()).hexdigest()
    with zipfile.ZipFile(offline, "a") as archive:
        archive.writestr("evil.py", "")
    with pytest.raises(InstallFailed, match="DO NOT MATCH THE HASHES"):
        installed(require(tmp_path, digest), Target(), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.py"))


def test_a_corrupted_hash_and_a_missing_one_stop_the_installation(tmp_path: Path, offline: Path) -> None:
    digest = hashlib.sha256(offline.read_bytes()).hexdigest()
    for wrong in (digest[:-1] + ("0" if digest[-1] != "0" else "1"), ""):
        with pytest.raises(InstallFailed, match=r"(?i)hash"):
            installed(require(tmp_path, wrong), Target(), tmp_path / "cache")


# --- bills of materials


@pytest.mark.parametrize("name", deployables())
def test_a_bill_holds_every_pin_of_its_deployable_with_all_hashes(name: str) -> None:
    extras = [] if name == "onprem" else sorted(EXTRAS)
    told = bill(name, extras)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    found: dict[str, set[str]] = {}
    for part in told["components"]:
        hashes = {entry["content"] for entry in part["hashes"] if entry["alg"] == "SHA-256"}
        found.setdefault(f"{part['name']}=={part['version']}", set()).update(hashes)
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
    expected: Counter[str] = Counter()
    for file in requirement_files(name, extras):
        expected |= pinned(file)
    assert {name: len(hashes) for name, hashes in found.items()} == dict(expected)
    refs = {part["bom-ref"] for part in told["components"]}
    assert len(refs) == len(told["components"])
    assert {ref for entry in told["dependencies"] for ref in entry.get("dependsOn", [])} == refs


def test_there_is_a_bill_of_every_deployable(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 0
    names = {path.name.removesuffix(".cdx.json") for path in tmp_path.iterdir()}
    assert names == {*DEPLOYABLES, "onprem"}
    for path in tmp_path.iterdir():
        told = json.loads(path.read_text())
        assert told["metadata"]["component"]["name"] == f"polysky-{path.name.removesuffix('.cdx.json')}"


def test_the_same_pins_give_the_same_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert bill("aws-predict") == bill("aws-predict")
    assert bill("aws-predict")["serialNumber"] != bill("aws-train")["serialNumber"]
    assert bill("aws-predict")["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


def test_a_pin_for_some_machines_only_says_so() -> None:
    markers = {pin.marker for file in requirement_files("onprem") for pin in pins_of(file.read_text())} - {""}
    told = [entry["value"] for part in bill("onprem")["components"] for entry in part.get("properties", ())]
    assert markers
    assert set(told) == markers


# --- advisories


def audited(*entries: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(entries), "fixes": []})


def test_a_known_vulnerability_is_told() -> None:
    out = audited(
        {"name": "a", "version": "1", "vulns": [{"id": "GHSA-1", "fix_versions": ["2"], "aliases": []}]},
        {"name": "b", "version": "1", "vulns": []},
    )
    assert findings(out, "") == [Finding("a", "1", "GHSA-1", "2")]


@pytest.mark.parametrize(
    "out",
    ["", "ERROR", "[]", "{}", audited(), audited({"name": "a", "skip_reason": "could not be asked about"})],
)
def test_no_answer_is_never_taken_for_a_clean_one(out: str) -> None:
    with pytest.raises(NoSource):
        findings(out, "ConnectionError: no route")


# --- static analysis


def bandit(*paths: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "-ll", "--format", "json", *paths]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_bandit_finds_nothing_of_medium_severity_and_sees_what_is_planted(tmp_path: Path) -> None:
    done = bandit(*FOLDERS)
    assert (done.returncode, json.loads(done.stdout)["results"]) == (0, [])
    (tmp_path / "planted.py").write_text("import os\nos.system(input())\neval(input())\n")
    assert {entry["test_id"] for entry in json.loads(bandit(str(tmp_path)).stdout)["results"]} == {"B605", "B307"}


def test_an_exception_from_the_static_analysis_names_its_rule() -> None:
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    bare = [str(path) for path in sources if re.search(r"#\s*nosec(?!\s+B\d{3}\b.* - \S)", path.read_text())]
    assert bare == []
