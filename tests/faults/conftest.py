"""The stores that the suites of this folder play on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.places import Fresh, fresh_stores


@pytest.fixture
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    """Make empty stores of the kind that the test's parameter names."""
    return fresh_stores(request.param, tmp_path, request.getfixturevalue)
