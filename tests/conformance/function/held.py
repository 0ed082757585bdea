"""The application that functions serve now, for platforms that load their function once a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.web import Request, Response
from tests.conformance.entry_point import App

_held: list[App] = []


@contextmanager
def held(app: App) -> Iterator[None]:
    """Have functions serve `app` within the block."""
    _held.append(app)
    try:
        yield
    finally:
        _held.pop()


def answer(request: Request) -> Response:
    """Return the answer of the application that is served now."""
    return _held[-1](request)
