"""Requirement sets, installed once for each machine and then linked into packages."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from scripts.packaging import pruning

# what manylinux means for each; the clouds' Python 3.13 images have glibc 2.34 or newer
PLATFORMS = {
    f"linux-{name}": [f"manylinux_2_{minor}_{machine}" for minor in (34, 28, 27, 17)]
    + [f"manylinux2014_{machine}"]
    for name, machine in (("x86_64", "x86_64"), ("arm64", "aarch64"))
}
_LEAN = ("predict", "onnx", "image")  # sets that only predict
_UNBOUND = ("azure-worker",)  # sets whose pin refuses Pythons that it runs on


class Target(NamedTuple):
    """For what to install: an interpreter of that version, with pip, and one of PLATFORMS ("" is this machine)."""

    python: str = sys.executable
    platform: str = ""


class InstallFailed(RuntimeError):
    """pip could not install a requirement set."""


@cache
def version_of(python: str) -> str:
    """Return the version of an interpreter, "3.13". Raises InstallFailed."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-I", "-c", code], check=False, capture_output=True, text=True)
    if done.returncode:
        raise InstallFailed(f"{python} does not run")
    return done.stdout.strip()


def installed(requirements: Path, target: Target, cache_root: Path) -> Path:
    """Return a folder with what a pinned requirement file names, pruned and compiled. It is not to be changed.

    It is made once for each content of the file; whoever asks meanwhile waits. Raises InstallFailed.
    """
    folder = cache_root / f"{requirements.stem}-{_key(requirements, target)}"
    if not folder.is_dir():
        cache_root.mkdir(parents=True, exist_ok=True)
        with open(f"{folder}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _install(requirements, target, folder)
    return folder


def _key(requirements: Path, target: Target) -> str:
    parts = [requirements.read_bytes(), Path(pruning.__file__).read_bytes(), Path(__file__).read_bytes()]
    parts += [
        version_of(target.python).encode(),
        (target.platform or f"{sys.platform} {os.uname().machine}").encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _install(requirements: Path, target: Target, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as making:
        new = Path(making, "set")
        command = [target.python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--no-compile"]
        command += ["--target", str(new), "--requirement", str(requirements)]
        for tag in PLATFORMS[target.platform] if target.platform else ():
            command += ["--platform", tag]
        if requirements.stem in _UNBOUND:
            command.append("--ignore-requires-python")
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise InstallFailed(f"pip could not install {requirements.name}:\n{done.stderr}")
        pruning.prune(new, lean=requirements.stem in _LEAN)
        pruning.compile_all(new, target.python)
        os.rename(new, folder)


def link(source: Path, folder: Path) -> None:
    """Put a tree's files into `folder` too, as hard links where the disk lets us; what is there stays."""
    for path, _, names in os.walk(source):
        into = folder / os.path.relpath(path, source)
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            _link(os.path.join(path, name), into / name)


def _link(source: str, path: Path) -> None:
    if path.exists():  # two sets pin the same distribution to the same version
        return
    try:
        os.link(source, path)
    except OSError:
        shutil.copy2(source, path)


def pins(files: Iterable[Path]) -> str:
    """Return the pinned requirements of several files as one, each distribution once."""
    entries: dict[str, list[str]] = {}
    for file in files:
        name = ""
        for line in file.read_text().splitlines():
            if line.startswith("#"):
                continue
            if not line.startswith(" "):
                name = line.rstrip("\\ ")
                entries[name] = []
            entries[name].append(line)
    return "".join("\n".join(entries[name]) + "\n" for name in sorted(entries))
