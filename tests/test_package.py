"""The folders that functions are deployed as: what is in them, what is not, and that they answer by themselves."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.local_store import open_store
from core.tokens import create_token
from scripts import package
from scripts.cli import run
from scripts.package import DEPLOYABLES, REQUIREMENTS, ROOT, TooHeavy, build, libraries_of, search_path
from scripts.packaging import archive, closure, installation, pruning
from tests.mood import SPEC, rows
from tests.test_forbidden import module_level_imports

PREDICT = [name for name, deployable in DEPLOYABLES.items() if not deployable.trains]
TRAIN = [name for name, deployable in DEPLOYABLES.items() if deployable.trains]
HEAVY = {"sklearn", "scipy", "pandas", "boto3", "botocore", "joblib", "pyarrow", "imblearn", "skl2onnx", "onnx"}
LEARNS = {
    f"core.{name}" for name in ("worker", "retraining", "building", "training", "search", "pipeline", "gate")
}


@pytest.fixture(scope="module", params=PREDICT)
def predicting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package of each that predicts."""
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one model in production, named mood."""
    folder = tmp_path_factory.mktemp("store")
    (folder / "data.csv").write_text(rows(0, 100))
    (folder / "mood.toml").write_text(SPEC)
    where = str(folder / "store")
    assert run(["train", str(folder / "mood.toml"), "--data", str(folder / "data.csv"), "--store", where]) == 0
    return where


def alone(out: Path, code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code with nothing but the standard library and the package on its path, in an empty environment."""
    start = f"import sys; sys.path[:0] = {search_path(out)!r}\n"
    command = [sys.executable, "-I", "-S", "-c", start + code]
    return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False)


SERVE = """
import json, os, time
from core.app import build_app
from core.config import Settings
from core.reader import open_reader
from core.telemetry import MemoryTelemetry
from core.web import Request
settings = Settings.from_env(os.environ)
telemetry = MemoryTelemetry(sys.stderr.write, clock=time.time)
app = build_app(settings, open_reader(settings.store), telemetry=telemetry)
headers = {"authorization": "Bearer " + os.environ["TOKEN"], "content-type": "application/json"}
asked = [("POST", "/predict/mood", b'{"text": "cake and a gift"}'), ("GET", "/openapi.json", b""),
         ("GET", "/docs/swagger-ui-bundle.js", b"")]
answers = [app(Request(method, path, "", headers, body)) for method, path, body in asked]
print(json.dumps([[answer.status for answer in answers], json.loads(answers[0].body), sorted(sys.modules)]))
"""


def test_a_package_predicts_with_nothing_else_on_the_path(predicting: Path, store: str) -> None:
    token, _ = create_token(open_store(store), "admin", clock=time.time, random_bytes=os.urandom)
    done = alone(predicting, SERVE, POLYSKY_STORE=store, POLYSKY_PUBLIC_DOCS="true", TOKEN=token)
    assert done.returncode == 0, done.stderr
    statuses, body, _ = json.loads(done.stdout)
    assert statuses == [200, 200, 200]
    assert body["predictions"][0]["label"] == "glad"


def test_what_predicts_has_no_library_that_trains_or_writes(predicting: Path) -> None:
    cloud = json.loads((predicting / package.MARKER).read_text())["package"].partition("-")[0]
    held = {path.name for path in libraries_of(predicting, cloud).iterdir()}
    assert held & HEAVY == set()
    assert {"numpy", "obstore"} <= held


def test_what_predicts_has_no_module_that_learns() -> None:
    for name in PREDICT:
        found = package.modules(DEPLOYABLES[name])
        assert found & LEARNS == set(), name
        assert {"core.serving", "core.features.text", "core.estimators.onnx", "core.dialects.native"} <= found


@pytest.mark.parametrize("name", sorted(DEPLOYABLES))
def test_every_module_of_ours_finds_what_it_imports(name: str) -> None:
    """At module level all of it; inside functions all but what only learns."""
    deployable = DEPLOYABLES[name]
    held = package.modules(deployable)
    for module in held:
        source = closure.source_of(ROOT, module)
        assert source is not None
        wanted = {other for other in module_level_imports(source.read_text()) if closure.source_of(ROOT, other)}
        assert wanted - held == set(), module


