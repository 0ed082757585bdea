"""Bills of materials, CycloneDX 1.6 JSON: what each deployable is made of, from its hashed requirement sets.

`python -m scripts.sbom FOLDER [--with EXTRA]` writes one file for each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scripts.package import DEPLOYABLES, EXTRAS, REQUIREMENTS, ROOT, sets_of

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

ON_PREMISES = "onprem"
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]*?))?\s*\\?")
_HASH = re.compile(r"\s+--hash=sha256:([0-9a-f]{64})\s*\\?")
_SPACE = uuid.UUID("5a3c1e0e-6f0e-5d0b-9a57-0d1f6b1a7c11")  # of the serial numbers; any constant does


class Pin(NamedTuple):
    """A requirement: its marker ("" is none) tells where it is installed, `sha256` which files may be."""

    name: str
    version: str
    marker: str
    sha256: tuple[str, ...]


class UnreadableSet(ValueError):
    """A line of a requirement set is neither a pin nor a hash, or a pin has no hash."""


def pins_of(text: str) -> list[Pin]:
    """Return the pins of a hashed requirement set. Raises UnreadableSet: a bill leaves nothing out."""
    found: list[Pin] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if (match := _HASH.fullmatch(line)) and found:
            found[-1] = found[-1]._replace(sha256=(*found[-1].sha256, match[1]))
        elif match := _PIN.fullmatch(line):
            found.append(Pin(match[1], match[2], (match[3] or "").strip(), ()))
        else:
            raise UnreadableSet(f"not a pin: {line}")
    for pin in found:
        if not pin.sha256:
            raise UnreadableSet(f"{pin.name} is pinned without a hash")
    return found


def deployables() -> list[str]:
    """Return the names that `bill` knows."""
    return [*DEPLOYABLES, ON_PREMISES]


def requirement_files(name: str, extras: Sequence[str] = ()) -> list[Path]:
    """Return the requirement sets that a deployable is made of."""
    sets = [ON_PREMISES] if name == ON_PREMISES else sets_of(name, extras)
    return [REQUIREMENTS / f"{part}.txt" for part in sets]


def bill(name: str, extras: Sequence[str] = ()) -> dict[str, Any]:
    """Return the bill of materials of a deployable, as JSON values. The same pins give the same bill."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    root = Component(name=f"polysky-{name}", version=version, type=ComponentType.APPLICATION, bom_ref="polysky")
    files = requirement_files(name, extras)
    parts = list(_components(_merged(pin for file in files for pin in pins_of(file.read_text()))))
    serial = uuid.uuid5(_SPACE, "\n".join([name, version, *(file.read_text() for file in files)]))
    bom = Bom(components=parts, metadata=BomMetaData(component=root, timestamp=_now()), serial_number=serial)
    bom.register_dependency(root, parts)
    told: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return told


def _merged(pins: Iterable[Pin]) -> list[Pin]:
    """Return each pin once: several sets may have it."""
    found: dict[tuple[str, str, str], Pin] = {}
    for pin in pins:
        key = pin[:3]
        known = found.get(key, pin)
        found[key] = known._replace(sha256=tuple(sorted({*known.sha256, *pin.sha256})))
    return sorted(found.values())


def _components(pins: Iterable[Pin]) -> Iterator[Component]:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for pin in pins:
        url = PackageURL("pypi", name=pin.name, version=pin.version)
        yield Component(
            name=pin.name,
            version=pin.version,
            type=ComponentType.LIBRARY,
            purl=url,
            bom_ref=f"{url}{' ; ' if pin.marker else ''}{pin.marker}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in pin.sha256],
            properties=[Property(name="polysky:marker", value=pin.marker)] if pin.marker else (),
        )


def _now() -> datetime:
    """Return the time of the bill: SOURCE_DATE_EPOCH for builds that must come out alike."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(told), UTC) if told else datetime.now(UTC)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the bills of all deployables."""
    parser = argparse.ArgumentParser(prog="python -m scripts.sbom", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--with", dest="extras", action="append", default=[], choices=sorted(EXTRAS))
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in deployables():
        told = bill(name, options.extras)
        path = options.folder / f"{name}.cdx.json"
        path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
        print(f"{path}: {len(told['components'])} components")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
