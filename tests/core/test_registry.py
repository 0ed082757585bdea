"""The registry: versions, aliases, history, bytes and their collection."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest

from core.alias_docs import AliasDocs
from core.audit import Anchor
from core.errors import Conflict, Denied, Exists, IntegrityError, InvalidName, Missing, NotFound, Stale, Transient
from core.keys import alias_key, log_key, model_key
from core.ledger import Backoff
from core.registry import Registry
from core.state import Split
from core.store import Blob, Entry, MemoryStore
from core.versions import parse_document
from tests.core.ledgers import MODEL, Clock, alias, claim, open_registry, sha, src_of, train, version_of

A, B, C = version_of("a"), version_of("b"), version_of("c")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def registry(store: MemoryStore, clock: Clock) -> Registry:
    registry = open_registry(store, clock)
    for name in "abc":
        train(registry, name)
        clock.now += 10
    return registry


def document(store: MemoryStore, ref: str) -> dict[str, Any]:
    """Return the alias document that the predict path would read."""
    found: dict[str, Any] = json.loads(store.get(alias_key(MODEL, ref)).data)
    return found


# --- moving


def test_a_published_version_is_listed_with_its_metrics_newest_first(registry: Registry) -> None:
    registry.move(MODEL, "staging", B, op_id="1", gate={"passed": False, "reason": "worse"})
    views = registry.versions(MODEL)
    assert [view.version for view in views] == [C, B, A]
    assert views[1].aliases == ("staging",)
    assert views[1].gate == {"passed": False, "reason": "worse"}
    assert views[2].metrics == {"accuracy": 0.9}
    assert [view.created for view in views] == [1020.0, 1010.0, 1000.0]


def test_models_are_listed_once_they_have_a_ledger(store: MemoryStore, registry: Registry) -> None:
    other = registry.ledger("another")
    assert registry.models() == [MODEL]
    other.append(lambda _: {"op": "note"}, "op")
    store.put(model_key("marked-only"), b"{}")
    store.put("reg/_models/NOT A NAME.json", b"{}")
    assert registry.models() == ["another", MODEL]


def test_an_alias_moves_and_answers_with_its_revision(registry: Registry) -> None:
    first = registry.move(MODEL, "production", A, op_id="1")
    second = registry.move(
        MODEL, "production", B, expect_rev=1, op_id="2", actor="ann", role="admin", reason="why"
    )
    assert (first.rev, second.rev) == (1, 2)
    assert second.splits == (Split(B, 100),)
    entry = registry.ledger(MODEL).entry(second.n)
    assert (entry["actor"], entry["role"], entry["reason"]) == ("ann", "admin", "why")


def test_a_move_from_an_old_revision_conflicts(registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    with pytest.raises(Conflict):
        registry.move(MODEL, "production", B, expect_rev=0, op_id="2")
    assert registry.resolve(MODEL, "production") == (Split(A, 100),)


def test_a_repeated_move_is_answered_as_the_first_was(registry: Registry) -> None:
    first = registry.move(MODEL, "production", A, op_id="1")
    registry.move(MODEL, "production", B, op_id="2")
    assert registry.move(MODEL, "production", A, op_id="1") == first
    assert registry.resolve(MODEL, "production") == (Split(B, 100),)


def test_an_op_id_used_for_something_else_is_a_conflict(registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    with pytest.raises(Conflict, match="something else"):
        registry.move(MODEL, "production", B, op_id="1")
    with pytest.raises(Conflict, match="something else"):
        registry.retire(MODEL, B, op_id="1")
    with pytest.raises(Conflict, match="something else"):
        registry.rollback(MODEL, op_id="1")


def test_an_alias_can_be_shared_by_weight(registry: Registry, store: MemoryStore) -> None:
    moved = registry.move(MODEL, "production", [(A, 90), (B, 10)], op_id="1")
    assert moved.splits == (Split(A, 90), Split(B, 10))
    assert [(share["version"], share["weight"]) for share in document(store, "production")["splits"]] == [
        (A, 90),
        (B, 10),
    ]


def test_unknown_and_retired_versions_take_no_alias(registry: Registry) -> None:
    registry.retire(MODEL, A, op_id="1")
    with pytest.raises(NotFound):
        registry.move(MODEL, "production", "v-000000000000", op_id="2")
    with pytest.raises(Conflict):
        registry.move(MODEL, "production", A, op_id="3")
    with pytest.raises(InvalidName):
        registry.move(MODEL, "No Name", B, op_id="4")
    with pytest.raises(Conflict, match="previous"):
        registry.move(MODEL, "previous", B, op_id="5")


def test_a_roll_back_returns_to_where_production_was_and_again_forward(registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    registry.move(MODEL, "production", B, op_id="2")
    assert registry.rollback(MODEL, op_id="3").splits == (Split(A, 100),)
    assert registry.rollback(MODEL, op_id="3").rev == 3
    assert registry.resolve(MODEL, "previous") == (Split(B, 100),)
    assert registry.rollback(MODEL, op_id="4").splits == (Split(B, 100),)
    assert registry.rollback(MODEL, to=C, op_id="5").splits == (Split(C, 100),)


def test_a_roll_back_to_nowhere_is_a_clear_conflict(registry: Registry) -> None:
    with pytest.raises(Conflict, match="nothing to roll back to"):
        registry.rollback(MODEL, op_id="1")
    registry.move(MODEL, "production", A, op_id="2")
    with pytest.raises(Conflict, match="nothing to roll back to"):
        registry.rollback(MODEL, op_id="3")
    with pytest.raises(NotFound):
        registry.rollback(MODEL, to="v-000000000000", op_id="4")


def test_a_version_in_use_is_not_retired(registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    registry.move(MODEL, "production", B, op_id="2")
    for version in (A, B):
        with pytest.raises(Conflict, match="alias points"):
            registry.retire(MODEL, version, op_id=f"retire {version}")
    assert registry.retire(MODEL, C, op_id="3").retired == 1030.0
    with pytest.raises(Conflict, match="retired"):
        registry.resolve(MODEL, C)
    with pytest.raises(NotFound):
        registry.retire(MODEL, "v-000000000000", op_id="4")


def test_a_reference_is_a_version_or_an_alias(registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    assert registry.resolve(MODEL, "production") == registry.resolve(MODEL, A)
    with pytest.raises(NotFound):
        registry.resolve(MODEL, "staging")
    with pytest.raises(NotFound):
        registry.resolve("unknown", "production")
    with pytest.raises(InvalidName):
        registry.resolve("../m", "production")


def test_a_zombie_cannot_publish(store: MemoryStore, registry: Registry) -> None:
    registry.append(MODEL, lambda _: claim("z"), op_id="z1")
    registry.append(MODEL, lambda _: claim("z", 2), op_id="z2")
    key, digest = registry.put_artifact(MODEL, src_of("z"), 1, b"zombie")
    with pytest.raises(Conflict, match="later attempt"):
        registry.publish(
            MODEL,
            src=src_of("z"),
            attempt=1,
            version=version_of("z"),
            manifest_sha256=digest,
            artifact_key=key,
            size=6,
            metrics={},
            op_id="z3",
        )


# --- history


def test_history_says_what_production_was_at_a_time(registry: Registry, clock: Clock) -> None:
    for n, version in enumerate((A, B, C)):
        clock.now = 2000.0 + 100 * n
        registry.move(MODEL, "production", version, op_id=f"{n}", actor=f"actor-{n}", reason=f"reason {n}")
    assert registry.history(MODEL, at=1999.0).aliases == {}
    for at, version, former in ((2000.0, A, None), (2150.0, B, A), (2199.9, B, A), (1e12, C, B)):
        aliases = registry.history(MODEL, at=at).aliases
        assert aliases["production"].splits == (Split(version, 100),)
        assert (aliases["previous"].splits[0].version if former else None) == former
    newest = registry.history(MODEL, limit=2).entries
    assert [(entry["actor"], entry["reason"]) for entry in newest] == [
        ("actor-2", "reason 2"),
        ("actor-1", "reason 1"),
    ]
    assert [entry["op"] for entry in registry.history(MODEL, at=2000.0, limit=3).entries] == [
        "alias",
        "publish",
        "claim",
    ]
    with pytest.raises(NotFound):
        registry.history("unknown")


# --- alias documents


def test_the_document_of_an_alias_is_all_that_a_reader_needs(store: MemoryStore, registry: Registry) -> None:
    moved = registry.move(MODEL, "production", A, op_id="1")
    found = document(store, "production")
    seal = found.pop("sha256")
    told = json.dumps([alias_key(MODEL, "production"), found], sort_keys=True).replace(" ", "")
    assert seal == hashlib.sha256(told.encode()).hexdigest()
    write_id = found.pop("write_id")
    assert len(write_id) == 16
    version = registry.state(MODEL).versions[A]
    assert found == {
        "rev": 1,
        "log_n": moved.n,
        "splits": [
            {
                "version": A,
                "weight": 100,
                "artifact_key": version.artifact_key,
                "manifest_sha256": version.manifest_sha256,
            }
        ],
    }
    assert document(store, A)["splits"] == found["splits"]


def test_a_retired_version_has_a_document_without_splits(store: MemoryStore, registry: Registry) -> None:
    registry.retire(MODEL, A, op_id="1")
    assert (document(store, A)["rev"], document(store, A)["splits"]) == (2, [])


def test_previous_has_its_document_too(store: MemoryStore, registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    registry.move(MODEL, "production", B, op_id="2")
    assert document(store, "previous")["splits"][0]["version"] == A


def documents(store: MemoryStore) -> AliasDocs:
    return AliasDocs(store, random.Random(1), Backoff(lambda pause_s: None, random.Random(1)))


def test_a_document_is_never_replaced_by_an_older_one(store: MemoryStore, registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    old = registry.state(MODEL)
    registry.move(MODEL, "production", B, op_id="2")
    assert not documents(store).write(old, "production")
    assert document(store, "production")["rev"] == 2


def test_a_lagging_or_missing_document_is_repaired(store: MemoryStore, registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    registry.append(MODEL, lambda _: alias("production", "b", 1), op_id="no document")
    store.delete(alias_key(MODEL, C))
    assert document(store, "production")["rev"] == 1
    assert registry.repair_aliases(MODEL) == ["previous", "production", C]
    assert document(store, "production")["rev"] == 2
    assert registry.repair_aliases(MODEL) == []


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"rev": "x"}', b'{"rev": 99, "splits": []}', b"[" * 100_000]
)
def test_a_damaged_document_is_left_by_writers_and_mended_by_repair(
    store: MemoryStore, registry: Registry, damage: bytes
) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    store.put(alias_key(MODEL, "production"), damage)
    assert not documents(store).write(registry.state(MODEL), "production")
    assert registry.repair_aliases(MODEL) == ["production"]
    assert document(store, "production")["splits"][0]["version"] == A


def test_a_document_of_0_1_is_read_and_sealed_by_repair(store: MemoryStore, registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    key, found = alias_key(MODEL, "production"), document(store, "production")
    del found["sha256"]
    store.put(key, json.dumps(found).encode())
    assert parse_document(store.get(key).data, key).splits[0].version == A
    assert registry.repair_aliases(MODEL) == ["production"]
    assert "sha256" in document(store, "production")


class Contended(MemoryStore):
    """Raises what it is told to, once each, when an alias document is written."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    def put_if_absent(self, key: str, data: bytes) -> str:
        self._trip(key)
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        self._trip(key)
        return super().put_if_match(key, data, token)

    def _trip(self, key: str) -> None:
        if "/alias/" in key and self.errors:
            raise self.errors.pop(0)


