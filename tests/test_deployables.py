"""Every package that can be deployed: made twice alike, within its limit, importing from its folder alone.

`make test-deploy` builds them twice from nothing; here the libraries are those installed once for all tests.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from pathlib import Path

import pytest

from scripts import package
from scripts.package import DEPLOYABLES, build, limit_of
from scripts.packaging import archive, bundles
from scripts.packaging.bundles import BrokenPackage


def unlike(first: Path, second: Path) -> list[Path]:
    """Return the files of a folder that are not the same in another; those linked to one file are."""
    return [
        path
        for path in archive.files_of(first)
        if not (first / path).samefile(second / path)
        and not filecmp.cmp(first / path, second / path, shallow=False)
    ]


@pytest.mark.parametrize("name", DEPLOYABLES)
def test_a_package_is_the_same_twice_within_its_limit_and_imports_alone(name: str, tmp_path: Path) -> None:
    first, second = (build(name, tmp_path / place) for place in ("first", "second"))
    files = archive.files_of(first)
    assert files == archive.files_of(second)
    assert unlike(first, second) == []
    assert archive.size_of(first) <= limit_of(name)
    bundles.smoke_test(first, sys.executable)
    assert archive.files_of(first) == files  # nothing had to be compiled
    shutil.rmtree(package.libraries_of(second, DEPLOYABLES[name].cloud) / "numpy" / "_core")
    with pytest.raises(BrokenPackage, match="numpy"):  # which a package that predicts loads for batches alone
        bundles.smoke_test(second, sys.executable)
