"""What a test does that lacks a real component: nothing on a developer's machine, fail where CI is set."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Skip the test for want of `what`; with CI set, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing; `make test` installs it", pytrace=False)
    pytest.skip(f"{what} is missing; `make test` installs it")
