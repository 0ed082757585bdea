"""The ASGI application: HTTP messages to core's Request, core's Response back. Bounded in size and in time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from core.errors import CoreError, MalformedBody
from core.web import Request, Response, problem

App = Callable[[Request], Response]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_TIMEOUT_S, UPLOAD_TIMEOUT_S = 30.0, 300.0
UPLOADS = 4  # how many a process reads at a time
THREADS = 4
INLINE_BYTES = 8192  # a prediction up to this size is answered on the event loop: no thread is that fast


class Cut(MalformedBody):
    """The body ended before it was whole: the client hung up, or its framing is broken."""


class TooSlow(CoreError):
    """The body did not come in time."""

    code = "request_timeout"


class Server:
    """An ASGI application around `app`. Slow clients wait on the event loop and hold no thread.

    Of a body at most one byte more than its limit is read: core refuses what is longer, whatever the headers say.
    Data uploads have a limit of their own, if the caller shows a credential at all; a few are taken at a time.
    """

    def __init__(
        self,
        app: App,
        *,
        max_body_bytes: int,
        max_upload_bytes: int = 0,
        body_timeout_s: float = BODY_TIMEOUT_S,
        on_active: Callable[[int], None] = lambda requests: None,
        on_start: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max(max_upload_bytes, max_body_bytes)
        self._uploads = asyncio.Semaphore(UPLOADS)
        self._body_timeout_s = body_timeout_s
        self._active, self._on_active = 0, on_active
        self._hooks = {"startup": on_start, "shutdown": on_stop}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="request")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the process's lifespan."""
        if scope["type"] == "http":
            self._count(1)
            try:
                await self._http(scope, receive, send)
            finally:
                self._count(-1)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    def _count(self, step: int) -> None:
        self._active += step  # on the event loop only
        self._on_active(self._active)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        for stage in ("startup", "shutdown"):
            await receive()
            self._hooks[stage]()
            await send({"type": f"lifespan.{stage}.complete"})
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = joined(scope["headers"])
        path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
        try:
            body = await self._body(path, headers, receive)
        except Cut as error:
            await _answer(scope, send, _refusal(400, error))  # who hung up does not read it, others do
            return
        except TimeoutError:
            await _answer(scope, send, _refusal(408, TooSlow("the body came too slowly")))
            return
        query = scope["query_string"].decode("latin-1")
        request = Request(scope["method"], path, query, headers, body)
        if len(body) <= INLINE_BYTES and request.method == "POST" and "/predict" in path:
            response = self._app(request)
        else:
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._threads, self._app, request)
        await _answer(scope, send, response)

    async def _body(self, path: str, headers: Mapping[str, str], receive: Receive) -> bytes:
        """Return the body, cut after one byte too many. Raises Cut, TimeoutError."""
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        if "/retrain" not in path or not ("authorization" in headers or "x-api-key" in headers):
            async with asyncio.timeout(self._body_timeout_s):
                return await _read(receive, self._max_body_bytes)
        async with self._uploads, asyncio.timeout(UPLOAD_TIMEOUT_S):
            return await _read(receive, self._max_upload_bytes)


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cut("the body is cut, or its chunks are malformed")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return body if size <= limit else body[: limit + 1]


def _refusal(status: int, error: CoreError) -> Response:
    """Return the answer to a request that core never sees; the connection cannot be used again."""
    request_id = os.urandom(8).hex()
    return problem(status, error, request_id, (("Connection", "close"), ("X-Request-Id", request_id)))


def joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name; the values of one that came twice are joined by a comma."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


async def _answer(scope: Scope, send: Send, response: Response) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if response.status not in (204, 304) and (response.body or scope["method"] != "HEAD"):
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else response.body
    await send({"type": "http.response.body", "body": body})
