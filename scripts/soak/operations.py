"""What operators do meanwhile: uploads, promotions, rollbacks, canaries, reads; and what they were told."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import uuid
from collections import Counter
from typing import Any, NamedTuple

from core.errors import CoreError
from scripts.soak.clients import PRODUCTION, Line, Reply
from scripts.soak.field import MODEL, open_registry, rows
from scripts.soak.machine import Machine

TRIES = 25
TRY_AGAIN_S = 0.2
ROWS = 40
Shares = tuple[tuple[str, int], ...]


class Pace(NamedTuple):
    """Seconds between operations, and between uploads."""

    step_s: float
    upload_s: float


class Operations(threading.Thread):
    """One operator at a time, over HTTP; canary shares are set by the registry itself, as a person's script does.

    `moved` maps revisions of production to the shares that were acknowledged, `jobs` lists accepted uploads,
    `answers` counts (operation, status), `wrong` tells answers that no operator may get.
    """

    def __init__(self, machine: Machine, stop: threading.Event, pace: Pace, seed: int) -> None:
        super().__init__(daemon=True)
        self._machine, self._stop_asked, self._pace = machine, stop, pace
        self._rng, self._seed, self._uploads = random.Random(seed), seed, 0  # noqa: S311
        # each call on a connection of its own: between two calls the server may hang up
        self._line = Line(machine.server.url, machine.server.token, per_connection=1)
        self._registry = open_registry(machine.store)
        self.hold = threading.Lock()  # who holds it has the aliases to himself
        self.moved: dict[int, Shares] = {}
        self.jobs: list[str] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.outcomes: dict[str, str] = {}  # the last known status of each job

    def run(self) -> None:
        """Operate until `stop` is set."""
        chances = {self.promote_any: 4, self._rollback: 2, self._canary: 2, self._read: 2}
        next_upload = 0.0
        while not self._stop_asked.wait(self._pace.step_s * (0.5 + self._rng.random())):
            with self.hold:
                if time.monotonic() >= next_upload:
                    next_upload = time.monotonic() + self._pace.upload_s
                    self._upload()
                self._rng.choices(list(chances), list(chances.values()))[0]()

    def promote(self, version: str) -> bool:
        """Tell whether production was moved to `version`."""
        asked = {"alias": PRODUCTION, "version": version, "reason": "soak"}
        return self._moved("promote", "promote", asked)

    def promote_any(self) -> None:
        """Move production to one of the newest versions."""
        self.promote(self._rng.choice(self.versions()[-6:]))

    def versions(self) -> list[str]:
        """Return the published versions, oldest first."""
        found = self._registry.state(MODEL).versions
        return sorted(found, key=lambda name: found[name].n)

    def _rollback(self) -> None:
        self._moved("rollback", "rollback", {"reason": "soak"})

    def _canary(self) -> None:
        known = self.versions()
        if self._machine.disk.is_down or len(known) < 2:
            return
        shares = tuple(zip(self._rng.sample(known[-6:], 2), (90, 10), strict=True))
        try:
            alias = self._registry.move(MODEL, PRODUCTION, shares, op_id=uuid.uuid4().hex, reason="soak")
        except CoreError as error:
            self.wrong.append(f"canary: {error!r}")
            return
        self.answers["canary", 200] += 1
        self.moved[alias.rev] = shares

    def _read(self) -> None:
        path = self._rng.choice(["versions", "history", ""])
        self._patiently("read", "GET", f"/models/{MODEL}/{path}".rstrip("/"))

    def _upload(self) -> None:
        self._uploads += 1
        data = rows(self._seed + 1000 + self._uploads, ROWS).encode()
        reply = self._patiently("upload", "POST", f"/retrain/{MODEL}", data, "text/csv")
        if reply and reply.status == 202:
            self.jobs.append(json.loads(reply.body)["job_id"])

    def _moved(self, what: str, path: str, asked: dict[str, Any]) -> bool:
        reply = self._patiently(what, "POST", f"/models/{MODEL}/{path}", json.dumps(asked).encode())
        if reply is None or reply.status != 200:
            return False
        told = json.loads(reply.body)
        self.moved[told["rev"]] = tuple((split["version"], split["weight"]) for split in told["splits"])
        return True

    def _patiently(
        self, what: str, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> Reply | None:
        """Return the first answer but 503, asked for under one Idempotency-Key; None while the disk is down."""
        headers = {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": kind}
        for _ in range(TRIES):
            try:
                reply = self._line.ask(method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{what}: {error!r}")
                return None
            self.answers[what, reply.status] += 1
            if reply.status != 503:
                if reply.status not in (200, 202, 409):
                    self.wrong.append(f"{what}: {reply.status} {reply.body[:300]!r}")
                return reply
            if self._machine.disk.is_down:
                return None
            time.sleep(TRY_AGAIN_S)
        self.wrong.append(f"{what}: 503 for {TRIES} times, the disk being up: {reply.body[:300]!r}")
        return None

    def unfinished(self, timeout_s: float) -> list[str]:
        """Return the accepted jobs that have no outcome when the time is up."""
        deadline, waiting = time.monotonic() + timeout_s, list(self.jobs)
        while waiting and time.monotonic() < deadline:
            waiting = [job for job in waiting if self._status(job) not in ("succeeded", "rejected", "parked")]
            time.sleep(0.5 if waiting else 0)
        self._line.close()
        return waiting

    def _status(self, job: str) -> str:
        reply = self._patiently("job", "GET", f"/jobs/{job}")
        status = str(json.loads(reply.body).get("status")) if reply and reply.status == 200 else ""
        self.outcomes[job] = status
        return status
