"""The zip files that a cloud's functions are deployed as: what each may weigh, and proof that it imports alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from core.errors import ConfigError
from scripts import package
from scripts.packaging import archive, closure

CLOUDS = ("aws", "gcp", "azure")
PYTHON = "3.13"  # of all functions; infra/*/terraform says so too
ARCHITECTURES = {"aws": ("x86_64", "arm64"), "gcp": ("x86_64",), "azure": ("x86_64",)}
DIRECT = 50 * 1_048_576  # a zip file that Lambda takes without a bucket; our stack sends all through its bucket
_SECONDS = 300  # far more than any import takes
_WANTS = {"core.dataset.parquet": "parquet"}  # a module that an extra is for, which a package may be without
_NAMESPACES = {"google", "azure"}  # hold nothing themselves
_IMPORTS = """
import importlib
for name in {names!r}:
    importlib.import_module(name)
"""


class BrokenPackage(RuntimeError):
    """A package does not import from its own folder; the text is what Python said."""


class Order(NamedTuple):
    """How packages are built: for which processor and Python, with which extras."""

    architecture: str = "x86_64"
    python: str = sys.executable
    extras: tuple[str, ...] = ()

    @property
    def platform(self) -> str:
        """Return the name of installation.PLATFORMS."""
        return f"linux-{self.architecture}"


class Bundle(NamedTuple):
    """A zip file that stands: sizes are bytes, `weights` those of each dependency unzipped."""

    name: str
    file: Path
    zipped: int
    weights: Counter[str]
    limit: int
    smoke: str = ""  # why its imports were not tried; empty: they were, and succeeded
    platform: str = ""  # what it was built for; empty: it does not tell

    @property
    def unzipped(self) -> int:
        """Return the bytes of all files."""
        return self.weights.total()


def names_of(cloud: str) -> list[str]:
    """Return the packages of a cloud."""
    return [name for name, one in package.DEPLOYABLES.items() if one.cloud == cloud]


def make(name: str, out: Path, order: Order, cache: Path = package.CACHE) -> Bundle:
    """Build package `name`, prove that it imports alone, and leave it as `out`/NAME.zip; the old one is replaced.

    Nothing is left in `out` if this fails. Raises TooHeavy, BrokenPackage, InstallFailed.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as making:
        folder = package.build(
            name,
            Path(making, "package"),
            python=order.python,
            platform=order.platform,
            extras=order.extras,
            cache=cache,
        )
        smoke = untried(order)
        if not smoke:
            smoke_test(folder, order.python)
        file = Path(making, f"{name}.zip")
        archive.write_zip(folder, file)
        os.replace(file, out / file.name)
    return look(name, out / f"{name}.zip", package.limit_of(name, order.extras))._replace(smoke=smoke)


def look(name: str, file: Path, limit: int = 0) -> Bundle:
    """Return what a zip file holds; `limit` 0 is the platform's widest. Raises OSError, ConfigError."""
    cloud = package.DEPLOYABLES[name].cloud
    libraries = package.libraries_of(Path(), cloud).parts
    weights: Counter[str] = Counter()
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
            about = json.loads(opened.read(package.MARKER)) if package.MARKER in opened.namelist() else {}
    except (zipfile.BadZipFile, ValueError):
        raise ConfigError(f"{file} is damaged: `polysky package {cloud}` builds it again") from None
    for entry in entries:
        parts = Path(entry.filename).parts
        weights[parts[len(libraries)] if parts[: len(libraries)] == libraries else parts[0]] += entry.file_size
    widest = package.limit_of(name, list(package.EXTRAS)[:1])
    bundle = Bundle(name, file, file.stat().st_size, weights, limit or widest)
    return bundle._replace(platform=str(about.get("platform", "")))


def found(cloud: str, out: Path) -> tuple[list[Bundle], list[str]]:
    """Return the bundles of a cloud in folder `out`, and the names of those that are not there."""
    names = names_of(cloud)
    there = [name for name in names if (out / f"{name}.zip").is_file()]
    return [look(name, out / f"{name}.zip") for name in there], [name for name in names if name not in there]


def over(bundles: Sequence[Bundle]) -> list[str]:
    """Return one line for each bundle that its platform would refuse."""
    return [
        f"{one.name} unzips to {one.unzipped:,} bytes, over the limit of {one.limit:,}"
        for one in bundles
        if one.unzipped > one.limit
    ]


def smoke_test(folder: Path, python: str) -> None:
    """Import all our modules of a package, and the libraries that they name, from its folder alone.

    The standard library is all there is beside it. Raises BrokenPackage.
    """
    start = f"import sys; sys.path[:0] = {package.search_path(folder)!r}\n"
    modules = _modules_in(folder)
    code = start + _IMPORTS.format(names=[*modules, *_libraries_in(folder, modules)])
    with tempfile.TemporaryDirectory(prefix="polysky-smoke-") as store:
        done = subprocess.run(
            [python, "-I", "-S", "-c", code],
            env={"POLYSKY_STORE": store, "HOME": store, "AWS_REGION": "eu-west-1"},
            cwd=store,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise BrokenPackage(f"the package does not import from its folder alone: {why}")


def untried(order: Order) -> str:
    """Return why this machine cannot run what is built for another; empty if it can."""
    here = "linux-" + {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    if sys.platform != "linux" or order.platform != here:
        return f"{order.platform} does not run on this machine"
    return ""


def _modules_in(folder: Path) -> list[str]:
    """Return the names of all our modules of a package, but those of extras that it is without."""
    sets = json.loads((folder / package.MARKER).read_text())["sets"]
    tops = [path for path in folder.iterdir() if path.name == "core" or path.name.startswith("handlers_")]
    files = [*folder.glob("*.py"), *(file for top in tops for file in top.rglob("*.py"))]
    names = {".".join(file.relative_to(folder).with_suffix("").parts) for file in files}
    lacking = {name for name, extra in _WANTS.items() if extra not in sets}
    # Azure's root file does more than import: it opens the store
    return sorted(name for name in names - lacking - {"function_app"} if not name.endswith("__init__"))


def _libraries_in(folder: Path, modules: Sequence[str]) -> list[str]:
    """Return the libraries of a package that its modules name, also within functions: batches alone load numpy."""
    sources = [(folder / name.replace(".", "/")).with_suffix(".py").read_text() for name in modules]
    named = {other.partition(".")[0] for source in sources for other in closure.imports(source)}
    held = {path.name.partition(".")[0] for path in Path(package.search_path(folder)[-1]).iterdir()}
    return sorted((named & held) - {"core"} - _NAMESPACES)
