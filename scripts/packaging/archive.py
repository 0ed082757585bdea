"""What a package weighs, and its zip file."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

_MADE = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold


def files_of(package: Path) -> list[Path]:
    """Return the files of a package relative to it, in an order that no machine changes."""
    return sorted(path.relative_to(package) for path in package.rglob("*") if path.is_file())


def size_of(package: Path) -> int:
    """Return the bytes of all files of a package."""
    return sum((package / path).stat().st_size for path in files_of(package))


def sizes(package: Path, libraries: Path) -> Counter[str]:
    """Return the bytes of each library (each entry of the `libraries` folder), and of what lies elsewhere."""
    found: Counter[str] = Counter()
    for path in files_of(package):
        within = (package / path).is_relative_to(libraries)
        parts = (package / path).relative_to(libraries).parts if within else path.parts
        found[parts[0]] += (package / path).stat().st_size
    return found


def table(weights: Counter[str], limit: int) -> str:
    """Return the heaviest libraries, one a line, and their sum beside the limit."""
    heavy = weights.most_common(25)
    lines = [f"{size / 1e6:9.1f} MB  {name}" for name, size in heavy]
    rest = weights.total() - sum(size for _, size in heavy)
    if rest:
        lines.append(f"{rest / 1e6:9.1f} MB  everything else")
    return "\n".join([*lines, f"{weights.total() / 1e6:9.1f} MB  of {limit / 1e6:.1f} MB"])


def write_zip(package: Path, file: Path) -> None:
    """Write the package as a zip file whose bytes depend on the package's files alone."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in files_of(package):
            entry = zipfile.ZipInfo(path.as_posix(), _MADE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, (package / path).read_bytes())
