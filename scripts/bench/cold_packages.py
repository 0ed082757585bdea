"""What the cold start benchmark starts: for each cloud Polysky's package, a naive function and an empty one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.bench.naive_empty import EMPTY
from scripts.package import CACHE, REQUIREMENTS, ROOT, build, libraries_of
from scripts.packaging import installation, pruning
from scripts.packaging.installation import Target

VARIANTS = ("polysky", "naive", "empty")
_HERE = Path(__file__).parent
_ENTRY = {"aws": "function.py", "gcp": "main.py", "azure": "function_app.py"}
_SDK = {"aws": ("aws",), "gcp": ("gcp",), "azure": ("azure",)}
_RUNTIME: Mapping[str, tuple[str, ...]] = {
    "aws": (),
    "gcp": ("gcp-runtime",),
    "azure": ("azure-runtime", "azure-worker"),
}


def package(cloud: str, variant: str, out: Path) -> Path:
    """Make the package of a variant (of VARIANTS) in folder `out` and return it."""
    if variant == "polysky":
        return build(f"{cloud}-predict", out)
    if variant == "naive":
        source = (_HERE / f"naive_{cloud}.py").read_text()
        return _made(cloud, source, out, (*_RUNTIME[cloud], *_SDK[cloud], "naive"))
    return _made(cloud, EMPTY[cloud], out, _RUNTIME[cloud])


def entry(variant: str) -> str:
    """Return the name of the function in an AWS package, as Lambda wants it."""
    return "handlers_aws.main.http" if variant == "polysky" else "function.handler"


def runtime() -> Path:
    """Return the folder with what Lambda itself starts a function by."""
    return installation.installed(REQUIREMENTS / "aws-runtime.txt", Target(), CACHE)


def _made(cloud: str, source: str, out: Path, sets: tuple[str, ...]) -> Path:
    """Make a package of one source file, with byte code as Polysky's has."""
    own = out.with_name(f"{out.name}-source")
    own.mkdir(parents=True)
    (own / _ENTRY[cloud]).write_text(source)
    if cloud == "azure":
        shutil.copyfile(ROOT / "handlers_azure" / "host.json", own / "host.json")
    pruning.compile_all(own, sys.executable)
    installation.link(own, out)
    for name in sets:
        found = installation.installed(REQUIREMENTS / f"{name}.txt", Target(), CACHE)
        installation.link(found, libraries_of(out, cloud))
    return out
