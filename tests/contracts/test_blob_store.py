"""The Blob store on Azurite, held to the store contract; and what only Azure can get wrong."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from azure.storage import blob as azure_blob

from core.errors import ConfigError, Denied, Exists, Missing, Stale, StoreError, Transient
from core.reader import open_reader
from core.store import ObjectStore
from handlers_azure.store import BlobStore, open_store
from tests.contracts.store_contract import UniqueTokenContract
from tests.emulators.emulator import Emulator

ENV = {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "a2V5"}


class TestBlobStore(UniqueTokenContract):
    increments = 10

    @pytest.fixture
    def store(self, azurite: Emulator) -> ObjectStore:
        return azurite.open(azurite.new_store_url())


class TestBlobStoreBelowAPrefix(UniqueTokenContract):
    workers, increments, many = 4, 10, 20

    @pytest.fixture
    def store(self, azurite: Emulator) -> ObjectStore:
        url = azurite.new_store_url()
        neighbour = azurite.open(url)
        neighbour.put("teams/beside", b"not listed")
        neighbour.put("teams/a", b"not listed either")
        return azurite.open(f"{url}/teams/a")


@pytest.fixture
def url(azurite: Emulator) -> str:
    return azurite.new_store_url()


@pytest.fixture
def store(azurite: Emulator, url: str) -> BlobStore:
    store = azurite.open(url)
    assert isinstance(store, BlobStore)
    return store


@pytest.fixture
def as_deployed(azurite: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azurite.env().items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("as_deployed")
def test_the_predict_path_reads_what_the_store_wrote(url: str) -> None:
    for place in (url, f"{url}/teams/a"):
        open_store(place, allow_http=True).put("reg/_models/überraschung 1%2F.json", b"{}")
        reader = open_reader(place, allow_http=True)
        assert reader.get("reg/_models/überraschung 1%2F.json") == b"{}"
        assert reader.keys("reg/_models/") == ["reg/_models/überraschung 1%2F.json"]
        with pytest.raises(Missing):
            reader.get("reg/_models/none.json")


def test_a_connection_string_opens_the_account(azurite: Emulator, url: str) -> None:
    env = azurite.env()
    text = (
        f"DefaultEndpointsProtocol=http;AccountName={env['AZURE_STORAGE_ACCOUNT_NAME']};"
        f"AccountKey={env['AZURE_STORAGE_ACCOUNT_KEY']};BlobEndpoint={env['AZURE_STORAGE_ENDPOINT']};"
    )
    store = open_store(url, allow_http=True, env={"AZURE_STORAGE_CONNECTION_STRING": text})
    store.put("a", b"1")
    assert azurite.open(url).get("a").data == b"1"


@pytest.mark.parametrize(
    ("url", "env", "setting"),
    [
        ("s3://bucket", ENV, "POLYSKY_STORE"),
        ("az://", ENV, "POLYSKY_STORE"),
        ("az://container/../up", ENV, "POLYSKY_STORE"),
        ("az://container", {}, "AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://container", {**ENV, "AZURE_STORAGE_ENDPOINT": "http://plain:1/account"}, "POLYSKY_ALLOW_HTTP"),
        ("az://container", {**ENV, "AZURE_STORAGE_ACCOUNT_KEY": "not base64"}, "ACCOUNT_KEY"),
    ],
)
def test_what_cannot_be_opened_names_the_setting_not_its_value(
    url: str, env: dict[str, str], setting: str
) -> None:
    with pytest.raises(ConfigError, match=setting) as caught:
        open_store(url, env=env)
    assert "plain" not in caught.value.message
    assert "not base64" not in caught.value.message


def test_a_missing_container_is_not_an_empty_store(azurite: Emulator) -> None:
    store = azurite.open("az://never-made")
    for act in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: list(store.list(""))):
        with pytest.raises(Denied, match="container does not exist"):
            act()


def test_a_wrong_key_is_denied_and_told_without_url_or_key(azurite: Emulator, url: str) -> None:
    env = {**azurite.env(), "AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="}
    store = open_store(url, allow_http=True, env=env)
    for act in (lambda: store.get("a"), lambda: store.put_if_absent("a", b""), lambda: list(store.list(""))):
        with pytest.raises(Denied) as caught:
            act()
        assert "http" not in caught.value.message
        assert caught.value.__cause__ is None


def test_an_unreachable_account_is_transient(azurite: Emulator, url: str) -> None:
    env = {**azurite.env(), "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9/devstoreaccount1"}
    store = open_store(url, allow_http=True, env=env)
    with pytest.raises(Transient):
        store.put_if_absent("a", b"")
    with pytest.raises(Transient):
        store.put_if_match("a", b"", "0x1")


def test_a_blob_is_streamed_in_chunks_of_one_generation(store: BlobStore) -> None:
    data = bytes(range(256)) * 40_000
    token = store.put("big", data)
    sizes: list[int] = []

    class Counting(io.BytesIO):
        def write(self, chunk: object) -> int:
            sizes.append(len(chunk))  # type: ignore[arg-type]
            return super().write(chunk)  # type: ignore[arg-type]

    target = Counting()
    assert store.fetch("big", target, token).size == len(data)
    assert target.getvalue() == data
    assert max(sizes) <= 4 << 20


@pytest.mark.parametrize(("pinned", "expected"), [(True, Stale), (False, Transient)])
def test_a_blob_replaced_while_it_is_read_is_not_mixed(
    store: BlobStore, pinned: bool, expected: type[StoreError]
) -> None:
    token = store.put("doc", b"A" * 10_000_000)

    class Replacing(io.BytesIO):
        def write(self, chunk: object) -> int:
            store.put("doc", b"B" * 10_000_000)
            return super().write(chunk)  # type: ignore[arg-type]

    with pytest.raises(expected):
        store.fetch("doc", Replacing(), token if pinned else None)


def test_a_full_target_disk_is_transient(store: BlobStore) -> None:
    store.put("doc", b"1")

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(Transient, match="kept here"):
        store.fetch("doc", Full())


def test_bytes_come_as_they_lie_there_whatever_encoding_they_claim(store: BlobStore) -> None:
    blob = store._writing.get_blob_client("uploads/spam/a.csv")
    claim: Any = azure_blob.ContentSettings
    for encoding in ("gzip", "deflate"):
        blob.upload_blob(b"not gzip", overwrite=True, content_settings=claim(content_encoding=encoding))
        target = io.BytesIO()
        assert store.fetch("uploads/spam/a.csv", target).size == 8
        assert (store.get("uploads/spam/a.csv").data, target.getvalue()) == (b"not gzip", b"not gzip")


def test_folders_of_a_hierarchical_account_and_foreign_names_are_not_listed(store: BlobStore) -> None:
    store.put("uploads/spam/a.csv", b"1")
    store._writing.upload_blob("uploads/spam/sub", b"", metadata={"hdi_isfolder": "true"})
    store._writing.upload_blob("uploads/spam/odd//name", b"")
    assert [entry.key for entry in store.list("uploads/")] == ["uploads/spam/a.csv"]


class _Scripted(BaseHTTPRequestHandler):
    """Answers every request with the status and error code that the server's `script` says."""

    def _answer(self) -> None:
        script: tuple[int, str] = self.server.script  # type: ignore[attr-defined]
        self.server.seen.append(self.command)  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"<?xml version='1.0'?><Error><Code>{script[1]}</Code><Message>secret</Message></Error>".encode()
        self.send_response(script[0])
        self.send_header("x-ms-error-code", script[1])
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET = _answer

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
        ((409, "BlobAlreadyExists"), Exists, Transient),
        ((412, "ConditionNotMet"), Exists, Stale),
        ((412, "LeaseIdMissing"), Transient, Transient),
        ((409, "BlobBeingRehydrated"), Transient, Transient),
        ((404, "BlobNotFound"), Missing, Missing),
        ((403, "AuthorizationFailure"), Denied, Denied),
        ((400, "Md5Mismatch"), Transient, Transient),
        ((500, "InternalError"), Transient, Transient),
        ((503, "ServerBusy"), Transient, Transient),
    ],
)
def test_each_answer_of_the_service_has_one_meaning_and_writes_are_tried_once(
    scripted: ThreadingHTTPServer, script: tuple[int, str], create: type[StoreError], swap: type[StoreError]
) -> None:
    scripted.script = script  # type: ignore[attr-defined]
    endpoint = f"http://127.0.0.1:{scripted.server_port}/account"
    store = open_store("az://container", endpoint=endpoint, allow_http=True, env=ENV)
    with pytest.raises(create) as created:
        store.put_if_absent("a", b"1")
    with pytest.raises(swap) as swapped:
        store.put_if_match("a", b"1", "0x1")
    assert (type(created.value), type(swapped.value)) == (create, swap)
    assert scripted.seen == ["PUT", "PUT"]  # type: ignore[attr-defined]
    assert "secret" not in json.dumps([created.value.message, swapped.value.message])
