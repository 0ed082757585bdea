"""The command line as a whole: help, errors in one line, exit codes, settings."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from core.errors import InvalidInput, Problem
from scripts.cli import COMMANDS, one_line, run
from tests.cli.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("sklearn", "numpy", "pandas", "pyarrow", "rich", "granian", "prometheus_client", "core.training")


def test_help_names_every_command_and_loads_no_library_of_theirs() -> None:
    script = "import sys; from scripts.cli import run; run(['--help']); "
    script += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    *text, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert [name for name in COMMANDS if not any(line.split()[:1] == [name] for line in text)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, shop: Shop) -> None:
    done = shop.run(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: polysky {name}")


def test_the_entry_point_is_the_one_that_the_package_declares() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"polysky": "scripts.cli:main"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["train"], "Missing argument 'SPEC'"),
        (["token", "create", "--role", "king"], "'king' is not one of"),
        (["serve", "--port", "99999"], "--port"),
        (["predict", "m", "--file", "/nowhere.csv", "--out", "x"], "does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments: list[str], words: str, shop: Shop) -> None:
    done = shop.run(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("polysky: ")
    assert words in done.err


def test_no_arguments_show_the_help_and_code_2(shop: Shop) -> None:
    done = shop.run()
    assert done.code == 2
    assert "Usage: polysky" in done.err


def test_the_store_option_wins_over_the_variable(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSKY_STORE", str(shop.folder / "other"))
    shop.call("token", "create", "--role", "predictor")
    assert (shop.store / "auth").is_dir()
    assert not (shop.folder / "other").exists()
    assert shop.run("token", "create", "--role", "predictor").code == 0
    assert (shop.folder / "other" / "auth").is_dir()


def test_a_bad_setting_is_named_without_its_value(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSKY_REFRESH_S", "soon-secret")
    line = shop.refused("token", "list")
    assert "POLYSKY_REFRESH_S must be" in line
    assert "soon-secret" not in line


def test_an_unknown_store_scheme_is_a_usage_error(shop: Shop) -> None:
    done = shop.run("models", "list", "--store", "ftp://somewhere/x")
    assert (done.code, done.out) == (2, "")


def test_a_store_that_is_a_file_is_told(shop: Shop) -> None:
    shop.store.write_text("a file where the folder should be")
    assert "the store is a file" in shop.refused("token", "create", "--role", "admin")


def test_interruption_is_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.cli.cli.main", interrupt)
    assert run(["token", "list"]) == 130
    assert capsys.readouterr().err == "polysky: interrupted\n"


def test_problems_are_told_with_their_places_up_to_five() -> None:
    problems = tuple(Problem("must be a number", "price", row) for row in range(1, 8))
    line = one_line(InvalidInput("7 bad cells", problems))
    assert line.startswith("7 bad cells: row 1, price must be a number; row 2, price")
    assert line.endswith("; and 2 more")
    assert "row 6" not in line
