"""The emulators, one of each a test process, started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.emulators.emulator import Emulator


@pytest.fixture(scope="session")
def moto() -> Iterator[Emulator]:
    """S3 by moto."""
    from tests.emulators.moto import start

    with start() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def gcs() -> Iterator[Emulator]:
    """Google Cloud Storage."""
    from tests.emulators.gcs import start

    with start() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def azurite() -> Iterator[Emulator]:
    """Azure Blob Storage by Azurite."""
    from tests.emulators.azurite import start

    with start() as emulator:
        yield emulator
