"""The stores that live on this machine, held to the store contract; and what only a folder can get wrong."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ConfigError, Denied, Exists, InvalidName, Missing, Stale, Transient
from core.local_store import LocalStore, open_store
from core.store import MemoryStore
from tests.contracts.store_contract import UniqueTokenContract

ROOT = Path(__file__).parents[2]


class TestMemoryStore(UniqueTokenContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestLocalStore(UniqueTokenContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(str(tmp_path / "store"), fsync=False)


class TestDurableLocalStore(UniqueTokenContract):
    workers = 4
    increments = 20
    many = 50

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(str(tmp_path / "store"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"), fsync=False)


def test_a_key_is_a_file_that_people_can_copy_in_and_out(store: LocalStore) -> None:
    folder = Path(store.root, "uploads", "spam")
    folder.mkdir(parents=True)
    (folder / "new data.csv").write_bytes(b"text,label\n")
    assert [entry.key for entry in store.list("uploads/")] == ["uploads/spam/new data.csv"]
    assert store.get("uploads/spam/new data.csv").data == b"text,label\n"
    store.put("uploads/spam/other.csv", b"x")
    assert (folder / "other.csv").read_bytes() == b"x"


def test_a_folder_that_does_not_exist_is_an_empty_store(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "not" / "yet"))
    assert list(store.list("")) == []
    with pytest.raises(Missing):
        store.get("a")
    store.put("a", b"1")
    assert store.get("a").data == b"1"


def test_links_are_never_followed(store: LocalStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"secret")
    store.put("legal/x", b"1")
    os.symlink(secret / "file", Path(store.root, "link.csv"))
    os.symlink(secret, Path(store.root, "linked"))
    for key in ("link.csv", "linked/file"):
        with pytest.raises(Missing):
            store.get(key)
        with pytest.raises(Missing):
            store.head(key)
        with pytest.raises(Missing):
            store.fetch(key, io.BytesIO())
    with pytest.raises(InvalidName):
        store.put("linked/new", b"x")
    with pytest.raises(Missing):
        store.put_if_match("link.csv", b"x", "token")
    with pytest.raises(Exists):
        store.put_if_absent("link.csv", b"x")
    store.delete("linked/file")
    assert [entry.key for entry in store.list("")] == ["legal/x"]
    assert [path.name for path in secret.iterdir()] == ["file"]
    assert (secret / "file").read_bytes() == b"secret"


def test_replacing_a_link_replaces_the_link_not_its_target(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    store.put("a/x", b"")
    os.symlink(outside, Path(store.root, "a", "link"))
    store.put("a/link", b"mine")
    assert store.get("a/link").data == b"mine"
    assert outside.read_bytes() == b"untouched"


def test_special_files_are_no_objects(store: LocalStore) -> None:
    store.put("a", b"")
    os.mkfifo(Path(store.root, "pipe"))
    with pytest.raises(Missing):
        store.get("pipe")
    assert [entry.key for entry in store.list("")] == ["a"]


def test_names_that_no_key_can_spell_are_passed_over(store: LocalStore) -> None:
    store.put("a", b"")
    os.close(os.open(os.fsencode(store.root) + b"/caf\xe9.csv", os.O_CREAT | os.O_WRONLY))
    Path(store.root, "back\\slash").write_bytes(b"")
    assert [entry.key for entry in store.list("")] == ["a"]


def test_a_file_where_a_folder_must_be_is_an_invalid_name(store: LocalStore) -> None:
    store.put("a", b"")
    with pytest.raises(InvalidName):
        store.put("a/b", b"")
    store.put("folder/x", b"")
    with pytest.raises(InvalidName):
        store.put("folder", b"")


def test_tokens_rise_even_when_the_clock_stands_still(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), fsync=False, clock_ns=lambda: 1_700_000_000_000_000_000)
    tokens = [store.put("doc", b"same size") for _ in range(50)]
    assert len(set(tokens)) == 50
    for old in tokens[:-1]:
        with pytest.raises(Stale):
            store.put_if_match("doc", b"same size", old)


def test_a_file_that_grows_while_it_is_read_is_not_taken_for_whole(store: LocalStore) -> None:
    path = Path(store.root, "uploads", "m", "x.csv")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"first\n")
    token = store.head("uploads/m/x.csv").token

    class Growing(io.BytesIO):
        def write(self, data: object) -> int:
            with path.open("ab") as file:
                file.write(b"more\n")
            os.utime(path, ns=(1, time.time_ns() + 10**9))
            return 0

    with pytest.raises(Transient):
        store.fetch("uploads/m/x.csv", Growing())
    with pytest.raises(Stale):
        store.fetch("uploads/m/x.csv", Growing(), token)
    path.write_bytes(b"first\n")
    with pytest.raises(Stale):
        store.fetch("uploads/m/x.csv", Growing(), store.head("uploads/m/x.csv").token)


def test_a_pinned_read_survives_the_replacement_of_its_file(store: LocalStore) -> None:
    token = store.put("doc", b"A" * 3_000_000)

    class Replacing(io.BytesIO):
        def write(self, data: object) -> int:
            store.put("doc", b"B" * 3_000_000)
            return super().write(bytes(data))  # type: ignore[call-overload]

    target = Replacing()
    store.fetch("doc", target, token)
    assert target.getvalue() == b"A" * 3_000_000


def test_a_full_target_disk_is_transient(store: LocalStore) -> None:
    store.put("doc", b"1")

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(Transient, match="ENOSPC"):
        store.fetch("doc", Full())


def test_a_write_that_does_not_fit_is_transient_and_leaves_nothing(store: LocalStore) -> None:
    store.put("doc", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(Transient):
            store.put("doc", b"x" * 5000)
        with pytest.raises(Transient):
            store.put_if_absent("new", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.get("doc").data == b"old"
    assert [entry.key for entry in store.list("")] == ["doc"]
    assert os.listdir(Path(store.root, ".tmp")) == ["lock"]


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Act as a user whom file modes bind, also where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_the_system_forbids_is_denied_not_missing(
    store: LocalStore, tmp_path: Path, unprivileged: None
) -> None:
    path = Path(os.path.realpath("/tmp"), f"polysky-denied-{os.getpid()}-{time.time_ns()}")
    denied = LocalStore(str(path), fsync=False)
    denied.put("a/b", b"1")
    os.chmod(path / "a", 0)
    try:
        for act in (lambda: denied.get("a/b"), lambda: denied.put("a/c", b""), lambda: denied.delete("a/b")):
            with pytest.raises(Denied):
                act()
        with pytest.raises(Denied):
            list(denied.list(""))
    finally:
        os.chmod(path / "a", 0o700)
        (path / "a" / "b").unlink()
        (path / ".tmp" / "lock").unlink()
        for folder in (path / "a", path / ".tmp", path):
            folder.rmdir()


def test_leftovers_of_killed_writers_are_swept_after_a_day(tmp_path: Path) -> None:
    spool = tmp_path / ".tmp"
    spool.mkdir()
    old, young = spool / "old", spool / "young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))
    store = LocalStore(str(tmp_path), fsync=False)
    store.put("a", b"")
    assert not old.exists()
    assert young.exists()
    assert [entry.key for entry in store.list("")] == ["a"]


KILLED = """
import sys
from core.local_store import LocalStore
store = LocalStore(sys.argv[1])
token = store.put("doc", b"0" * 200_000)
n = 0
while True:
    n += 1
    body = str(n % 10).encode() * 200_000
    store.put_if_absent(f"log/{n:06d}", body)
    token = store.put_if_match("doc", body, token)
    print(n, flush=True)
