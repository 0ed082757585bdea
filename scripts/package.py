"""The folder that a cloud's function is deployed as: `python -m scripts.package NAME --out FOLDER`.

Our modules that it needs, its pinned requirements, and byte code for all of it; nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from core.api import ENDPOINTS
from scripts.packaging import archive, closure, installation, pruning
from scripts.packaging.installation import Target
from scripts.remedies import explain_pip

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "infra" / "requirements"
CACHE = ROOT / "build" / "requirements"
MARKER = "polysky-package.json"
EXTRAS = {
    "image": "pictures",
    "lemma": "lemmas of words",
    "oidc": "access tokens of an OpenID Connect issuer",
    "onnx": "models that run on onnxruntime",
    "parquet": "learning from Parquet files",
    "signing": "signatures of artifacts",
}
_ALL = tuple(EXTRAS)
_LEARNS = {"onnx": "train-onnx"}  # the set of an extra, where learning needs more than predicting

# found by name at run time, so that no import statement leads to them
_KINDS = ("core/dialects/*.py", "core/estimators/*.py", "core/features/*.py")
# what only learns: a function that predicts neither has it nor may have it
TRAINS = ("core.worker", "core.control", "core.graphs", "core.timber", "core.transformers", "core.local_store")

MB = 1_000_000
_ZIP = 262_144_000  # of a Lambda function without an image, unzipped


class Deployable(NamedTuple):
    """One kind of function: its cloud, its requirement sets, and what it may weigh."""

    cloud: str
    sets: tuple[str, ...]
    limit: int  # bytes, without extras
    trains: bool = False
    has: tuple[str, ...] = ()  # the extras that it has always


DEPLOYABLES = {
    "aws-predict": Deployable("aws", ("predict",), 70 * MB),
    "aws-train": Deployable("aws", ("train", "aws"), _ZIP, True),
    "gcp-predict": Deployable("gcp", ("predict", "gcp-runtime"), 500 * MB),
    "gcp-train": Deployable("gcp", ("train", "gcp-runtime", "gcp"), 10_000 * MB, True, _ALL),
    "azure-predict": Deployable("azure", ("predict", "azure-runtime", "azure-worker"), 500 * MB),
    "azure-train": Deployable(
        "azure", ("train", "azure-runtime", "azure-worker", "azure"), 1_000 * MB, True, _ALL
    ),
}


class TooHeavy(RuntimeError):
    """A package is over its platform's limit; the text is a table of what weighs how much."""


def build(
    name: str,
    out: Path,
    *,
    python: str = sys.executable,
    platform: str = "",
    extras: Sequence[str] = (),
    cache: Path = CACHE,
) -> Path:
    """Make the package `name` (of DEPLOYABLES) in folder `out` and return it. Replaces an older package there.

    `extras` are names of EXTRAS, beside those that the package has always.
    Raises TooHeavy, InstallFailed, FileExistsError (something else is there).
    """
    deployable, target = DEPLOYABLES[name], Target(python, platform)
    out = _emptied(out)
    files = [REQUIREMENTS / f"{part}.txt" for part in sets_of(name, extras)]
    libraries = libraries_of(out, deployable.cloud)
    for file in files:
        installation.link(installation.installed(file, target, cache), libraries)
    _copy_ours(out, deployable, python)
    if deployable.cloud != "aws":  # Lambda reads no such file
        (out / "requirements.txt").write_text(installation.pins(files))
    about = {"package": name, "python": installation.version_of(python), "platform": platform}
    (out / MARKER).write_text(json.dumps({**about, "sets": [file.stem for file in files]}, indent=1) + "\n")
    limit = limit_of(name, extras)
    if archive.size_of(out) > limit:
        weights = archive.sizes(out, libraries_of(out, deployable.cloud))
        raise TooHeavy(
            f"{name} is too heavy, {weights.total():,} bytes of {limit:,}: build it with fewer extras"
            f"{', or deploy a container image' if extras else ''}\n{archive.table(weights, limit)}"
        )
    return out


def limit_of(name: str, extras: Sequence[str] = ()) -> int:
    """Return what a package may weigh, in bytes: with extras as much as its platform takes."""
    deployable = DEPLOYABLES[name]
    return max(_ZIP, deployable.limit) if extras else deployable.limit


def libraries_of(package: Path, cloud: str) -> Path:
    """Return the folder of a package that its requirements lie in."""
    return package / ".python_packages" / "lib" / "site-packages" if cloud == "azure" else package


def search_path(package: Path) -> list[str]:
    """Return what the platform puts on sys.path for a package, first things first."""
    cloud = json.loads((package / MARKER).read_text())["package"].partition("-")[0]
    return list(dict.fromkeys([str(package), str(libraries_of(package, cloud))]))


