"""`make audit-deps`: asks pip-audit about every requirement set; exit code 1: vulnerable, 2: nobody to ask."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SETS = ROOT / "infra" / "requirements"
_TIMEOUT_S = 120


class Finding(NamedTuple):
    """A pinned package with a known vulnerability."""

    package: str
    version: str
    advisory: str
    fixed: str


class NoSource(RuntimeError):
    """The source of advisories did not answer, so nothing is known."""


def ask(files: Sequence[Path]) -> list[Finding]:
    """Return the known vulnerabilities of what the sets pin. Raises NoSource."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--no-deps"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    command += [word for file in files for word in ("--requirement", str(file))]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise NoSource("no answer in time") from error
    return findings(done.stdout, done.stderr)


def findings(out: str, err: str) -> list[Finding]:
    """Return what pip-audit printed. Raises NoSource if that is no verdict about every package."""
    try:
        audited = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = err.strip().splitlines()
        raise NoSource(lines[-1] if lines else "pip-audit said nothing") from None
    skipped = [entry["name"] for entry in audited if "skip_reason" in entry]
    if skipped or not audited:
        raise NoSource(f"no verdict about {len(skipped)} of {len(audited)} packages")
    return [
        Finding(entry["name"], entry["version"], found["id"], ", ".join(found["fix_versions"]) or "none")
        for entry in audited
        for found in entry["vulns"]
    ]


def main() -> int:
    """Print the findings of each set; return the exit code."""
    code = 0
    for file in sorted(SETS.glob("*.txt")):
        try:
            found = ask([file])
        except NoSource as error:
            print(f"audit-deps: NOT AUDITED: no source of advisories can be reached ({error})", file=sys.stderr)
            return 2
        print(f"{file.name}: {len(found)} known vulnerabilities")
        for finding in found:
            code = 1
            print(f"  {finding.package} {finding.version}: {finding.advisory}, fixed in {finding.fixed}")
    return code


if __name__ == "__main__":
    sys.exit(main())
