"""A disk that fails now and then, or altogether, under a server that knows nothing of it.

Every process of the server loads `attach` at its start (sitecustomize). From then on opening, linking, renaming or
removing a file of the store may end in EIO, as on a bad disk: one in many, and all while it is down. The temporary
name is removed after the file was linked into place, so some errors come after the effect: replies are lost.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

VARIABLE = "POLYSKY_SOAK_DISK"
_DOWN, _COUNT = "down", "faults"
_BY_CHANCE, _BY_OUTAGE = b"c", b"o"


class BadDisk:
    """What the calls of one process meet; `folder` holds the switch and the count of all processes."""

    def __init__(self, root: str, folder: str, rate: float, seed: int) -> None:
        self._root, self._rate = root, rate
        self._down = os.path.join(folder, _DOWN)
        self._count = os.open(os.path.join(folder, _COUNT), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self._rng = random.Random(seed)  # noqa: S311

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise OSError before an operation of the interpreter that shall fail (an audit hook)."""
        if event == "open":
            if arguments[1] is not None:  # not os.open, which is what the store uses
                return
        elif event not in ("os.link", "os.rename", "os.remove"):
            return
        # below its root the store goes by descriptors and bare names
        path = arguments[0]
        if not isinstance(path, str) or ("/" in path and path != self._root):
            return
        if os.path.exists(self._down):
            self._fail(_BY_OUTAGE)
        if self._rng.random() < self._rate:
            self._fail(_BY_CHANCE)

    def _fail(self, why: bytes) -> None:
        os.write(self._count, why)
        raise OSError(errno.EIO, "the disk failed, as it was told to")


def attach() -> None:
    """Make this process's disk bad, as the environment says."""
    asked = json.loads(os.environ[VARIABLE])
    disk = BadDisk(asked["root"], asked["folder"], asked["rate"], asked["seed"] + os.getpid())
    sys.addaudithook(disk.hear)


class Switch:
    """Breaks and mends the disk of a server's processes; `env` is what they must be started with."""

    def __init__(self, folder: Path, store: Path, *, rate: float, seed: int) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "sitecustomize.py").write_text("from scripts.soak.disk import attach\n\nattach()\n")
        asked = {"root": str(store), "folder": str(folder), "rate": rate, "seed": seed}
        self._setting = json.dumps(asked)

    def env(self, env: dict[str, str]) -> dict[str, str]:
        """Return `env` and what attaches the bad disk."""
        path = os.pathsep.join([env["PYTHONPATH"], str(self._folder)])
        return {**env, "PYTHONPATH": path, VARIABLE: self._setting}

    @property
    def is_down(self) -> bool:
        """Whether everything fails."""
        return (self._folder / _DOWN).exists()

    def take_down(self) -> None:
        """Let everything fail."""
        (self._folder / _DOWN).touch()

    def bring_up(self) -> None:
        """Let only one in many fail."""
        (self._folder / _DOWN).unlink()

    def faults(self) -> tuple[int, int]:
        """Return how many calls failed: by chance, and because of an outage."""
        path = self._folder / _COUNT
        found = path.read_bytes() if path.exists() else b""
        return found.count(_BY_CHANCE), found.count(_BY_OUTAGE)