def test_what_trains_has_every_library_that_its_modules_name(tmp_path: Path) -> None:
    out = build("gcp-train", tmp_path / "out")
    held = package.modules(DEPLOYABLES["gcp-train"])
    sources = [source.read_text() for module in held if (source := closure.source_of(ROOT, module))]
    named = {other.split(".")[0] for source in sources for other in closure.imports(source)}
    named -= {"core", "pandas", *sys.stdlib_module_names, *(path.name for path in ROOT.glob("handlers_*"))}
    code = "import importlib, json\n" + f"for name in {sorted(named | held)!r}: importlib.import_module(name)"
    done = alone(out, code, POLYSKY_STORE=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {"sklearn", "numpy", "pyarrow", "obstore"} <= named


LACKS = """
from core.dataset.limits import Limits
from core.dataset.opening import open_source
from core.dataset.problems import Problems
from core.dataset.wide import Pictures
from core.errors import DataRejected
from core.features import text
from core.graphs import adopt
from core.schema import Batch, Column
column = Column("t", "text", {"normalize": "lemma"})
open("data", "wb").write(b"PAR1 and so on")
for use in (
    lambda: open_source("data", label="l", limits=Limits()).__enter__(),
    lambda: Pictures("i", Problems(), None, Limits()),
    lambda: adopt(b"", "classification"),
    lambda: text.fit([column], Batch(1, {"t": ["a"]})),
):
    try:
        use()
    except DataRejected as error:
        print(error.reason, error.fields["extra"], error.message)
"""


def test_what_a_package_lacks_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    out = build("aws-train", tmp_path / "out")
    done = alone(out, f"import os; os.chdir({str(tmp_path)!r})\n{LACKS}")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["not_packaged", name] for name in ("parquet", "image", "onnx", "lemma")
    ], done.stderr
    assert "`--with parquet`" in done.stdout


@pytest.mark.parametrize("name", [name for name in TRAIN if name.startswith("aws")])
def test_what_trains_on_lambda_fits_a_zip_file_also_with_pictures(name: str, tmp_path: Path) -> None:
    for extras in ((), ("image",), ("lemma",), ("signing",)):
        assert archive.size_of(build(name, tmp_path / "out", extras=extras)) <= 262_144_000
    with pytest.raises(TooHeavy, match="pyarrow"):
        build(name, tmp_path / "out", extras=["parquet", "onnx"])


def test_every_source_has_byte_code_that_is_used_unchecked(predicting: Path) -> None:
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    sources = [path for path in predicting.rglob("*.py") if _is_python(path)]
    for path in sources:
        code = path.parent / "__pycache__" / f"{path.stem}.cpython-{version}.pyc"
        assert code.read_bytes()[4:8] == b"\x01\0\0\0", path  # PEP 552: hash-based, not checked
    assert len(sources) > 200


def _is_python(path: Path) -> bool:
    try:
        ast.parse(path.read_bytes())
    except SyntaxError:
        return False
    return True


