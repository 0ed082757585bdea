"""Readers: the same bytes from a folder, a store and a cloud; the same errors; no credentials in any text."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import obstore.store
import pytest

from core.errors import ConfigError, CoreError, Denied, Missing, Transient
from core.local_store import LocalStore
from core.reader import LocalReader, ObstoreReader, Reader, StoreReader, open_reader
from core.store import MemoryStore
from tests.contracts.store_contract import ILLEGAL_KEYS, LEGAL_KEYS

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 100


def filled(kind: str, folder: Path) -> Reader:
    """Return a reader of the given kind over a store that holds DATA under every legal key."""
    store = MemoryStore()
    local = LocalStore(str(folder), fsync=False)
    cloud = obstore.store.MemoryStore()
    for key in LEGAL_KEYS:
        store.put(key, DATA)
        local.put(key, DATA)
        cloud.put(key, DATA)
    kinds: dict[str, Reader] = {
        "local": LocalReader(str(folder)),
        "store": StoreReader(store),
        "cloud": ObstoreReader(cloud),
    }
    return kinds[kind]


@pytest.fixture(params=["local", "store", "cloud"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Reader:
    return filled(request.param, tmp_path)


@pytest.mark.parametrize("key", LEGAL_KEYS)
def test_every_reader_gives_the_bytes(reader: Reader, key: str) -> None:
    assert reader.get(key) == DATA
    assert bytes(reader.buffer(key)) == DATA


@pytest.mark.parametrize("key", ["absent", "uploads", "a/below", *ILLEGAL_KEYS])
def test_what_is_no_object_is_missing(reader: Reader, key: str) -> None:
    with pytest.raises(Missing):
        reader.get(key)
    with pytest.raises(Missing):
        reader.buffer(key)


def test_a_local_buffer_is_mapped_and_read_only(tmp_path: Path) -> None:
    LocalStore(str(tmp_path)).put("model", DATA)
    view = LocalReader(str(tmp_path)).buffer("model")
    assert isinstance(view, mmap.mmap)
    with pytest.raises(TypeError):
        view[0] = 1
    view.close()


def test_a_mapped_buffer_keeps_the_bytes_it_was_opened_with(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("model", DATA)
    view = LocalReader(str(tmp_path)).buffer("model")
    store.put("model", b"other")
    store.delete("model")
    assert bytes(view) == DATA


def test_an_empty_file_is_empty_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert LocalReader(str(tmp_path)).buffer("empty") == b""
    assert LocalReader(str(tmp_path)).get("empty") == b""


def test_a_local_reader_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "secret", root / "link")
    with pytest.raises(Missing):
        LocalReader(str(root)).get("link")


def test_a_local_reader_keeps_no_files_open(tmp_path: Path) -> None:
    LocalStore(str(tmp_path)).put("a/b", DATA)
    reader = LocalReader(str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        reader.get("a/b")
        with pytest.raises(Missing):
            reader.get("a/c")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_cannot_be_read_is_transient() -> None:
    with pytest.raises(Transient, match="EIO"):
        LocalReader("/proc/self").get("mem")


def test_a_file_that_cannot_be_mapped_is_transient(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(64 << 30)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (32 << 30, limits[1]))
    try:
        with pytest.raises(Transient, match="ENOMEM"):
            LocalReader(str(tmp_path)).buffer("sparse")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


# --- urls


def test_a_path_or_a_file_url_opens_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my store"
    LocalStore(str(folder)).put("a", b"1")
    for url in (str(folder), f"file://{str(folder).replace(' ', '%20')}", f"file://localhost{folder}"):
        assert open_reader(url).get("a") == b"1"


@pytest.mark.parametrize(
    "url",
    ["ftp://user:hunter2@host/x", "http://x", "s3://", "file://host/x", "file://x", "az://container/hunter2"],
)
def test_a_url_that_cannot_be_opened_names_the_setting_and_no_value(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as caught:
        open_reader(url)
    assert caught.value.fields["setting"] == "POLYSKY_STORE"
    assert "POLYSKY_STORE" in caught.value.message
    assert "hunter2" not in repr(caught.value) + repr(caught.value.fields)


def test_a_container_url_opens_when_the_account_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert isinstance(open_reader("az://container/prefix"), ObstoreReader)


# --- a cloud that answers over HTTP


class Bucket(BaseHTTPRequestHandler):
    """Speaks as much of the S3 protocol as a reader needs."""

    status: ClassVar[dict[str, int]] = {"403": 403, "401": 401, "503": 503, "500": 500}

    def do_GET(self) -> None:
        name = self.path.removeprefix("/bucket/prefix/")
        status = 200 if name in ("model", "cut") else self.status.get(name, 404)
        body = DATA if status == 200 else b"AKIDSECRET is not allowed"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.end_headers()
        self.wfile.write(body[:100] if name == "cut" else body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield open_reader("s3://bucket/prefix", allow_http=True)
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_object_is_read_from_a_bucket(bucket: Reader) -> None:
    assert bucket.get("model") == DATA
    assert bucket.buffer("model") == DATA


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("absent", Missing),
        ("403", Denied),
        ("401", Denied),
        ("503", Transient),
        ("500", Transient),
        ("cut", Transient),
    ],
)
def test_what_a_bucket_refuses_is_told_apart_without_its_secrets(
    bucket: Reader, key: str, error: type[CoreError]
) -> None:
    with pytest.raises(error) as caught:
        bucket.get(key)
    told = f"{caught.value!r} {caught.value.fields} {caught.value.__cause__!r}"
    for secret in ("AKIDSECRET", "hunter2", "127.0.0.1"):
        assert secret not in told
    assert caught.value.__suppress_context__


def test_a_plain_http_endpoint_is_used_only_on_request(bucket: Reader) -> None:
    with pytest.raises(Transient):
        open_reader("s3://bucket/prefix").get("model")


def test_reading_a_folder_imports_nothing_heavy() -> None:
    script = (
        "import sys; from core.reader import open_reader; open_reader('/nowhere'); "
        "heavy = {'obstore', 'numpy', 'dataclasses', 'logging', 'asyncio', 'pathlib', 'tempfile', 'datetime',"
        " 'urllib.request', 'fcntl', 'core.store', 'core.ledger'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
