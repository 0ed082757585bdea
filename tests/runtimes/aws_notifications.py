"""S3 as it calls a function: a notification for each new object, again after a failure, in no order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote_plus

from tests.emulators.moto import REGION, Moto, Put
from tests.runtimes.aws_lambda import Function, Result, wait_for

ATTEMPTS = 3  # one, and the two by which Lambda repeats an event


class Delivery(NamedTuple):
    """One try."""

    key: str
    etag: str
    result: Result


class Notifications:
    """Notifications of all objects of a bucket to a function, that of its own writes among them."""

    def __init__(self, moto: Moto, url: str, function: Function, *, backoff_s: float = 0.1) -> None:
        self._moto, self._bucket, self._function = moto, url.removeprefix("s3://"), function
        self._backoff_s = backoff_s
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="s3")
        self._sent: list[Future[None]] = []
        self.puts: list[Put] = []
        self.deliveries: list[Delivery] = []

    def __enter__(self) -> Notifications:
        self._moto.watch(self._created)
        return self

    def __exit__(self, *_: object) -> None:
        self._moto.unwatch(self._created)
        self._pool.shutdown(cancel_futures=True)

    def send(self, put: Put) -> None:
        """Deliver an event in the background until it is taken, or was tried ATTEMPTS times."""
        with self._lock:
            self._sent.append(self._pool.submit(self._deliver, put))

    def post(self, put: Put) -> Result:
        """Return what came of one try to deliver an event."""
        result = self._function.invoke(notification(put))
        with self._lock:
            self.deliveries.append(Delivery(put.key, put.etag, result))
        return result

    def settle(self, seconds: float = 90.0) -> None:
        """Wait until every event is through, those that deliveries caused among them."""
        wait_for(lambda: all(future.done() for future in list(self._sent)), seconds, what=self._function.log)
        for future in self._sent:
            future.result()

    def of(self, key: str) -> list[Result]:
        """Return what came of the deliveries about an object."""
        return [delivery.result for delivery in self.deliveries if delivery.key == key]

    def _created(self, put: Put) -> None:
        if put.bucket == self._bucket:
            self.puts.append(put)
            self.send(put)

    def _deliver(self, put: Put) -> None:
        for attempt in range(ATTEMPTS):
            if not self.post(put).error:
                return
            time.sleep(self._backoff_s * 2**attempt)


def notification(put: Put) -> dict[str, Any]:
    """Return the event of a new object, as S3 writes it."""
    item = {"key": quote_plus(put.key, safe="/"), "size": put.size, "eTag": put.etag}
    item |= {"versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko", "sequencer": f"{time.time_ns():016X}"}
    bucket = {"name": put.bucket, "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}}
    record = {
        "eventVersion": "2.6",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.7"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {**bucket, "arn": f"arn:aws:s3:::{put.bucket}"},
            "object": item,
        },
    }
    return {"Records": [record]}
