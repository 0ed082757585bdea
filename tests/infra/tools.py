"""The programs that check files of deployment, installed by `make test` beside our own environment."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.emulators.missing import absent

BUILD = Path(__file__).resolve().parents[2] / "build"


def tool(name: str) -> Path:
    """Return the path of a program of infra/requirements/{lint,policy}.txt, or of one on PATH."""
    for place in ("lint", "policy"):
        if (program := BUILD / place / "bin" / name).is_file():
            return program
    found = shutil.which(name)
    if found is None:
        absent(f"{name} is not installed")
    return Path(found)
