"""A deployed function app for the tests, and Event Grid as it delivers to one."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.runtimes.azure_host import KEY

HOST = Path(__file__).with_name("azure_host.py")
SUCCESS = range(200, 205)  # what Event Grid takes for delivered
DROPPED = (400, 403, 413)  # what it never sends again


class Answer(NamedTuple):
    """An HTTP answer; status 0 means that the connection broke."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class FunctionApp:
    """A packaged function app, run by the host in a process of its own; started again when it has died."""

    def __init__(self, package: Path, env: Mapping[str, str], *, mortal: str = "") -> None:
        self.package, self.mortal = package, mortal
        self.lines: list[dict[str, Any]] = []
        self.functions: list[str] = []
        self.starts = 0
        self._env = {**env, "PATH": os.environ["PATH"]}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def __enter__(self) -> FunctionApp:
        self.keep_alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def keep_alive(self) -> None:
        """Start the process if there is none, as the platform does with a worker that died."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self.kill()
            self._start()

    def _start(self) -> None:
        # -I and -S: nothing of this environment but the standard library; the host adds the package
        command = [sys.executable, "-I", "-S", str(HOST), str(self.package)]
        command += ["--mortal", self.mortal] if self.mortal else []
        self._process = subprocess.Popen(
            command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if line.startswith('{"port"'):
                break
        else:
            raise RuntimeError("the host did not start: " + "".join(said)[-2000:])
        self.starts += 1
        self._keep(said[:-1])
        started = json.loads(said[-1])
        self._port, self.functions = started["port"], started["functions"]
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self._keep([line])
        except ValueError:  # closed by kill()
            return

    def _keep(self, lines: list[str]) -> None:
        self.lines += [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the facts of our own log records of one kind."""
        return [line["extra"] for line in self.lines if line.get("extra", {}).get("event") == name]

    def ask(self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Return the answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, target, body or None, dict(headers or {}))
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        except (OSError, http.client.HTTPException):
            return Answer(0)
        finally:
            connection.close()

    def tick(self) -> Answer:
        """Let the timer go off."""
        return self.ask("POST", "/admin/functions/tick", b"{}", {"x-functions-key": KEY})


class EventGrid:
    """An event subscription: hands events to the function `job`, again and again until it is done with them."""

    def __init__(self, app: FunctionApp, account: str, container: str) -> None:
        self._app, self._account, self._container = app, account, container
        self._path = f"/runtime/webhooks/EventGrid?functionName=job&code={KEY}"

    def handshake(self, code: str) -> Answer:
        """Send the validation event that Event Grid opens a subscription with."""
        event = {
            "id": str(uuid.uuid4()),
            "topic": f"/subscriptions/1/resourceGroups/r/storageAccounts/{self._account}",
            "subject": "",
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": "2026-11-21T10:00:00.0000000Z",
            "data": {
                "validationCode": code,
                "validationUrl": "https://rp-westeurope.eventgrid.azure.net/validate",
            },
            "dataVersion": "2",
            "metadataVersion": "1",
        }
        return self.post(event, kind="SubscriptionValidation")

    def created(self, key: str, etag: str, **data: Any) -> dict[str, Any]:
        """Return the event of a blob that was put."""
        return {
            "id": str(uuid.uuid4()),
            "topic": f"/subscriptions/1/resourceGroups/r/storageAccounts/{self._account}",
            "subject": f"/blobServices/default/containers/{self._container}/blobs/{key}",
            "eventType": "Microsoft.Storage.BlobCreated",
            "eventTime": "2026-11-21T10:00:00.1234567Z",
            "data": {
                "api": "PutBlob",
                "clientRequestId": str(uuid.uuid4()),
                "requestId": str(uuid.uuid4()),
                "eTag": etag,
                "contentType": "text/csv",
                "contentLength": 1000,
                "blobType": "BlockBlob",
                "accessTier": "Default",
                "url": f"https://{self._account}.blob.core.windows.net/{self._container}/{quote(key)}",
                "sequencer": "00000000000000000000000000000EB0000000000046199C",
                "storageDiagnostics": {"batchId": str(uuid.uuid4())},
                **data,
            },
            "dataVersion": "",
            "metadataVersion": "1",
        }

    def post(self, event: Mapping[str, Any], kind: str = "Notification") -> Answer:
        """Hand over one event, once."""
        headers = {"Content-Type": "application/json; charset=utf-8", "aeg-event-type": kind}
        return self._app.ask("POST", self._path, json.dumps([event]).encode(), headers)

    def deliver(self, event: Mapping[str, Any], attempts: int = 8) -> list[int]:
        """Hand over an event until it is taken; return the status of each attempt, the last one a success."""
        statuses: list[int] = []
        while len(statuses) < attempts:
            self._app.keep_alive()
            statuses.append(self.post(event).status)
            if statuses[-1] in SUCCESS:
                return statuses
            assert statuses[-1] not in DROPPED, "an answer that makes Event Grid forget the event"
            time.sleep(0.2)
        raise AssertionError(f"not delivered: {statuses}")

    def deliver_all(self, events: list[Mapping[str, Any]], at_once: int) -> list[list[int]]:
        """Deliver several events, `at_once` of them at a time."""
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(self.deliver, events))


def until(condition: Callable[[], Any], timeout_s: float) -> Any:
    """Return the first truthy value of `condition`, asked again and again."""
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)
    return found