def test_a_document_write_that_loses_a_race_is_tried_again() -> None:
    store = Contended()
    registry = open_registry(store)
    train(registry, "a")
    store.errors = [Exists("x"), Stale("x")]
    registry.move(MODEL, "production", A, op_id="1")
    assert document(store, "production")["rev"] == 1


def test_a_document_write_that_fails_for_now_is_tried_again_so_that_the_move_is_served() -> None:
    store = Contended()
    registry = open_registry(store)
    train(registry, "a")
    store.errors = [Transient("503") for _ in range(4)]
    registry.move(MODEL, "production", A, op_id="1")
    assert document(store, "production")["rev"] == 1


def test_aliases_alone_can_be_repaired(store: MemoryStore, registry: Registry) -> None:
    registry.move(MODEL, "production", A, op_id="1")
    store.delete(alias_key(MODEL, "production"))
    store.delete(alias_key(MODEL, C))
    assert registry.repair_aliases(MODEL, aliases_only=True) == ["production"]
    assert registry.repair_aliases(MODEL) == [C]


def test_a_commit_stands_though_its_document_cannot_be_written() -> None:
    store = Contended()
    registry = open_registry(store)
    train(registry, "a")
    store.errors = [Transient("503") for _ in range(5)]
    assert registry.move(MODEL, "production", A, op_id="1").rev == 1
    store.errors = [Exists("x")] * 3
    registry.move(MODEL, "staging", A, op_id="2")
    with pytest.raises(Missing):
        store.get(alias_key(MODEL, "production"))
    store.errors = [Exists("x")]
    assert registry.repair_aliases(MODEL) == ["staging"]
    assert registry.repair_aliases(MODEL) == ["production"]


