"""S3 and Secrets Manager by moto's server, in a thread of the test process, behind one lock.

On its own, moto checks a condition and then writes, with other requests in between; behind the lock it does not.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote

from core.store import ObjectStore
from tests.emulators.missing import absent

REGION = "eu-west-1"
PAGE = 100  # entries of a listing at a time; S3 has 1000
_PAGE_VARIABLE = "MOTO_S3_DEFAULT_MAX_KEYS"
_KEY = "testing"


class Put(NamedTuple):
    """An object that was written."""

    bucket: str
    key: str
    etag: str
    size: int


Listener = Callable[[Put], object]


class Gate:
    """Lets one request at a time into an application, from its whole body to its whole answer."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.listeners: list[Listener] = []
        self.is_out = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request; tell the listeners of an object that it wrote."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        told: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            told[:] = [status, {name.lower(): value for name, value in headers}]
            return start_response(status, headers, *rest)

        with self._lock:
            if self.is_out:
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return []
            answer = [b"".join(self._app({**environ, "wsgi.input": io.BytesIO(body)}, start))]
            _, bucket, key = (*environ["REQUEST_URI"].partition("?")[0].split("/", 2), "")[:3]
            if environ["REQUEST_METHOD"] == "PUT" and key and told[0].startswith("200"):
                put = Put(unquote(bucket), unquote(key), told[1]["etag"].strip('"'), len(body))
                for listener in self.listeners:
                    listener(put)
        return answer


class Moto:
    """A running moto; see Emulator."""

    def __init__(self, endpoint: str, gate: Gate) -> None:
        self.endpoint = endpoint
        self._gate = gate
        self._numbers = itertools.count(1)
        self._clients: dict[str, Any] = {}

    def env(self) -> dict[str, str]:
        """Return the variables that lead boto3 and obstore here."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "POLYSKY_ALLOW_HTTP": "true",
        }

    def new_store_url(self) -> str:
        """Return the URL of a fresh, empty bucket."""
        name = f"polysky-{next(self._numbers)}"
        where = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration=where)
        return f"s3://{name}"

    def open(self, url: str, endpoint: str | None = None) -> ObjectStore:
        """Return the handler's store; `endpoint` is another address of this emulator, such as a proxy's."""
        from handlers_aws.store import open_store

        return open_store(url, endpoint=endpoint or self.endpoint, allow_http=True, session=session())

    def upload(self, url: str, key: str, data: bytes) -> None:
        """Write an object with the plain SDK."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{key}" if prefix else key, Body=data)

    def watch(self, listener: Listener) -> None:
        """Have `listener` called with every object written in one request; it must return at once."""
        self._gate.listeners.append(listener)

    def unwatch(self, listener: Listener) -> None:
        """End what `watch` began."""
        self._gate.listeners.remove(listener)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Answer every request with 503 for a while."""
        self._gate.is_out = True
        try:
            yield
        finally:
            self._gate.is_out = False

    def client(self, service: str) -> Any:
        """Return the plain SDK's client of a service of this emulator."""
        if service not in self._clients:
            self._clients[service] = session().client(service, endpoint_url=self.endpoint)
        return self._clients[service]


def session() -> Any:
    """Return boto3's session with the emulator's credentials."""
    import boto3

    return boto3.session.Session(aws_access_key_id=_KEY, aws_secret_access_key=_KEY, region_name=REGION)


@contextmanager
def start() -> Iterator[Moto]:
    """Run moto on a free port of this machine until the end of the block."""
    server, gate = _server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    os.environ[_PAGE_VARIABLE] = str(PAGE)
    try:
        yield Moto(f"http://127.0.0.1:{server.server_port}", gate)
    finally:
        del os.environ[_PAGE_VARIABLE]
        server.shutdown()
        server.server_close()
        thread.join(5)


def _server() -> tuple[Any, Gate]:
    try:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server
    except ModuleNotFoundError as error:
        absent(f"moto's server ({error.name})")

    class Quiet(WSGIRequestHandler):
        """Writes no line a request; answers at once."""

        disable_nagle_algorithm = True

        def log(self, *_: Any) -> None:
            """Do nothing."""

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL + 1)  # clients hang up, some on purpose
    gate = Gate(DomainDispatcherApplication(create_backend_app))
    return make_server("127.0.0.1", 0, gate, threaded=True, request_handler=Quiet), gate