def test_a_package_holds_no_test_no_header_no_stub_and_no_installer_record(predicting: Path) -> None:
    files = archive.files_of(predicting)
    assert [path for path in files if path.suffix in (".pyi", ".h", ".map") or "tests" in path.parts] == []
    assert [path for path in files if path.name in ("RECORD", "INSTALLER", "direct_url.json")] == []
    named = {path.parts[-2] for path in files if path.name == "METADATA"}
    assert {name.partition("-")[0] for name in named} >= {"numpy", "obstore"}
    assert [path for path in files if "numpy" in str(path) and "LICENSE" in path.name.upper()]


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    zips = []
    for number in range(2):
        out = build("aws-predict", tmp_path / f"out{number}", cache=tmp_path / f"cache{number}")
        archive.write_zip(out, tmp_path / f"{number}.zip")
        zips.append(zipfile.ZipFile(tmp_path / f"{number}.zip"))
    sums = [{entry.filename: entry.CRC for entry in file.infolist()} for file in zips]
    assert {name for name in sums[0] | sums[1] if sums[0].get(name) != sums[1].get(name)} == set()
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_a_package_over_its_limit_is_refused_with_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEPLOYABLES, "aws-predict", DEPLOYABLES["aws-predict"]._replace(limit=1_000_000))
    with pytest.raises(TooHeavy, match=r"(?s)MB  numpy.*of 1\.0 MB"):
        build("aws-predict", tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(FileExistsError):
        build("aws-predict", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "dear"


def test_a_package_is_replaced_by_the_next(tmp_path: Path) -> None:
    out = build("aws-predict", tmp_path / "out")
    (out / "core" / "left.py").write_text("")
    assert not (build("aws-predict", tmp_path / "out") / "core" / "left.py").exists()


def test_pictures_and_onnx_are_extras_within_what_the_platform_takes(tmp_path: Path) -> None:
    out = build("aws-predict", tmp_path / "out", extras=["image", "onnx"])
    assert alone(out, "import onnxruntime\nfrom PIL import Image").returncode == 0
    assert package.limit_of("aws-predict", ["onnx"]) == 262_144_000
    assert package.limit_of("aws-predict") == 70_000_000


def test_the_clouds_find_their_entry_files_and_the_pins(tmp_path: Path) -> None:
    gcp, azure = build("gcp-predict", tmp_path / "gcp"), build("azure-predict", tmp_path / "azure")
    assert "from handlers_gcp.main import http" in (gcp / "main.py").read_text()
    assert "from handlers_azure.main import app" in (azure / "function_app.py").read_text()
    assert json.loads((azure / "host.json").read_text())["extensions"]["http"]["routePrefix"] == ""
    assert "azure-functions-runtime==1.3.0 \\\n    --hash=" in (azure / "requirements.txt").read_text()
    assert (azure / ".python_packages" / "lib" / "site-packages" / "azure_functions_runtime").is_dir()
    assert not (tmp_path / "aws" / "requirements.txt").exists()


def test_pins_of_several_sets_name_each_distribution_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "# made\nb==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\nc==2 \\\n    --hash=x\n"
    )
    (tmp_path / "b.txt").write_text("a==1 \\\n    --hash=y\nc==2 \\\n    --hash=x\n")
    both = installation.pins([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert both == (
        "a==1 \\\n    --hash=y\nb==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\nc==2 \\\n    --hash=x\n"
    )


def test_every_set_pins_what_the_tests_run_with() -> None:
    def pinned(path: Path) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.M):
            found.setdefault(name, set()).add(version)
        return found

    everything = pinned(ROOT / "requirements.txt") | pinned(REQUIREMENTS / "runtimes.txt")
    sets = {part for deployable in DEPLOYABLES.values() for part in deployable.sets}
    for part in sets | set(package.EXTRAS) | {"train-onnx"}:
        wrong = {
            name for name, versions in pinned(REQUIREMENTS / f"{part}.txt").items() if versions - everything[name]
        }
        assert wrong == set(), part


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A requirement file with one small distribution."""
    lines = (REQUIREMENTS / "aws.txt").read_text().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith("six=="))
    end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith(" "))
    (tmp_path / "small.txt").write_text("".join(lines[start:end]))
    return tmp_path / "small.txt"


def test_several_who_ask_for_a_set_at_once_get_one(small: Path, tmp_path: Path) -> None:
    found: list[tuple[Path, int]] = []

    def ask() -> None:
        folder = installation.installed(small, installation.Target(), tmp_path / "cache")
        found.append((folder, folder.stat().st_ino))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [found[0][0].name]


def test_a_wrong_hash_is_refused(small: Path, tmp_path: Path) -> None:
    small.write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, small.read_text()))
    with pytest.raises(installation.InstallFailed, match=r"small\.txt"):
        installation.installed(small, installation.Target(), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_pruning_spares_what_is_imported(tmp_path: Path) -> None:
    kept = ["a/core.py", "a/data.json", "a-1.dist-info/METADATA", "a-1.dist-info/licenses/LICENSE", "a/testing.py"]
    gone = ["a/tests/test_a.py", "a/core.pyi", "a/include/a.h", "a-1.dist-info/RECORD", "bin/a", "a/ui.js.map"]
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    pruning.prune(tmp_path)
    assert sorted(str(path) for path in archive.files_of(tmp_path)) == sorted(kept)


def test_a_closure_follows_functions_and_stops_where_told(tmp_path: Path) -> None:
    sources: Iterator[tuple[str, str]] = iter(
        {
            "a": "import b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import e",
            "b": "def f():\n    from c import d",
            "c/__init__": "",
            "c/d": "import json\nimport f",
            "e": "",
            "f": "import e",
        }.items()
    )
    for name, text in sources:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert closure.reachable(tmp_path, ["a"], {"f"}) == {"a", "b", "c", "c.d"}


def test_the_command_shows_what_a_package_weighs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["aws-predict", "--out", str(tmp_path / "out"), "--zip", str(tmp_path / "out.zip")]
    assert package.main(arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"MB  numpy\.libs", shown)
    assert "of 70.0 MB" in shown
    assert zipfile.is_zipfile(tmp_path / "out.zip")


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert package.main(["aws-predict", "--out", str(tmp_path / "out"), "--python-version", "2.0"]) == 1
    assert "python2.0" in capsys.readouterr().err
