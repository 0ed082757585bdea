"""Google Cloud Storage, held to the store contract; and what only it can get wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from core.errors import ConfigError, Denied, Exists, InvalidName, Missing, Stale, Transient
from core.reader import open_reader
from core.store import ObjectStore
from handlers_gcp.store import GcsStore, open_store
from tests.contracts.store_contract import LEGAL_KEYS, UniqueTokenContract
from tests.emulators.gcs import Gcs, lying


class TestGcsStore(UniqueTokenContract):
    increments = 40

    @pytest.fixture
    def store(self, gcs: Gcs) -> ObjectStore:
        return gcs.open(gcs.new_store_url())


@pytest.fixture
def url(gcs: Gcs) -> str:
    return gcs.new_store_url()


@pytest.fixture
def store(gcs: Gcs, url: str) -> ObjectStore:
    return gcs.open(url)


def test_a_prefix_makes_a_store_of_its_own(gcs: Gcs, url: str) -> None:
    inner, outer = gcs.open(url + "/team/a/"), gcs.open(url)
    token = inner.put("uploads/x", b"1")
    gcs.upload(url + "/team/a", "uploads/y", b"2")
    outer.put("team/ab/uploads/z", b"3")
    assert outer.get("team/a/uploads/x") == (b"1", token)
    assert [entry.key for entry in inner.list("")] == ["uploads/x", "uploads/y"]
    assert inner.head("uploads/y").key == "uploads/y"
    with pytest.raises(InvalidName):
        inner.put("s/" * 510 + "s", b"")


def test_folder_markers_of_the_console_are_no_objects(gcs: Gcs, url: str, store: ObjectStore) -> None:
    gcs.upload(url, "uploads/", b"")
    store.put("uploads/x", b"")
    assert [entry.key for entry in store.list("uploads/")] == ["uploads/x"]


@pytest.mark.parametrize("token", ["", "0", "-1", "1.5", "abc", "٣", "9" * 30])
def test_what_is_no_generation_is_stale_and_never_a_condition_less_write(store: ObjectStore, token: str) -> None:
    store.put("doc", b"1")
    with pytest.raises(Stale):
        store.put_if_match("doc", b"2", token)
    with pytest.raises(Stale):
        store.put_if_match("absent", b"2", token)
    with pytest.raises(Stale):
        store.get("doc", token)
    assert store.get("doc").data == b"1"


def test_a_large_object_goes_up_in_parts_under_the_same_conditions(store: ObjectStore) -> None:
    data = bytes(9 << 20)
    token = store.put_if_absent("large", data)
    with pytest.raises(Exists):
        store.put_if_absent("large", data)
    again = store.put_if_match("large", data + b"x", token)
    with pytest.raises(Stale):
        store.put_if_match("large", data, token)
    target = io.BytesIO()
    assert store.fetch("large", target, again).size == len(target.getvalue()) == len(data) + 1


def test_an_object_replaced_between_head_and_download_is_told_apart(gcs: Gcs, url: str) -> None:
    store = gcs.open(url)
    assert isinstance(store, GcsStore)
    token = store.put("doc", b"first")

    class Racing(GcsStore):
        def _head(self, key: str, blob: object) -> object:  # type: ignore[override]
            entry = super()._head(key, blob)
            gcs.upload(url, key, b"second")
            return entry

    racing = Racing(store._bucket)
    target = io.BytesIO()
    with pytest.raises(Stale):
        racing.fetch("doc", target, token)
    with pytest.raises(Transient):
        racing.fetch("doc", target)
    assert target.getvalue() == b""


def test_a_full_target_disk_is_transient(store: ObjectStore) -> None:
    store.put("doc", b"1")

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(Transient, match="ENOSPC"):
        store.fetch("doc", Full())


def test_a_bucket_that_does_not_exist_is_not_an_empty_store(gcs: Gcs) -> None:
    store = gcs.open("gs://nobodys-bucket")
    for act in (
        lambda: store.get("a"),
        lambda: store.head("a"),
        lambda: store.fetch("a", io.BytesIO()),
        lambda: store.put("a", b""),
        lambda: store.put_if_absent("a", b""),
        lambda: store.put_if_match("a", b"", "1"),
        lambda: store.delete("a"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(Denied, match="bucket does not exist"):
            act()


def test_a_server_that_is_away_is_transient_and_its_address_stays_unsaid(gcs: Gcs, url: str) -> None:
    with lying() as gone:
        endpoint = gone.endpoint
    store = gcs.open(url, endpoint)
    for act in (lambda: store.put_if_absent("a", b""), lambda: store.delete("a"), lambda: store.put("a", b"")):
        with pytest.raises(Transient) as caught:
            act()
        assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("size", [100, 9 << 20])
def test_a_write_whose_answer_is_lost_is_sent_once_and_of_unknown_outcome(gcs: Gcs, url: str, size: int) -> None:
    store, created = gcs.open(url), list[object]()
    gcs.watch(created.append)
    token = store.put("doc", b"1")
    for number in range(20):
        with gcs.lost_answers(), pytest.raises(Transient):
            store.put_if_absent(f"log/{number}", b"x" * size)
        with gcs.lost_answers(), pytest.raises(Transient):
            store.put_if_match("doc", b"2" * size, token)
        with gcs.lost_answers(), pytest.raises(Transient):
            store.get("doc")
        token = store.put("doc", b"1")
    landed = 20 if size == 100 else 0  # a large one is announced first, and that answer was lost
    assert len(list(store.list("log/"))) == landed
    gcs.unwatch(created.append)
    assert len(created) == 1 + 20 + 2 * landed
    with gcs.lost_answers(), pytest.raises(Transient):
        store.delete("doc")
    with pytest.raises(Missing):
        store.get("doc")


def test_the_reader_of_the_predict_path_reads_the_same_bucket(
    gcs: Gcs, url: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in gcs.env().items():
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


def test_the_reader_lists_past_the_first_page(gcs: Gcs, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in gcs.env().items():
        monkeypatch.setenv(name, value)
    keys = [f"many/{number:04d}" for number in range(1003)]
    store = gcs.open(url)
    for key in keys:
        store.put(key, b"")
    assert open_reader(url, allow_http=True).keys("many/") == keys


def test_an_unencrypted_endpoint_is_refused_unless_it_is_allowed(gcs: Gcs) -> None:
    with pytest.raises(ConfigError, match="not encrypted"):
        open_store("gs://bucket", endpoint=gcs.endpoint)


def test_the_emulators_variable_is_an_endpoint_too(gcs: Gcs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.endpoint)
    with pytest.raises(ConfigError, match="not encrypted"):
        open_store("gs://bucket")
    store = open_store(gcs.new_store_url(), allow_http=True)
    store.put("a", b"1")
    assert store.get("a").data == b"1"


@pytest.mark.parametrize(
    "text", ["s3://bucket", "gs://", "gs:///x", "bucket", "gs://bucket/../x", "gs://bucket//x//y"]
)
def test_other_urls_are_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(text)
    assert caught.value.fields["setting"] == "POLYSKY_STORE"


def test_a_lack_of_credentials_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/none.json")
    with pytest.raises(ConfigError, match="no credentials") as caught:
        open_store("gs://bucket")
    assert str(tmp_path) not in str(caught.value)


@pytest.fixture
def liar() -> Iterator[Gcs]:
    with lying() as emulator:
        yield emulator


def test_the_bare_emulator_accepts_what_it_must_refuse(liar: Gcs) -> None:
    store = liar.open(liar.new_store_url())
    first = store.put_if_absent("doc", b"1")
    store.put_if_absent("doc", b"2")
    store.put_if_match("doc", b"3", first)
    with pytest.raises(Transient, match="generation"):
        store.get("doc")
