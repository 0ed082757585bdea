"""The providers' server as a process of its own, since gRPC is not among our libraries."""

from __future__ import annotations

import atexit
import subprocess
from functools import cache

from tests.emulators.missing import absent
from tests.infra.tools import BUILD

_ROOT = BUILD.parent


@cache
def attachment(*providers: str) -> str:
    """Return TF_REATTACH_PROVIDERS of a server of these providers, which lives as long as this process."""
    python = BUILD / "lint" / "bin" / "python"  # infra/requirements/lint.txt has gRPC too
    if not python.is_file():
        absent("build/lint is not installed: `make build/lint/.done` does it")
    server = subprocess.Popen(
        [str(python), "-m", "tests.infra.providers.server", *providers],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    told = server.stdout.readline().strip()
    atexit.register(server.communicate)
    assert told, "the providers' server did not start"
    return told
