"""S3, held to the store contract; and what only it can get wrong."""

from __future__ import annotations

import pytest

from core.store import ObjectStore
from tests.contracts.store_contract import StoreContract
from tests.emulators.emulator import Emulator


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, moto: Emulator) -> ObjectStore:
        return moto.open(moto.new_store_url())
