"""Fixtures of the command-line tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shop import Shop
from tests.mood import SPEC, rows


@pytest.fixture
def shop(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An empty store."""
    monkeypatch.delenv("POLYSKY_STORE", raising=False)
    return Shop(tmp_path, capfd)


@pytest.fixture
def mood(shop: Shop) -> Shop:
    """A store with one version of the model mood."""
    shop.train(SPEC, shop.write("mood.csv", rows(0, 120)))
    return shop
