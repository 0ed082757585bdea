"""S3, held to the store contract; and what only it can get wrong."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.errors import ConfigError, Denied, Exists, InvalidName, Missing, Stale, StoreError, Transient
from core.reader import open_reader
from core.store import ObjectStore
from handlers_aws.store import S3Store, open_store
from tests.contracts.store_contract import LEGAL_KEYS, StoreContract
from tests.emulators.moto import PAGE, Moto, session


class TestS3Store(StoreContract):
    many = 2 * PAGE + 50

    @pytest.fixture
    def store(self, moto: Moto) -> ObjectStore:
        return moto.open(moto.new_store_url())


@pytest.fixture
def url(moto: Moto) -> str:
    return moto.new_store_url()


@pytest.fixture
def store(moto: Moto, url: str) -> ObjectStore:
    return moto.open(url)


def test_a_prefix_makes_a_store_of_its_own(moto: Moto, url: str) -> None:
    inner, outer = moto.open(url + "/team/a/"), moto.open(url)
    token = inner.put("uploads/x", b"1")
    moto.upload(url + "/team/a", "uploads/y", b"2")
    outer.put("team/ab/uploads/z", b"3")
    assert outer.get("team/a/uploads/x") == (b"1", token)
    assert [entry.key for entry in inner.list("")] == ["uploads/x", "uploads/y"]
    assert inner.head("uploads/y").key == "uploads/y"
    with pytest.raises(InvalidName):
        inner.put("s/" * 510 + "s", b"")


def test_folder_markers_of_the_console_are_no_objects(moto: Moto, url: str, store: ObjectStore) -> None:
    moto.upload(url, "uploads/", b"")
    store.put("uploads/x", b"")
    assert [entry.key for entry in store.list("uploads/")] == ["uploads/x"]


@pytest.mark.parametrize("token", ["", '"', "a\r\nIf-Match: *", "*", "ü", "x" * 300])
def test_what_is_no_etag_is_stale(store: ObjectStore, token: str) -> None:
    store.put("doc", b"1")
    with pytest.raises(Stale):
        store.put_if_match("doc", b"2", token)
    with pytest.raises(Stale):
        store.get("doc", token)
    assert store.get("doc").data == b"1"


def test_a_fetch_streams_in_pieces(store: ObjectStore) -> None:
    data = bytes(range(256)) * 20_000
    token = store.put("large", data)
    sizes: list[int] = []

    class Counting(io.BytesIO):
        def write(self, chunk: object) -> int:
            sizes.append(len(chunk))  # type: ignore[arg-type]
            return super().write(chunk)  # type: ignore[arg-type]

    target = Counting()
    assert store.fetch("large", target, token).size == len(data)
    assert target.getvalue() == data
    assert max(sizes) <= 1 << 20


def test_a_full_target_disk_is_transient(store: ObjectStore) -> None:
    store.put("doc", b"1")

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(Transient, match="kept here"):
        store.fetch("doc", Full())


def test_bytes_come_as_they_lie_there_whatever_encoding_they_claim(
    moto: Moto, url: str, store: ObjectStore
) -> None:
    bucket = url.removeprefix("s3://")
    moto.client("s3").put_object(Bucket=bucket, Key="a.csv", Body=b"not gzip", ContentEncoding="gzip")
    target = io.BytesIO()
    assert store.fetch("a.csv", target).size == 8
    assert (store.get("a.csv").data, target.getvalue()) == (b"not gzip", b"not gzip")


def test_a_bucket_that_does_not_exist_is_not_an_empty_store(moto: Moto) -> None:
    store = moto.open("s3://nobodys-bucket")
    for act in (
        lambda: store.get("a"),
        lambda: store.fetch("a", io.BytesIO()),
        lambda: store.put("a", b""),
        lambda: store.put_if_absent("a", b""),
        lambda: store.put_if_match("a", b"", "1"),
        lambda: store.delete("a"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(Denied, match="bucket does not exist"):
            act()


def test_a_server_that_is_away_is_transient_and_its_address_stays_unsaid(moto: Moto, url: str) -> None:
    store = moto.open(url, "http://127.0.0.1:9")
    for act in (lambda: store.put_if_absent("a", b""), lambda: store.delete("a"), lambda: store.put("a", b"")):
        with pytest.raises(Transient) as caught:
            act()
        assert "127.0.0.1" not in str(caught.value)


def test_the_reader_of_the_predict_path_reads_the_same_bucket(
    moto: Moto, url: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    reader = open_reader(url + "/x", allow_http=True)
    for index, key in enumerate(LEGAL_KEYS):
        store.put("x/" + key, str(index).encode())
    assert [reader.get(key) for key in LEGAL_KEYS] == [str(index).encode() for index in range(len(LEGAL_KEYS))]
    assert bytes(reader.buffer("a")) == b"0"
    assert reader.keys("uploads/spam/") == sorted(key for key in LEGAL_KEYS if key.startswith("uploads/"))
    assert reader.keys("uploads/") == []
    with pytest.raises(Missing):
        reader.get("none")


def test_the_reader_lists_past_the_first_page(moto: Moto, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    keys = [f"many/{number:03d}" for number in range(PAGE + 3)]
    for key in keys:
        moto.upload(url, key, b"")
    assert open_reader(url, allow_http=True).keys("many/") == keys


def test_an_unencrypted_endpoint_is_refused_unless_it_is_allowed(
    moto: Moto, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="not encrypted"):
        open_store(url, endpoint=moto.endpoint)
    with pytest.raises(ConfigError, match="not encrypted"):
        open_store(url)
    store = open_store(url, allow_http=True)
    store.put("a", b"1")
    assert store.get("a").data == b"1"


@pytest.mark.parametrize(
    "text", ["gs://bucket", "s3://", "s3:///x", "bucket", "s3://bucket/../x", "s3://bucket//x//y", "s3://a b/x"]
)
def test_other_urls_are_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(text)
    assert caught.value.fields["setting"] == "POLYSKY_STORE"


def test_a_bad_endpoint_is_a_configuration_error_that_does_not_quote_it() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket", endpoint="no-url", session=session())
    assert "no-url" not in str(caught.value)


def test_without_credentials_every_call_is_denied(
    moto: Moto, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = open_store(url, endpoint=moto.endpoint, allow_http=True)
    with pytest.raises(Denied, match="no credentials"):
        store.put_if_absent("a", b"")


class _Scripted(BaseHTTPRequestHandler):
    """Answers every request with the status and error code that the server's `script` says."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        script: tuple[int, str] = self.server.script  # type: ignore[attr-defined]
        self.server.seen.append(self.command)  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"<?xml version='1.0'?><Error><Code>{script[1]}</Code><Message>secret</Message></Error>".encode()
        self.send_response(script[0])
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Scripted)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("script", "create", "swap"),
    [
        ((412, "PreconditionFailed"), Exists, Stale),
        ((409, "ConditionalRequestConflict"), Transient, Transient),
        ((409, "OperationAborted"), Transient, Transient),
        ((404, "NoSuchKey"), Missing, Missing),
        ((404, "NoSuchBucket"), Denied, Denied),
        ((403, "AccessDenied"), Denied, Denied),
        ((400, "ExpiredToken"), Denied, Denied),
        ((400, "BadDigest"), Transient, Transient),
        ((400, "RequestTimeout"), Transient, Transient),
        ((500, "InternalError"), Transient, Transient),
        ((503, "SlowDown"), Transient, Transient),
    ],
)
def test_each_answer_of_the_service_has_one_meaning_and_writes_are_tried_once(
    scripted: ThreadingHTTPServer, script: tuple[int, str], create: type[StoreError], swap: type[StoreError]
) -> None:
    scripted.script = script  # type: ignore[attr-defined]
    endpoint = f"http://127.0.0.1:{scripted.server_port}"
    store = open_store("s3://bucket", endpoint=endpoint, allow_http=True, session=session())
    with pytest.raises(create) as created:
        store.put_if_absent("a", b"1")
    with pytest.raises(swap) as swapped:
        store.put_if_match("a", b"1", "x1")
    assert (type(created.value), type(swapped.value)) == (create, swap)
    assert scripted.seen == ["PUT", "PUT"]  # type: ignore[attr-defined]
    assert "secret" not in created.value.message + swapped.value.message
    assert created.value.__cause__ is None


