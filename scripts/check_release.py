"""Check that pyproject.toml and CHANGELOG.md tell the same version."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def problems(version: str, changelog: str) -> list[str]:
    """Return what is wrong with the changelog for this version, one sentence each."""
    headings = [(match["name"], match["date"]) for match in _HEADING.finditer(changelog)]
    if not headings or headings[0] != ("Unreleased", None):
        return ["CHANGELOG.md must begin with the heading `## [Unreleased]`"]
    releases = headings[1:]
    found = [
        f"the heading [{name}] must be a version with a date: `## [1.2.3] - 2026-01-31`"
        for name, date in releases
        if not _VERSION.fullmatch(name) or date is None
    ]
    latest = releases[0][0] if releases else "none"
    if latest != version:
        found.append(f"pyproject.toml says version {version}, the latest release in CHANGELOG.md is {latest}")
    keys = [tuple(map(int, name.split("."))) for name, _ in releases if _VERSION.fullmatch(name)]
    if keys != sorted(set(keys), reverse=True):
        found.append("the releases in CHANGELOG.md must be unique and newest first")
    return found


def main() -> int:
    """Print the problems of this repository; return the exit code."""
    root = Path(__file__).resolve().parent.parent
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    found = problems(version, (root / "CHANGELOG.md").read_text())
    for problem in found:
        print(f"check_release: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
