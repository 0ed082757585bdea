"""Every package that can be deployed, built twice from nothing: the same bytes, within limits, importing alone."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from scripts.package import CACHE, DEPLOYABLES
from scripts.packaging import bundles
from scripts.packaging.bundles import Order


@pytest.fixture(scope="module")
def afresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every requirement set is installed again."""
    return tmp_path_factory.mktemp("sets")


@pytest.mark.parametrize("name", DEPLOYABLES)
def test_a_package_is_the_same_twice_within_its_limit_and_imports_alone(
    name: str, afresh: Path, tmp_path: Path
) -> None:
    order, sums = Order(), []
    assert bundles.untried(order) in ("", "linux-x86_64 does not run on this machine")
    for place, cache in (("first", CACHE), ("second", afresh)):
        made = bundles.make(name, tmp_path / place, order, cache)  # which imports it from its folder alone
        assert made.smoke == bundles.untried(order)
        assert made.unzipped <= made.limit
        assert bundles.over([bundles.look(name, made.file)]) == []
        sums.append(hashlib.sha256(made.file.read_bytes()).hexdigest())
        shutil.rmtree(tmp_path / place)
    assert sums[0] == sums[1]
