"""The entry points of the on-premises platform's processes: `python -m handlers_onprem.main server|jobs`.

They are the children of handlers_onprem.launch; people use `polysky serve`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from core.config import Settings
from core.local_store import open_store
from handlers_onprem.supervisor import end_with_parent
from handlers_onprem.telemetry import FOLDER_VARIABLE, SharedTelemetry, write_line
from handlers_onprem.workers import run_server


def run_jobs() -> None:
    """Run the job worker until SIGTERM."""
    from core.worker import build_worker
    from handlers_onprem.watch import be_nice, sole_worker, watch

    end_with_parent()
    be_nice()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    settings = Settings.from_env(os.environ)
    telemetry = SharedTelemetry(write_line, os.environ[FOLDER_VARIABLE])
    store = open_store(settings.store)
    worker = build_worker(settings, store, telemetry=telemetry, n_jobs=os.cpu_count() or 1)
    with sole_worker(store.root):
        watch(worker, telemetry, root=store.root, inherits=True)


def _exit(number: int, frame: object) -> NoReturn:
    """End the process, a running job too: every step of a job may be cut off, and the next start takes it up."""
    raise SystemExit(0)


def main() -> None:
    """Run what the first argument names."""
    {"server": run_server, "jobs": run_jobs}[sys.argv[1]]()


if __name__ == "__main__":
    main()