"""


def test_kill_9_in_the_middle_of_a_write_leaves_whole_files(tmp_path: Path) -> None:
    for turn in range(4):
        root = tmp_path / str(turn)
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.02 + 0.013 * turn)
        writer.send_signal(signal.SIGKILL)
        told = [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.stdout.close()
        writer.wait()
        store = LocalStore(str(root))
        for entry in store.list(""):
            data = store.get(entry.key).data
            assert len(data) == 200_000
            assert len(set(data)) == 1
        logged = [entry.key for entry in store.list("log/")]
        acked = max(told, default=1)
        assert logged[:acked] == [f"log/{n:06d}" for n in range(1, acked + 1)]
        store.put_if_match("doc", b"free", store.get("doc").token)


WORKER = """
import sys
from core.local_store import LocalStore
from tests.contracts.store_contract import add_one
store = LocalStore(sys.argv[1], fsync=False)
for _ in range(50):
    while not add_one(store):
        pass
"""


def test_processes_lose_no_increments_either(store: LocalStore) -> None:
    store.put("counter", b"0")
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, store.root], cwd=ROOT) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert store.get("counter").data == b"150"


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_store_opens_by_path_or_file_url(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "my store"
    url = form.format(str(folder) if form == "{}" else str(folder).replace(" ", "%20"))
    assert open_store(url).root == str(folder)


@pytest.mark.parametrize("url", ["s3://bucket/x", "file://host/x", "file://x", "http://user:secret@h/x"])
def test_other_urls_are_a_configuration_error_that_names_the_setting(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "POLYSKY_STORE" in caught.value.message
    assert "secret" not in caught.value.message