# --- bytes


def test_an_artifact_is_stored_under_its_source_attempt_and_hash(store: MemoryStore, registry: Registry) -> None:
    key, digest = registry.put_artifact(MODEL, src_of("x"), 2, b"model")
    assert key == f"reg/m/art/{src_of('x')[:12]}/2/{sha('model')}"
    assert (digest, store.get(key).data) == (sha("model"), b"model")
    assert registry.put_artifact(MODEL, src_of("x"), 2, b"model") == (key, digest)


def test_a_store_that_gives_back_other_bytes_is_found_out() -> None:
    class Rotten(MemoryStore):
        def get(self, key: str, token: str | None = None) -> Blob:
            blob = super().get(key, token)
            return Blob(b"rotten", blob.token) if "/art/" in key else blob

    with pytest.raises(IntegrityError):
        open_registry(Rotten()).put_artifact(MODEL, src_of("x"), 1, b"model")


def test_an_artifact_whose_write_was_not_answered_is_there_or_is_transient() -> None:
    class Mute(MemoryStore):
        lands = True

        def put_if_absent(self, key: str, data: bytes) -> str:
            if self.lands:
                super().put_if_absent(key, data)
            raise Transient("503")

    store = Mute()
    open_registry(store).put_artifact(MODEL, src_of("x"), 1, b"model")
    store.lands = False
    with pytest.raises(Transient):
        open_registry(store).put_artifact(MODEL, src_of("x"), 1, b"other")


# --- whole log


def test_a_log_is_verified_by_name(store: MemoryStore, registry: Registry) -> None:
    state = registry.state(MODEL)
    assert registry.verify_log(MODEL) is None
    assert registry.verify_log(MODEL, Anchor(state.head, state.hash)) is None
    assert registry.verify_log(MODEL, Anchor(state.head, "0" * 64)) == state.head
    store.delete(log_key(MODEL, 2))
    assert registry.verify_log(MODEL) == 2


def test_denied_is_not_missing() -> None:
    class Shut(MemoryStore):
        def head(self, key: str) -> Entry:
            raise Denied("no")

    store = Shut()
    store.put(model_key(MODEL), b"{}")
    with pytest.raises(Denied):
        open_registry(store).models()


def test_ids_for_calls_that_must_not_merge_differ(registry: Registry) -> None:
    assert len({registry.new_id() for _ in range(1000)}) == 1000