def _emptied(out: Path) -> Path:
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise FileExistsError(f"{out} has something else in it than a package")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return out.resolve()


def sets_of(name: str, extras: Iterable[str] = ()) -> list[str]:
    """Return the requirement sets of a package with these extras, beside those that it has always."""
    deployable = DEPLOYABLES[name]
    wanted = sorted({*deployable.has, *extras})
    return [*deployable.sets, *(_LEARNS.get(part, part) if deployable.trains else part for part in wanted)]


def modules(deployable: Deployable) -> set[str]:
    """Return our modules that a deployable needs, dotted."""
    handlers = {f"handlers_{deployable.cloud}.{path.stem}" for path in _handlers(deployable)}
    planes = {"http", "control"} if deployable.trains else {"http"}
    called = {f"core.{endpoint.handler.partition('.')[0]}" for endpoint in ENDPOINTS if endpoint.plane in planes}
    files = [path for kind in _KINDS for path in ROOT.glob(kind)]
    kinds = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.stem != "__init__"}
    return closure.reachable(ROOT, handlers | called | kinds, () if deployable.trains else stops(deployable))


def stops(deployable: Deployable) -> tuple[str, ...]:
    """Return the modules at which a package that only predicts ends."""
    return (*TRAINS, f"handlers_{deployable.cloud}.store")


def _handlers(deployable: Deployable) -> list[Path]:
    folder = ROOT / f"handlers_{deployable.cloud}"
    return [path for path in folder.glob("*.py") if deployable.trains or path.name != "store.py"]


def _copy_ours(out: Path, deployable: Deployable, python: str) -> None:
    """Put our modules and what the platform wants at the root into `out`, and compile them."""
    staging = out / ".ours"
    staging.mkdir()
    for module in modules(deployable):
        source = closure.source_of(ROOT, module)
        assert source is not None
        copy = staging / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    for name, text in _root_files(deployable).items():
        (staging / name).write_text(text)
    pruning.compile_all(staging, python)
    installation.link(staging, out)
    shutil.rmtree(staging)


_GCP = '''"""Where Google Cloud looks for its functions."""

from handlers_gcp.main import {names}

__all__ = [{quoted}]
'''
_AZURE = '''"""Where Azure looks for its functions."""

from handlers_azure.main import app

__all__ = ["app"]
'''


def _root_files(deployable: Deployable) -> dict[str, str]:
    """Return what the platform wants at the root of a package: text by name."""
    if deployable.cloud == "gcp":
        names = ["control", "job", "tick"] if deployable.trains else ["http"]
        quoted = ", ".join(f'"{name}"' for name in names)
        return {"main.py": _GCP.format(names=", ".join(names), quoted=quoted)}
    if deployable.cloud == "azure":
        return {"function_app.py": _AZURE, "host.json": (ROOT / "handlers_azure" / "host.json").read_text()}
    return {}


def main(argv: Sequence[str] | None = None) -> int:
    """Build one package, show what it weighs; return 1 if it cannot be deployed."""
    options = _options(argv)
    try:
        python = interpreter(options.python_version)
        out = build(options.name, options.out, python=python, platform=options.platform, extras=options.extras)
    except installation.InstallFailed as error:
        print(explain_pip(str(error), options.platform), file=sys.stderr)
        return 1
    except (TooHeavy, FileExistsError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    deployable = DEPLOYABLES[options.name]
    weights = archive.sizes(out, libraries_of(out, deployable.cloud))
    print(archive.table(weights, limit_of(options.name, options.extras)))
    if options.zip:
        archive.write_zip(out, options.zip)
        print(f"{options.zip.stat().st_size / 1e6:.1f} MB zipped")
    return 0


def interpreter(version: str) -> str:
    """Return an interpreter of that version: this one, or one on PATH. Raises FileNotFoundError."""
    if version in ("", installation.version_of(sys.executable)):
        return sys.executable
    if (found := shutil.which(f"python{version}")) is None:
        raise FileNotFoundError(f"no python{version} on PATH, which must compile what it will run")
    return found


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.package", description=__doc__)
    parser.add_argument("name", choices=sorted(DEPLOYABLES))
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--zip", type=Path, help="a zip file to write as well")
    parser.add_argument("--with", dest="extras", action="append", default=[], choices=sorted(EXTRAS))
    parser.add_argument("--python-version", default="", help="default: this one; production runs 3.13")
    parser.add_argument("--platform", default="", choices=["", *installation.PLATFORMS])
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
