"""Clients that ask, wait for the answer and ask again; they count what comes back and judge nothing."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from scripts.soak.field import MODEL, numbers_of, questions

PAUSE_S = 0.004
PER_CONNECTION = 100  # then a new one, which may meet the other worker
PINNED_EVERY = 20
PRODUCTION, PREVIOUS = "production", "previous"


class Reply(NamedTuple):
    """An answer: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Line:
    """A connection to the server that is made anew from time to time, and after an error."""

    def __init__(self, url: str, token: str, per_connection: int = PER_CONNECTION) -> None:
        self._netloc = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}"}
        self._per_connection, self._used = per_connection, 0
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Reply:
        """Return the answer. Raises OSError, HTTPException."""
        if self._connection is None or self._used >= self._per_connection:
            self.close()
            self._connection = http.client.HTTPConnection(self._netloc, timeout=60)
            self._used = 0
        self._used += 1
        try:
            kind = {"Content-Type": "application/json"} if body else {}
            self._connection.request(method, path, body or None, {**self._headers, **kind, **headers})
            found = self._connection.getresponse()
            names = {name.lower(): value for name, value in found.getheaders()}
            return Reply(found.status, names, found.read())
        except (OSError, http.client.HTTPException):
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Tally:
    """What a client was answered.

    `answers` counts (version, question, numbers), `statuses` (reference, status), `seen` holds (version, second)
    of production, `broken` connections without an answer, `slowest_s` is the longest wait.
    """

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int, bytes]] = Counter()
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.seen: set[tuple[str, int]] = set()
        self.broken: list[str] = []
        self.errors: list[str] = []
        self.mislabelled = 0
        self.slowest_s = 0.0

    def add(self, other: Tally) -> None:
        """Add another client's counts."""
        self.answers += other.answers
        self.statuses += other.statuses
        self.seen |= other.seen
        self.broken += other.broken
        self.errors += other.errors
        self.mislabelled += other.mislabelled
        self.slowest_s = max(self.slowest_s, other.slowest_s)

    def note(self, ref: str, question: int, reply: Reply) -> None:
        """Count one answer."""
        self.statuses[ref, reply.status] += 1
        if reply.status != 200:
            self.errors.append(f"{time.time():.0f} {ref} {reply.status} {reply.body[:200]!r}")
            return
        version = str(json.loads(reply.body)["version"])
        self.mislabelled += reply.headers.get("x-model-version") != version
        self.answers[version, question, numbers_of(reply.body)] += 1
        if ref == PRODUCTION:
            self.seen.add((version, int(time.time())))


class Client(threading.Thread):
    """Asks until `stop` is set; one request in twenty names the alias `previous`."""

    def __init__(self, line: Line, stop: threading.Event, pause_s: float = PAUSE_S) -> None:
        super().__init__(daemon=True)
        self._line, self._stop_asked, self._pause_s = line, stop, pause_s
        self._bodies = [json.dumps({"text": text}).encode() for text in questions()]
        self.tally = Tally()

    def run(self) -> None:
        """Ask."""
        number = 0
        while not self._stop_asked.wait(self._pause_s):
            number += 1
            self._ask(PREVIOUS if number % PINNED_EVERY == 0 else PRODUCTION, number % len(self._bodies))
        self._line.close()

    def _ask(self, ref: str, question: int) -> None:
        path = f"/predict/{MODEL}" + ("" if ref == PRODUCTION else f"?version={ref}")
        started = time.monotonic()
        try:
            reply = self._line.ask("POST", path, self._bodies[question])
        except (OSError, http.client.HTTPException) as error:
            self.tally.broken.append(repr(error))
            return
        self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - started)
        self.tally.note(ref, question, reply)
