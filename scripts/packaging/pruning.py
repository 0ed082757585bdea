"""What of an installed distribution a function never reads, and the byte code that it must not have to make."""

from __future__ import annotations

import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

_FOLDERS = {"tests", "test", "__pycache__", "include", "_pyinstaller", "sboms"}
_FILES = ("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.h", "*.hpp", "*.a", "*.lib", "*.map", "py.typed", "*.pyc", "*.c")
# which tests or builds alone load, or which our page does not, by path
_PATHS = (
    "bin",
    "numpy/_core/_*_tests.*.so",
    "numpy/_core/_simd.*.so",
    "numpy/distutils",
    "swagger_ui_bundle/vendor/*/swagger-ui-es-*",
    "swagger_ui_bundle/vendor/*/swagger-ui-standalone-*",
    "swagger_ui_bundle/vendor/*/swagger-ui.js",
)
# the services that our code, or a tracer, calls by boto3; it describes hundreds
_SERVICES = {"s3", "secretsmanager", "sts", "xray"}
# parts of numpy that it loads when they are named, which scikit-learn and scipy do and prediction does not
_LEAN = ("numpy/f2py", "numpy/polynomial", "numpy/testing")
# what an installer writes down; entry points stay (they are read), and so do metadata and licences
_RECORDS = {"RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "top_level.txt", "zip-safe"}


def prune(root: Path, *, lean: bool = False) -> None:
    """Remove tests, headers, stubs, sources of compiled code and an installer's records below `root`.

    With `lean` also what only those need who train.
    """
    for pattern in (*_PATHS, *_LEAN) if lean else _PATHS:
        for path in root.glob(pattern):
            _remove(path)
    for path in root.glob("botocore/data/*/"):
        if path.name not in _SERVICES:
            shutil.rmtree(path)
    for path in sorted(root.rglob("*")):
        if not path.exists():  # its folder is gone
            continue
        if path.is_dir():
            if path.name in _FOLDERS:
                shutil.rmtree(path)
        elif any(fnmatch(path.name, pattern) for pattern in _FILES) or _is_record(path):
            path.unlink()


def _is_record(path: Path) -> bool:
    return path.parent.suffix == ".dist-info" and path.name in _RECORDS


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def compile_all(root: Path, python: str) -> None:
    """Write the byte code of every source below `root`, for good: it is read without a look at the source.

    A function's disk is read-only: without byte code each cold start would compile again. File times are not in
    it, folders are cut off and the hash seed is fixed, so that the same sources give the same bytes.
    """
    command = [
        python,
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "-s",
        str(root),
        str(root),
    ]
    # some distributions ship templates that are no Python; those are reported and left without byte code
    subprocess.run(command, env={"PYTHONHASHSEED": "0"}, cwd="/", check=False, stdout=subprocess.DEVNULL)
