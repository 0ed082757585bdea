"""The ASGI adapter, driven in process: what core gets, what the client gets, and the bounds."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

from core.web import Request, Response
from handlers_onprem.server import Server

Message = MutableMapping[str, Any]
LENGTH = (b"content-length", b"10")


def echo(request: Request) -> Response:
    return Response(200, (("X-Thread", threading.current_thread().name),), request.body or b"nothing")


class Exchange:
    """One request to a server, and what came of it."""

    def __init__(self, server: Server, messages: list[Message], **scope: Any) -> None:
        self.sent: list[Message] = []
        self.read = 0
        self._messages = messages
        self._scope = {
            "type": "http",
            "method": "POST",
            "raw_path": b"/predict",
            "query_string": b"",
            "headers": [LENGTH],
            **scope,
        }
        asyncio.run(server(self._scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self.read == len(self._messages):
            await asyncio.Event().wait()  # a client that sends no more
        self.read += 1
        return self._messages[self.read - 1]

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return bytes(self.sent[1]["body"])


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


def server(app: Any = echo, **options: Any) -> Server:
    return Server(app, **{"max_body_bytes": 100, **options})


def test_the_parts_of_a_request_reach_core_as_on_the_wire() -> None:
    seen: list[Request] = []

    def app(request: Request) -> Response:
        seen.append(request)
        return Response(204)

    headers = [(b"Content-Length", b"4"), (b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    done = Exchange(
        server(app),
        [body(b"ab", more=True), body(b"cd")],
        raw_path=b"/models/a%2Fb?x=1",
        query_string=b"x=%20",
        headers=headers,
    )
    assert seen == [
        Request(
            "POST",
            "/models/a%2Fb",
            "x=%20",
            {"content-length": "4", "authorization": "Bearer a,Bearer b"},
            b"abcd",
        )
    ]
    assert (done.status, done.headers, done.body) == (204, {}, b"")


def test_the_answer_carries_its_length() -> None:
    done = Exchange(server(), [body(b"0123456789")])
    assert (done.status, done.headers[b"content-length"], done.body) == (200, b"10", b"0123456789")


def test_head_gets_no_body_and_no_false_length() -> None:
    done = Exchange(server(lambda request: Response(200)), [], method="HEAD", headers=[])
    assert (done.headers, done.body) == ({}, b"")
    done = Exchange(server(), [], method="HEAD", headers=[])
    assert (done.headers[b"content-length"], done.body) == (b"7", b"")


def test_no_more_than_the_limit_and_one_byte_is_handed_on() -> None:
    endless = [body(b"x" * 60, more=True) for _ in range(10)]
    done = Exchange(server(), endless, headers=[(b"transfer-encoding", b"chunked")])
    assert (len(done.body), done.read) == (101, 2)


def test_uploads_have_their_own_limit_if_a_credential_is_shown() -> None:
    parts = [body(b"x" * 60, more=True), body(b"x" * 60, more=True), body(b"x" * 60)]
    headers = [(b"content-length", b"180")]
    app = server(max_upload_bytes=1000)
    stranger = Exchange(app, list(parts), raw_path=b"/retrain/m", headers=headers)
    assert len(stranger.body) == 101
    caller = Exchange(app, list(parts), raw_path=b"/retrain/m", headers=[*headers, (b"x-api-key", b"t")])
    assert len(caller.body) == 180


def test_a_client_that_stalls_in_its_body_is_answered_408() -> None:
    done = Exchange(server(body_timeout_s=0.05), [body(b"0123", more=True)])
    assert (done.status, done.headers[b"connection"]) == (408, b"close")
    assert json.loads(done.body)["code"] == "request_timeout"


def test_a_body_that_ends_before_it_is_whole_is_answered_400() -> None:
    done = Exchange(server(), [body(b"0123", more=True), {"type": "http.disconnect"}])
    assert (done.status, done.headers[b"connection"]) == (400, b"close")
    told = json.loads(done.body)
    assert (told["code"], told["request_id"].encode()) == ("malformed_body", done.headers[b"x-request-id"])


@pytest.mark.parametrize(
    ("path", "size", "inline"),
    [(b"/predict/m", 10, True), (b"/predict/m", 9000, False), (b"/retrain", 10, False)],
)
def test_only_small_predictions_are_answered_on_the_event_loop(path: bytes, size: int, inline: bool) -> None:
    done = Exchange(server(max_body_bytes=10_000), [body(b"x" * size)], raw_path=path)
    assert (done.headers[b"x-thread"] == b"MainThread") is inline


def test_the_lifespan_calls_the_hooks_in_order() -> None:
    calls: list[str] = []
    app = server(on_start=lambda: calls.append("start"), on_stop=lambda: calls.append("stop"))
    done = Exchange(app, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}], type="lifespan")
    assert calls == ["start", "stop"]
    assert [message["type"] for message in done.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_other_protocols_are_left_alone() -> None:
    assert Exchange(server(), [], type="websocket").sent == []


def test_requests_are_counted_from_their_first_byte_to_their_last() -> None:
    seen: list[int] = []

    def app(request: Request) -> Response:
        assert seen == [1]
        return Response(200)

    assert Exchange(server(app, on_active=seen.append), [body(b"x" * 10)]).status == 200
    assert seen == [1, 0]


def test_a_client_that_hangs_up_is_counted_out() -> None:
    seen: list[int] = []
    Exchange(server(on_active=seen.append), [{"type": "http.disconnect"}])
    assert seen == [1, 0]
