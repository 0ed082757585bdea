"""A small Eventarc: posts the finalize events of a bucket to a function, again after every failure."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, NamedTuple

from tests.emulators.gcs import Gcs
from tests.runtimes.gcp_server import FunctionServer, wait_for

ATTEMPTS = 12
Resource = Mapping[str, Any]


class Delivery(NamedTuple):
    """One try; the status is 0 where no answer came."""

    name: str
    generation: str
    status: int


class Eventarc:
    """A trigger on all objects of a bucket, as GCS has no filter by prefix. At least once, in no order."""

    def __init__(self, emulator: Gcs, url: str, function: FunctionServer, *, backoff_s: float = 0.1) -> None:
        self._emulator, self._bucket, self._function = emulator, url.removeprefix("gs://"), function
        self._backoff_s = backoff_s
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="eventarc")
        self._sent: list[Future[None]] = []
        self.resources: list[Resource] = []
        self.deliveries: list[Delivery] = []

    def __enter__(self) -> Eventarc:
        self._emulator.watch(self._finalized)
        return self

    def __exit__(self, *_: object) -> None:
        self._emulator.unwatch(self._finalized)
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def send(self, resource: Resource) -> None:
        """Deliver an event in the background until it is taken."""
        with self._lock:
            self._sent.append(self._pool.submit(self._deliver, resource))

    def post(self, resource: Resource) -> int:
        """Return the status of one try to deliver an event, 0 if no answer came."""
        status = 0
        with contextlib.suppress(OSError, HTTPException):
            status = self._function.ask("POST", "/", json.dumps(resource).encode(), headers_of(resource)).status
        with self._lock:
            self.deliveries.append(Delivery(resource["name"], resource["generation"], status))
        return status

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until every event was taken, those that deliveries caused among them."""
        wait_for(lambda: all(future.done() for future in list(self._sent)), seconds, what=self._function.log)
        for future in self._sent:
            future.result()

    def of(self, name: str) -> list[Resource]:
        """Return the events of an object, oldest first."""
        return [resource for resource in self.resources if resource["name"] == name]

    def _finalized(self, resource: Resource) -> None:
        if resource["bucket"] == self._bucket:
            self.resources.append(resource)
            self.send(resource)

    def _deliver(self, resource: Resource) -> None:
        for attempt in range(ATTEMPTS):
            if 200 <= self.post(resource) < 300 or self._stopped.is_set():
                return
            time.sleep(self._backoff_s * min(2**attempt, 16))
        raise AssertionError(f"never taken: {resource['name']}")


def headers_of(resource: Resource) -> dict[str, str]:
    """Return the headers of an event in binary mode."""
    return {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": uuid.uuid4().hex,
        "ce-type": "google.cloud.storage.object.v1.finalized",
        "ce-time": resource["timeCreated"],
        "ce-source": f"//storage.googleapis.com/projects/_/buckets/{resource['bucket']}",
        "ce-subject": f"objects/{resource['name']}".encode("ascii", "replace").decode(),
        "ce-bucket": resource["bucket"],
    }
