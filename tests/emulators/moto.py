"""S3 and Secrets Manager by moto's server, in a thread of the test process, behind one lock.

On its own, moto checks a condition and then writes, with other requests in between; behind the lock it does not.
"""

from __future__ import annotations

import io
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from core.store import ObjectStore
from tests.emulators.missing import absent

REGION = "eu-west-1"
_KEY = "testing"


class Moto:
    """A running moto; see Emulator."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
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
    server = _server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Moto(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _server() -> Any:
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
    return make_server(
        "127.0.0.1",
        0,
        _locked(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=Quiet,
    )


def _locked(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return the application with one request at a time in it, from its whole body to its whole answer."""
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with lock:
            return [b"".join(app({**environ, "wsgi.input": io.BytesIO(body)}, start_response))]

    return answer
