"""An artifact that takes longer to send than a connection may take to be made is sent all the same."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import google_crc32c
import pytest

from scripts.stores import PLATFORMS

DATA = os.urandom(1 << 20) * 16
BYTES_PER_S = 5e6  # a third of what two seconds, the limit to connect, would need
ANSWERS = {
    "s3": b'HTTP/1.1 200 OK\r\nETag: "e1"\r\n',
    "gs": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
    "az": b'HTTP/1.1 201 Created\r\nETag: "e1"\r\nLast-Modified: Fri, 20 Nov 2026 00:00:00 GMT\r\n',
}
CRC32C = b64encode(google_crc32c.value(DATA).to_bytes(4, "big")).decode()
BODIES = {"gs": json.dumps({"name": "slow", "generation": "1", "crc32c": CRC32C}).encode()}
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_REGION": "us-east-1",
    "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
    "AZURE_STORAGE_ACCOUNT_KEY": "bm90aGluZw==",
}


def read_slowly(connection: socket.socket, answer: bytes) -> None:
    """Read one request, the body at BYTES_PER_S, then answer it."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(1 << 16)
    head, _, body = text.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if any(line.startswith(b"expect: 100-continue") for line in lines):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    missing = length - len(body)
    while missing > 0 and (part := connection.recv(1 << 18)):
        missing -= len(part)
        time.sleep(len(part) / BYTES_PER_S)
    connection.sendall(answer)
    connection.close()


@contextmanager
def slow_server(answer: bytes) -> Iterator[str]:
    """Yield the address of a server that takes its time."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        server.bind(("127.0.0.1", 0))
        server.listen()

        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        session = b"Location: %s/session\r\n" % address.encode()  # of a large upload to Google's storage

        def serve() -> None:
            for _ in range(2):
                try:
                    connection, _ = server.accept()
                except OSError:  # one request was enough, and the test has gone
                    return
                read_slowly(connection, answer.replace(b"\r\n", b"\r\n" + session, 1))

        threading.Thread(target=serve, daemon=True).start()
        yield address


@pytest.mark.parametrize("scheme", sorted(PLATFORMS))
def test_a_slow_link_is_slow_and_no_failure(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    body = BODIES.get(scheme, b"")
    answer = ANSWERS[scheme] + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with slow_server(answer) as address:
        endpoint = f"{address}/devstoreaccount1" if scheme == "az" else address
        module = import_module(f"{PLATFORMS[scheme]}.store")
        store = module.open_store(f"{scheme}://bucket", endpoint=endpoint, allow_http=True)
        assert store.put_if_absent("slow", DATA)
