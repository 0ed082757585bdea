"""A registry copied to another store: whole, verified, never half seen, never over anything else."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.backup import Copied, Copier
from core.errors import Conflict, Denied, IntegrityError, Missing, Transient
from core.keys import alias_key, log_key, model_key
from core.ledger import digest_of
from core.local_store import open_store
from core.store import Blob, MemoryStore, ObjectStore
from core.tokens import create_token, list_tokens, revoke_token
from tests.core.ledgers import MODEL, Clock, filled, open_registry, train, version_of
from tests.emulators.emulator import Emulator

DAY_S = 86_400.0


def copy(source: ObjectStore, target: ObjectStore, **more: Any) -> Copied:
    """Copy without waiting."""
    return Copier(source, target, sleep=lambda _: None, rng=random.Random(2), **more).run()


def token(store: ObjectStore) -> str:
    """Create a token; return its key id."""
    return create_token(store, "admin", clock=lambda: 5.0, random_bytes=os.urandom)[1].kid


@pytest.fixture
def source() -> MemoryStore:
    """A store with three versions, one of which is retired, aliases, and two tokens."""
    store = MemoryStore()
    registry = open_registry(store)
    for name in ("a", "b", "c"):
        train(registry, name)
    for n, name in enumerate(("a", "b", "c")):
        registry.move(MODEL, "production", version_of(name), op_id=f"move-{n}")
    registry.retire(MODEL, version_of("a"), op_id="retire")
    token(store)
    revoke_token(store, token(store), clock=lambda: 6.0)
    store.put("uploads/m/waiting.csv", b"x")
    return store


def held(store: ObjectStore) -> dict[str, bytes]:
    """Return all that a store holds but what is random in the documents of aliases."""
    found = {entry.key: store.get(entry.key).data for entry in store.list("")}
    for key in [key for key in found if "/alias/" in key]:
        plain = json.loads(found[key])
        del plain["write_id"], plain["sha256"]
        found[key] = json.dumps(plain, sort_keys=True).encode()
    return found


@pytest.fixture(params=["memory", "folder", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return open_store(str(tmp_path / "copy"))
    moto: Emulator = request.getfixturevalue("moto")
    return moto.open(moto.new_store_url())


def test_the_copy_is_the_registry_and_goes_there_and_back(source: MemoryStore, target: ObjectStore) -> None:
    copied = copy(source, target)
    assert (copied.models, copied.artifacts, copied.tokens) == (1, 2, 2)
    wanted = {key: data for key, data in held(source).items() if key.startswith(("reg/", "auth/"))}
    gone = {key for key in wanted if digest_of(b"a") in key}
    assert len(gone) == 1  # the bytes of the retired version
    assert held(target) == {key: data for key, data in wanted.items() if key not in gone}
    assert list_tokens(target) == list_tokens(source)
    back = MemoryStore()
    copy(target, back)
    assert held(back) == held(target)


def test_the_copy_can_be_worked_on(source: MemoryStore, target: ObjectStore) -> None:
    copy(source, target)
    registry = open_registry(target)
    assert registry.verify_log(MODEL) is None
    assert registry.rollback(MODEL, op_id="back").splits[0].version == version_of("b")
    train(registry, "d")
    with pytest.raises(Conflict, match="a history of its own of m, from entry"):
        copy(source, target)


def test_an_earlier_copy_is_brought_up_to_date(source: MemoryStore, target: ObjectStore) -> None:
    kid = token(source)
    copy(source, target)
    assert copy(source, target).created == 0
    registry = open_registry(source)
    train(registry, "d")
    registry.move(MODEL, "production", version_of("d"), op_id="more")
    registry.retire(MODEL, version_of("b"), op_id="retire-b")
    revoke_token(source, kid, clock=lambda: 7.0)
    assert copy(source, target).created > 0
    after = held(target)
    assert {key: held(source)[key] for key in after} == after
    assert json.loads(target.get(alias_key(MODEL, version_of("b"))).data)["splits"] == []
    assert {info.kid for info in list_tokens(target) if info.revoked is not None} >= {kid}


def _foreign_model(store: ObjectStore) -> None:
    store.put("reg/other/log/000000000000.json", b"{}")


def _foreign_token(store: ObjectStore) -> None:
    token(store)


def _foreign_history(store: ObjectStore) -> None:
    train(open_registry(store, seed=3), "z")


def _foreign_artifact(store: ObjectStore) -> None:
    donor = MemoryStore()
    train(open_registry(donor), "b")
    (key,) = (entry.key for entry in donor.list("reg/m/art/"))
    store.put(key, b"other")


@pytest.mark.parametrize("spoil", [_foreign_model, _foreign_token, _foreign_history])
def test_a_target_with_something_of_its_own_is_left_as_it_is(
    source: MemoryStore, spoil: Callable[[ObjectStore], None]
) -> None:
    target = MemoryStore()
    spoil(target)
    before = held(target)
    with pytest.raises(Conflict, match="of its own"):
        copy(source, target)
    assert held(target) == before


def test_other_bytes_where_an_artifact_belongs_are_never_replaced(source: MemoryStore) -> None:
    target = MemoryStore()
    _foreign_artifact(target)
    with pytest.raises(IntegrityError, match="other bytes"):
        copy(source, target)
    assert not list(target.list("reg/m/log/"))


def test_tokens_stay_out_of_it_when_told_so(source: MemoryStore) -> None:
    target = MemoryStore()
    kid = token(target)
    assert copy(source, target, tokens=False).tokens == 0
    assert [info.kid for info in list_tokens(target)] == [kid]


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"role": ', b"\xff", b"[" * 100_000])
def test_a_damaged_record_of_a_token_is_told(source: MemoryStore, damaged: bytes) -> None:
    key = next(entry.key for entry in source.list("auth/tokens/"))
    whole, target = source.get(key).data, MemoryStore()
    copy(source, target)
    for place, store in (("source", source), ("target", target)):
        store.put(key, damaged)
        with pytest.raises(IntegrityError, match=f"in the {place} is damaged.*{key}"):
            copy(source, target)
        store.put(key, whole)
    copy(source, target)


def test_a_damaged_source_is_refused(source: MemoryStore) -> None:
    for key, match in (
        (log_key(MODEL, 3), "the log is broken"),
        (next(e.key for e in source.list("reg/m/art/") if digest_of(b"b") in e.key), "artifact of the source"),
    ):
        whole, target = source.get(key).data, MemoryStore()
        source.put(key, whole[:-1] + b"!")
        with pytest.raises(IntegrityError, match=match):
            copy(source, target)
        assert not list(target.list("reg/m/log/"))
        source.put(key, whole)
    source.delete(log_key(MODEL, 3))
    with pytest.raises(IntegrityError, match="an entry of the log is missing"):
        copy(source, MemoryStore())


class Stopping(MemoryStore):
    """A store that refuses every write after so many; each half state is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 10**9

    def _spend(self) -> None:
        if not self.left:
            raise Denied("no more")
        self.left -= 1

    def put_if_absent(self, key: str, data: bytes) -> str:
        self._spend()
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        self._spend()
        return super().put_if_match(key, data, token)


