"""What the command-line tests share: small data files, specs, and a run of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scripts.cli import run

PRICE = """
name = "price"
task = "regression"
label = "price"
[columns.size]
kind = "number"
[columns.town]
kind = "category"
[estimator]
kind = "linear"
algorithm = "ridge"
"""


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shop:
    """A folder with data, and a store in it; runs commands in this process."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._capture = capture

    def run(self, *arguments: str) -> Done:
        self._capture.readouterr()
        code = run(arguments)
        out, err = self._capture.readouterr()
        return Done(code, out, err)

    def call(self, *arguments: str) -> Done:
        """Run a command on the store; it must succeed."""
        done = self.run(*arguments, "--store", str(self.store))
        assert done.code == 0, done.err
        return done

    def refused(self, *arguments: str, code: int = 2) -> str:
        """Return the one line that a command fails with."""
        done = self.run(*arguments, "--store", str(self.store))
        assert done.code == code, done
        assert done.out == ""
        assert done.err.startswith("polysky: ")
        assert done.err.count("\n") == 1
        return done.err

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def train(self, spec: str, data: str, *options: str) -> Done:
        return self.call("train", self.write("spec.toml", spec), "--data", data, *options)


def prices(count: int) -> str:
    """Return CSV rows of price = 3 × size + 10 in one town, 20 in the other."""
    lines = ["size,town,price"]
    for index in range(count):
        size, town = index / 7, ("Bern", "Thun")[index % 2]
        lines.append(f"{size},{town},{3 * size + (10, 20)[index % 2]}")
    return "\n".join(lines) + "\n"
