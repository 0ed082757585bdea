"""A proxy in front of an emulator that cuts connections: before a request, after it has landed, amid its reply.

What a plan says of an exchange is done to it; without a plan all of it passes.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

WRITES = ("PUT", "POST", "DELETE")
BEFORE, AFTER, AMID = "before", "after", "amid"


class Fate(NamedTuple):
    """What becomes of an exchange, after `delay_s` seconds.

    `cut` is before (the request never arrives), after (it lands, not a byte of the reply comes back) or amid (of
    the reply comes `share`, or `at` bytes: head and body); empty: nothing is cut.
    """

    cut: str = ""
    share: float = 0.5
    at: int | None = None
    delay_s: float = 0.0


class Exchange(NamedTuple):
    """An exchange as the proxy saw it; `status` is 0 if the request never arrived, `sent` counts reply bytes."""

    method: str
    path: str
    status: int
    fate: Fate
    sent: int
    size: int


Plan = Callable[[str, str], Fate]


class Seeded:
    """A plan: cuts a share of the requests with these methods, in one of these ways, `limit` of them in all."""

    def __init__(
        self,
        seed: int,
        *,
        rate: float,
        limit: int,
        cuts: Mapping[str, int] | None = None,
        methods: tuple[str, ...] = WRITES,
    ) -> None:
        self._rng = random.Random(seed)
        self._rate = rate
        self._methods = methods
        self._kinds = list((cuts or {AFTER: 1, AMID: 1}).items())
        self._lock = threading.Lock()
        self.left = limit

    def __call__(self, method: str, path: str) -> Fate:
        """Return what shall become of a request."""
        with self._lock:
            if method not in self._methods or not self.left or self._rng.random() >= self._rate:
                return Fate()
            self.left -= 1
            kinds, weights = zip(*self._kinds, strict=True)
            return Fate(self._rng.choices(kinds, weights)[0], self._rng.random())


class CuttingProxy:
    """A running proxy at `address`. `plan` may be changed at any time; `seen` tells what has passed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.plan: Plan = lambda method, path: Fate()
        self.seen: list[Exchange] = []

    def cut(self) -> list[Exchange]:
        """Return the exchanges that were cut."""
        return [exchange for exchange in self.seen if exchange.fate.cut]

    @contextmanager
    def once(self, method: str, fate: Fate) -> Iterator[None]:
        """Give this fate to the next request with this method, inside the block; the others pass."""
        waiting = [fate]
        self.plan = lambda asked, path: waiting.pop() if asked == method and waiting else Fate()
        try:
            yield
        finally:
            self.plan = lambda method, path: Fate()
            assert not waiting, "no such request came"

    @contextmanager
    def always(self, fate: Fate, methods: tuple[str, ...] = WRITES) -> Iterator[None]:
        """Give this fate to all requests with these methods inside the block."""
        self.plan = lambda asked, path: fate if asked in methods else Fate()
        try:
            yield
        finally:
            self.plan = lambda method, path: Fate()


@contextmanager
def cutting(upstream: str) -> Iterator[CuttingProxy]:
    """Run a proxy in front of the server at `upstream`, http://HOST:PORT, until the end of the block."""
    where = urlsplit(upstream)
    proxy = CuttingProxy("")
    server = _Server(("127.0.0.1", 0), partial(_Handler, proxy, where.netloc))
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections break here."""


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection; a cut one ends it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, proxy: CuttingProxy, upstream: str, *arguments: Any) -> None:
        self._proxy = proxy
        self._upstream = upstream
        super().__init__(*arguments)

    def _answer(self) -> None:
        body = self._body()
        fate = self._proxy.plan(self.command, self.path)
        time.sleep(fate.delay_s)
        if fate.cut == BEFORE:
            self._done(0, fate, b"", 0)
            return
        status, reply = self._ask(body)
        share = len(reply)
        if fate.cut == AFTER:
            share = 0
        elif fate.cut == AMID:  # one byte is missing at least
            share = min(int(len(reply) * fate.share) if fate.at is None else fate.at, len(reply) - 1)
        self._done(status, fate, reply, share)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _answer

    def _done(self, status: int, fate: Fate, reply: bytes, sent: int) -> None:
        """Send so much of the reply. It is seen before: who has the answer may look at once."""
        self._proxy.seen.append(Exchange(self.command, self.path, status, fate, sent, len(reply)))
        self.wfile.write(reply[:sent])
        if fate.cut:
            self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass
        return body

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        """Return the status and the bytes of the upstream's reply, once it is there as a whole."""
        upstream = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection", "transfer-encoding", "content-length"):
                    upstream.putheader(name, value)
            upstream.putheader("Content-Length", str(len(body)))
            upstream.putheader("Connection", "close")
            upstream.endheaders(body)
            found = upstream.getresponse()
            return found.status, _bytes_of(found, self.command == "HEAD")
        finally:
            upstream.close()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do nothing."""


def _bytes_of(found: http.client.HTTPResponse, headless: bool) -> bytes:
    """Return a reply as it goes over the wire, its body in one piece."""
    body = found.read()
    lines = [f"HTTP/1.1 {found.status} {found.reason}"]
    for name, value in found.getheaders():
        if name.lower() in ("connection", "transfer-encoding") or (
            name.lower() == "content-length" and not headless
        ):
            continue
        lines.append(f"{name}: {value}")
    if not headless and found.status not in (204, 304):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