def check_reader(store: ObjectStore) -> None:
    """Whatever a reader finds leads on to whole things; a revoked token is revoked."""
    for entry in store.list("reg/"):
        if "/alias/" in entry.key:
            for split in json.loads(store.get(entry.key).data)["splits"]:
                assert digest_of(store.get(split["artifact_key"]).data) == split["artifact_key"].rpartition("/")[2]
        if entry.key == model_key(MODEL):
            assert open_registry(store).verify_log(MODEL) is None
            assert store.get(alias_key(MODEL, "production"))
    for entry in store.list("auth/tokens/"):
        kid = entry.key.rpartition("/")[2]
        if json.loads(store.get(entry.key).data)["revoked"] is not None:
            assert store.get(f"auth/revoked/{kid}")


def test_a_copy_cut_short_after_any_write_shows_no_half_state_and_is_taken_up(source: MemoryStore) -> None:
    whole = MemoryStore()
    writes = 0
    copy(source, whole)
    while True:
        target = Stopping()
        target.left = writes
        try:
            copy(source, target)
        except Denied:
            check_reader(target)
            target.left = 10**9
            copy(source, target)
            assert held(target) == held(whole), writes
            writes += 1
            continue
        break
    assert writes > 15


class Forgetful(MemoryStore):
    """A store that loses its first reply to a write of each key."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def put_if_absent(self, key: str, data: bytes) -> str:
        token = super().put_if_absent(key, data)
        if key not in self._told:
            self._told.add(key)
            raise Transient("no reply")
        return token


def test_lost_replies_change_nothing(source: MemoryStore) -> None:
    target, whole = Forgetful(), MemoryStore()
    copy(source, target)
    copy(source, whole)
    assert held(target) == held(whole)


class Collecting(MemoryStore):
    """A source whose version b is retired and collected as soon as its bytes are asked for."""

    armed = False

    def get(self, key: str, token: str | None = None) -> Blob:
        if self.armed and digest_of(b"b") in key:
            self.armed = False
            registry = open_registry(self, Clock(2000.0))
            registry.retire(MODEL, version_of("b"), op_id="late")
            open_registry(self, Clock(2000.0 + 2 * DAY_S)).collect_garbage(MODEL)
        return super().get(key, token)


def test_a_version_that_is_collected_meanwhile_is_retired_in_the_copy_too() -> None:
    source, target = Collecting(), MemoryStore()
    registry = open_registry(source)
    for name in ("b", "c"):
        train(registry, name)
    registry.move(MODEL, "production", version_of("c"), op_id="now")
    source.armed = True
    copy(source, target)
    assert open_registry(target).state(MODEL).versions[version_of("b")].retired is not None
    with pytest.raises(Missing):
        source.get(next((e.key for e in target.list("reg/m/art/") if digest_of(b"b") in e.key), "none"))


class Cutting(MemoryStore):
    """A store that loses the end of every artifact it is given."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        return super().put_if_absent(key, data[:-1] if "/art/" in key else data)


def test_a_target_that_does_not_give_back_what_it_was_given_is_told(source: MemoryStore) -> None:
    with pytest.raises(Conflict, match="other bytes at a key of the copy"):
        copy(source, Cutting())


def test_an_artifact_that_is_simply_missing_is_told(source: MemoryStore) -> None:
    source.delete(next(e.key for e in source.list("reg/m/art/") if digest_of(b"c") in e.key))
    with pytest.raises(IntegrityError, match="an artifact that the log names is missing"):
        copy(source, MemoryStore())


def test_checkpoints_that_the_log_vouches_for_are_copied() -> None:
    source, _ = filled(140)
    kept = [entry.key for entry in source.list("reg/m/ckpt/")]
    target = MemoryStore()
    copier = Copier(source, target, sleep=lambda _: None, rng=random.Random(2))
    copier._copy_log(copier._log(MODEL))  # the versions of this log are toys without bytes
    assert kept
    assert [entry.key for entry in target.list("reg/m/ckpt/")] == kept
