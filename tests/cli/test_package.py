"""`polysky package`: zip files that are the same each time, within limits, and import by themselves."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import package
from scripts.cli import run
from scripts.package import DEPLOYABLES, TooHeavy
from scripts.packaging import bundles
from scripts.packaging.bundles import BrokenPackage, Order
from scripts.packaging.installation import InstallFailed, Target, installed
from scripts.remedies import explain_pip
from tests.cli.shop import Shop

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PREDICT = "aws-predict"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package that predicts on AWS."""
    out = tmp_path_factory.mktemp("dist")
    bundles.make(PREDICT, out, Order())
    return out


def test_two_builds_are_the_same_bytes(made: Path, tmp_path: Path) -> None:
    bundles.make(PREDICT, tmp_path / "second", Order())
    first, second = (folder / f"{PREDICT}.zip" for folder in (made, tmp_path / "second"))
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in made.iterdir()] == [f"{PREDICT}.zip"]


def test_the_zip_holds_byte_code_and_the_entry_points(made: Path) -> None:
    names = set(zipfile.ZipFile(made / f"{PREDICT}.zip").namelist())
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
    assert {"handlers_aws/main.py", f"handlers_aws/__pycache__/main.{tag}.pyc", "polysky-package.json"} <= names
    assert not [name for name in names if "worker" in name and name.startswith("core")]


def test_what_lies_in_the_zip_is_told_by_dependency(made: Path) -> None:
    bundle = bundles.look(PREDICT, made / f"{PREDICT}.zip")
    with zipfile.ZipFile(bundle.file) as file:
        assert bundle.unzipped == sum(entry.file_size for entry in file.infolist())
    assert {"core", "numpy", "obstore"} <= set(bundle.weights)
    assert bundles.over([bundle]) == []
    assert bundles.over([bundle._replace(limit=1000)]) == [
        f"aws-predict unzips to {bundle.unzipped:,} bytes, over the limit of 1,000"
    ]


def test_a_package_without_a_module_that_another_names_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = package.modules(DEPLOYABLES[PREDICT])
    monkeypatch.setattr(package, "modules", lambda deployable: found - {"core.web"})
    with pytest.raises(BrokenPackage, match=r"No module named 'core\.web'"):
        bundles.make(PREDICT, tmp_path, Order())
    assert list(tmp_path.iterdir()) == []


def test_a_package_over_its_limit_leaves_the_old_one(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEPLOYABLES, PREDICT, DEPLOYABLES[PREDICT]._replace(limit=1_000_000))
    before = (made / f"{PREDICT}.zip").stat()
    with pytest.raises(TooHeavy):
        bundles.make(PREDICT, made, Order())
    assert (made / f"{PREDICT}.zip").stat() == before


def test_imports_are_tried_only_where_they_can_run() -> None:
    other = "arm64" if os.uname().machine == "x86_64" else "x86_64"
    assert bundles.untried(Order(other)) == f"linux-{other} does not run on this machine"
    assert bundles.untried(Order("x86_64" if other == "arm64" else "arm64")) == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gcp", "--arch", "arm64"], "--arch arm64: functions of gcp run on x86_64"),
        (["aws", "--arch", "riscv64"], "--arch riscv64: functions of aws run on x86_64 or arm64"),
        (["aws", "azure", "--arch", "arm64"], "--arch arm64: functions of azure run on x86_64"),
        (["aws", "--extras", "onnx,torch"], "--extras torch: must be of image, lemma"),
        (["digitalocean"], "'digitalocean' is not one of 'aws', 'gcp', 'azure'"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is(
    shop: Shop, arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = shop.run("package", *arguments, "--out", str(tmp_path / "dist"))
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "dist").exists()


def test_an_absent_python_is_named(shop: Shop, tmp_path: Path) -> None:
    done = shop.run("package", "aws", "--python", "3.99", "--out", str(tmp_path))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "no python3.99 on PATH" in done.err


def test_a_wheel_that_the_index_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As obstore's for arm64: what pip itself says fills a screen."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (tmp_path / "predict.txt").write_text(f"obstore==0.12.1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(InstallFailed) as failed:
        installed(tmp_path / "predict.txt", Target(sys.executable, "linux-arm64"), tmp_path / "cache")
    line = explain_pip(str(failed.value), "linux-arm64")
    assert line == (
        "the package index has no wheel of obstore==0.12.1 for linux-arm64: "
        "look at pip's index settings and the network, or build for another processor"
    )


def test_another_failure_of_pip_is_one_line_without_its_warnings() -> None:
    told = "pip could not install a.txt:\nWARNING: retrying\nERROR: THESE DO NOT MATCH\n    Expected x\n"
    assert explain_pip(told, "linux-arm64") == "pip could not install a.txt: ERROR: THESE DO NOT MATCH Expected x"


def test_what_is_too_heavy_is_one_line_below_its_table(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEPLOYABLES, PREDICT, DEPLOYABLES[PREDICT]._replace(limit=1_000_000))
    done = shop.run("package", "aws", "--python", HERE, "--out", str(tmp_path / "dist"))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert re.fullmatch(
        r"polysky: aws-predict is too heavy, [\d,]+ bytes of 1,000,000: .* fewer extras\n", done.err
    )
    assert "MB  numpy" in done.out
    assert list((tmp_path / "dist").iterdir()) == []


def test_the_command_shows_sizes_and_limits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["package", "aws", "--python", HERE, "--out", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert "of 70.0 MB that it may be" in out
    assert "of 262.1 MB that it may be" in out
    assert out.count("imports from its folder alone") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aws-predict.zip", "aws-train.zip"]
