"""How large the suites are: POLYSKY_FAULTS is "small" (the default) or "full"."""

from __future__ import annotations

import os


def size(small: int, full: int) -> int:
    """Return how many cases to try. Raises ValueError for a setting that is neither word."""
    setting = os.environ.get("POLYSKY_FAULTS", "small")
    if setting not in ("small", "full"):
        raise ValueError("POLYSKY_FAULTS must be small or full")
    return full if setting == "full" else small