def test_reads_are_tried_again_a_few_times(scripted: ThreadingHTTPServer) -> None:
    scripted.script = (503, "SlowDown")  # type: ignore[attr-defined]
    endpoint = f"http://127.0.0.1:{scripted.server_port}"
    store = open_store("s3://bucket", endpoint=endpoint, allow_http=True, session=session())
    with pytest.raises(Transient):
        store.get("a")
    assert scripted.seen == ["GET"] * 3  # type: ignore[attr-defined]


class _Cut(_Scripted):
    """Promises more than it sends, or sends other bytes than its checksum says."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"abc"')
        self.send_header("Last-Modified", "Thu, 01 Oct 2026 10:00:00 GMT")
        if self.path.endswith("cut"):
            self.send_header("Content-Length", "100")
        else:
            self.send_header("Content-Length", "3")
            self.send_header("x-amz-checksum-crc32", "AAAAAA==")
        self.end_headers()
        self.wfile.write(b"abc")
        self.close_connection = True


@pytest.mark.parametrize("key", ["cut", "flipped"])
def test_a_body_that_is_not_whole_or_not_as_its_checksum_says_is_transient(key: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Cut)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    store: S3Store = open_store("s3://bucket", endpoint=endpoint, allow_http=True, session=session())
    with pytest.raises(Transient):
        store.get(key)
    with pytest.raises(Transient):
        store.fetch(key, io.BytesIO())
    server.shutdown()
    server.server_close()
    thread.join()
