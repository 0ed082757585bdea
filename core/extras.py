"""Libraries that a package may be made without: what needs one says so, and how to get it."""

from __future__ import annotations

from importlib.util import find_spec

from core.errors import DataRejected


def require(library: str, extra: str, purpose: str) -> None:
    """Raise DataRejected unless `library` is there, which the packaging extra `extra` brings."""
    if find_spec(library) is None:
        message = f"this deployment has no {library}, which {purpose} needs: package it with `--with {extra}`"
        raise DataRejected("not_packaged", message, extra=extra)
