"""The Google Cloud Storage emulator of the tests; and a second one, which heeds no precondition."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from core.store import ObjectStore
from tests.emulators.missing import absent

if TYPE_CHECKING:
    from tests.emulators.gcs_server import Objects

Listener = Callable[[dict[str, Any]], object]


class Gcs:
    """A running emulator of Google Cloud Storage; see Emulator."""

    def __init__(self, endpoint: str, storage: Objects | None) -> None:
        self.endpoint = endpoint
        self._storage = storage
        self._numbers = itertools.count(1)
        self._clients: list[Any] = []

    def env(self) -> dict[str, str]:
        """Return the variables that lead google-cloud-storage and obstore here."""
        return {
            "STORAGE_EMULATOR_HOST": self.endpoint,
            "GOOGLE_BASE_URL": self.endpoint,
            "GOOGLE_SKIP_SIGNATURE": "true",
            "GOOGLE_CLOUD_PROJECT": "polysky-test",
            "POLYSKY_ALLOW_HTTP": "true",
        }

    def new_store_url(self) -> str:
        """Return the URL of a fresh, empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        self._client().create_bucket(name)
        return f"gs://{name}"

    def open(self, url: str, endpoint: str | None = None) -> ObjectStore:
        """Return the handler's store."""
        from handlers_gcp.store import open_store

        return open_store(url, endpoint=endpoint or self.endpoint, allow_http=True)

    def upload(self, url: str, key: str, data: bytes) -> None:
        """Write an object with the plain SDK."""
        parts = urlsplit(url)
        name = f"{parts.path[1:]}/{key}" if parts.path.strip("/") else key
        self._client().bucket(parts.netloc).blob(name).upload_from_string(data)

    def outage(self) -> AbstractContextManager[None]:
        """Answer every request with 503 for a while."""
        return self._being("is_out")

    def lost_answers(self) -> AbstractContextManager[None]:
        """Do what is asked for, and close the connection instead of answering, for a while."""
        return self._being("is_mute")

    @contextmanager
    def _being(self, state: str) -> Iterator[None]:
        setattr(self._storage, state, True)
        try:
            yield
        finally:
            setattr(self._storage, state, False)

    def watch(self, listener: Listener) -> None:
        """Have `listener` called with the resource of every object created; it must return at once."""
        assert self._storage is not None
        self._storage.listeners.append(listener)

    def unwatch(self, listener: Listener) -> None:
        """End what `watch` began."""
        assert self._storage is not None
        self._storage.listeners.remove(listener)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _client(self) -> Any:
        if not self._clients:
            from google.auth.credentials import AnonymousCredentials
            from google.cloud import storage

            options = {"api_endpoint": self.endpoint}
            credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
            client = storage.Client(project="test", credentials=credentials, client_options=options)
            self._clients.append(client)
        return self._clients[0]


@contextmanager
def start() -> Iterator[Gcs]:
    """Run the emulator in a thread of this process."""
    server, objects = _parts()
    storage = objects()
    with _running(server.serve(storage)) as endpoint:
        yield from _lent(Gcs(endpoint, storage))


@contextmanager
def lying() -> Iterator[Gcs]:
    """Run gcp-storage-emulator as it is: it accepts every conditional write."""
    server, _ = _parts()
    with _running(server.serve_lying()) as endpoint:
        yield from _lent(Gcs(endpoint, None))


def _lent(emulator: Gcs) -> Iterator[Gcs]:
    try:
        yield emulator
    finally:
        emulator.close()


def _parts() -> tuple[Any, Any]:
    try:
        from tests.emulators import gcs_server
    except ModuleNotFoundError as error:
        absent(f"gcp-storage-emulator ({error.name})")
    return gcs_server, gcs_server.Objects


@contextmanager
def _running(server: HTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
