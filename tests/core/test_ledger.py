"""The ledger: exactly-once appends, recovery from checkpoints, and a chain that shows every change."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from core import audit
from core.errors import Conflict, CoreError, Denied, Exists, IntegrityError, Missing, Transient, Unavailable
from core.keys import checkpoint_key, log_key, model_key, number_of
from core.ledger import CHECKPOINT_EVERY, Ledger, canonical, digest_of, parse_entry
from core.state import State
from core.store import Blob, Entry, MemoryStore, ObjectStore
from tests.contracts.store_contract import in_threads
from tests.core.ledgers import MODEL, add, alias, claim, open_ledger, publish, src_of, version_of


def filled(count: int) -> tuple[MemoryStore, Ledger]:
    """Return a store with a log of `count` entries of every kind."""
    store = MemoryStore()
    ledger = open_ledger(store)
    n = rev = 0
    while ledger.refresh().head + 1 < count:
        n += 1
        add(ledger, claim(f"s{n}"))
        if n % 7 == 0:
            add(ledger, {"op": "reject", "src": src_of(f"s{n}"), "attempt": 1, "reason": "schema"})
            continue
        add(ledger, publish(f"s{n}"))
        if n % 2:
            add(ledger, alias("production", f"s{n}", rev, gate={"passed": True}))
            rev += 1
    return store, ledger


def same(a: State, b: State) -> bool:
    """Return whether two states agree in everything."""
    return all(getattr(a, name) == getattr(b, name) for name in State.__slots__)


def test_an_entry_carries_its_number_its_envelope_and_the_hash_of_the_one_before() -> None:
    store = MemoryStore()
    ledger = open_ledger(store, now=7.5)
    add(ledger, claim("a"), publish("a", reason="first", role="trainer", actor="me"))
    first, second = (store.get(log_key(MODEL, n)).data for n in (0, 1))
    entry = parse_entry(second)
    assert entry["n"] == 1
    assert entry["prev"] == digest_of(first)
    assert (entry["actor"], entry["role"], entry["reason"], entry["ts"]) == ("me", "trainer", "first", 7.5)
    assert parse_entry(first)["actor"] == "tester"
    assert parse_entry(first)["prev"] == "0" * 64
    assert second == canonical(entry)


def test_an_op_id_has_one_effect_however_often_it_is_used() -> None:
    store = MemoryStore()
    made = [open_ledger(store).append(lambda _: claim("a"), "op") for _ in range(3)]
    assert made[0] == made[1] == made[2]
    assert len(list(store.list("reg/m/log/"))) == 1


def test_an_illegal_entry_writes_nothing() -> None:
    store = MemoryStore()
    with pytest.raises(Conflict) as caught:
        open_ledger(store).append(lambda _: publish("a"), "op")
    assert caught.value.fields["rule"] == "unclaimed"
    assert list(store.list("")) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_an_entry_that_is_not_strict_json_is_refused(value: Any) -> None:
    with pytest.raises(Conflict, match="strict JSON"):
        open_ledger(MemoryStore()).append(lambda _: {"op": "note", "told": value}, "op")


def test_an_entry_over_the_limit_is_refused() -> None:
    with pytest.raises(Conflict, match="too long"):
        open_ledger(MemoryStore()).append(lambda _: {"op": "note", "told": "x" * (1 << 20)}, "op")


def test_the_first_entry_lists_the_model() -> None:
    store = MemoryStore()
    add(open_ledger(store), claim("a"))
    assert store.get(model_key(MODEL)).data == b"{}"


def test_writers_on_threads_lose_nothing_and_double_nothing() -> None:
    store = MemoryStore()

    def write(me: int) -> None:
        ledger = open_ledger(store)
        for n in range(25):
            told = {"op": "note", "told": [me, n]}
            ledger.append(lambda _, told=told: told, f"{me}.{n}")  # type: ignore[misc]

    in_threads(6, write)
    entries = [parse_entry(store.get(entry.key).data) for entry in store.list("reg/m/log/")]
    assert sorted(entry["told"] for entry in entries) == [[me, n] for me in range(6) for n in range(25)]
    assert audit.verify(store, MODEL) is None


def test_one_ledger_serves_many_threads() -> None:
    ledger = open_ledger(MemoryStore())

    def write(me: int) -> None:
        for n in range(25):
            ledger.append(lambda _: {"op": "note"}, f"{me}.{n}")
            assert ledger.refresh().seen(f"{me}.{n}") is not None

    in_threads(4, write)
    assert ledger.refresh().head == 99


def test_a_state_in_hand_does_not_change_under_later_appends() -> None:
    ledger = open_ledger(MemoryStore())
    before = add(ledger, claim("a"))
    add(ledger, publish("a"), alias("production", "a", 0))
    assert before.head == 0
    assert before.sources[src_of("a")].status == "claimed"
    assert not before.versions
    assert not before.aliases


# --- outcomes of a write


class Scripted(MemoryStore):
    """Answers log creations as the script says: ok, before (no effect), after, late, down, denied, taken."""

    def __init__(self, *script: str) -> None:
        super().__init__()
        self.script = list(script)
        self.creations: list[tuple[str, bytes]] = []
        self.held: list[tuple[str, bytes]] = []
        self.down = False

    def get(self, key: str, token: str | None = None) -> Blob:
        if self.down:
            raise Transient("down")
        return super().get(key, token)

    def put_if_absent(self, key: str, data: bytes) -> str:
        if "/log/" not in key:
            return super().put_if_absent(key, data)
        self.creations.append((key, data))
        act = "down" if self.down else self.script.pop(0) if self.script else "ok"
        if act == "denied":
            raise Denied("no")
        if act == "late":
            self.held.append((key, data))
        if act == "taken":
            told = json.loads(data)
            rival = {name: told[name] for name in ("n", "prev", "actor", "role", "reason", "ts")}
            super().put_if_absent(key, canonical({**rival, "op_id": f"rival-{told['n']}", "op": "note"}))
            raise Exists("taken")
        if act == "down":
            self.down = True
        if act in ("after", "ok"):
            token = super().put_if_absent(key, data)
            if act == "ok":
                return token
        raise Transient("503")

    def land(self) -> None:
        """Let what was held arrive."""
        for key, data in self.held:
            super().put_if_absent(key, data)


def test_a_lost_answer_is_success_once() -> None:
    store = Scripted("after")
    entry = open_ledger(store).append(lambda _: claim("a"), "op")
    assert entry["n"] == 0
    assert len(list(store.list("reg/m/log/"))) == 1


def test_a_failed_write_is_sent_again_to_the_same_key_with_the_same_bytes() -> None:
    store = Scripted("before", "before", "after")
    open_ledger(store).append(lambda _: claim("a"), "op")
    assert len(set(store.creations)) == 1
    assert len(store.creations) == 4


def test_a_lost_race_moves_to_the_next_slot() -> None:
    store = Scripted("taken", "before", "taken")
    entry = open_ledger(store).append(lambda _: claim("a"), "op")
    assert entry["n"] == 2
    assert [parse_entry(body)["op_id"] for body in log_of(store)] == ["rival-0", "rival-1", "op"]


def test_an_unknown_outcome_says_so_and_the_same_op_id_settles_it() -> None:
    store = Scripted(*["before"] * 4, "late")
    ledger = open_ledger(store)
    with pytest.raises(Unavailable) as caught:
        ledger.append(lambda _: claim("a"), "op")
    assert caught.value.fields["op_id"] == "op"
    assert caught.value.fields["retry_after_s"] > 0
    store.land()
    assert ledger.append(lambda _: claim("a"), "op")["n"] == 0
    assert len(list(store.list("reg/m/log/"))) == 1


def test_an_unknown_outcome_that_never_lands_is_written_by_the_retry() -> None:
    store = Scripted(*["before"] * 5)
    ledger = open_ledger(store)
    with pytest.raises(Unavailable):
        ledger.append(lambda _: claim("a"), "op")
    assert ledger.append(lambda _: claim("a"), "op")["n"] == 0


def test_a_late_landing_is_seen_by_the_next_operation() -> None:
    store = Scripted(*["before"] * 4, "late")
    ledger = open_ledger(store)
    with pytest.raises(Unavailable):
        ledger.append(lambda _: claim("a"), "first")
    store.land()
    assert ledger.append(lambda _: publish("a"), "second")["n"] == 1


def test_an_outage_after_the_write_is_unknown_and_before_it_is_transient() -> None:
    store = Scripted("down")
    ledger = open_ledger(store)
    with pytest.raises(Unavailable) as caught:
        ledger.append(lambda _: claim("a"), "op")
    assert caught.value.fields["op_id"] == "op"
    with pytest.raises(Transient):
        ledger.append(lambda _: claim("a"), "op")


def test_a_refused_write_is_denied_unless_an_earlier_try_may_have_landed() -> None:
    with pytest.raises(Denied):
        open_ledger(Scripted("denied")).append(lambda _: claim("a"), "op")
    with pytest.raises(Unavailable):
        open_ledger(Scripted("before", "denied")).append(lambda _: claim("a"), "op")


def test_endless_races_end_in_unavailable() -> None:
    class Rival(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            if "/log/" in key:
                entry = json.loads(data)
                if entry["op_id"] == "op":
                    entry |= {"op": "note", "op_id": f"rival-{entry['n']}"}
                    super().put_if_absent(key, canonical(entry))
                    raise Exists("taken")
            return super().put_if_absent(key, data)

    with pytest.raises(Unavailable, match="too many writers"):
        open_ledger(Rival()).append(lambda _: {"op": "note"}, "op")


def test_retries_wait_with_full_jitter() -> None:
    waits: list[float] = []
    store = Scripted(*["before"] * 4)
    Ledger(store, MODEL, clock=lambda: 0.0, sleep=waits.append, rng=random.Random(3), actor="w").append(
        lambda _: claim("a"), "op"
    )
    assert len(waits) == 4
    assert all(0 <= wait <= 0.05 * 2**n for n, wait in enumerate(waits))
    assert len(set(waits)) == 4


# --- damage


def test_a_cut_reply_is_read_again() -> None:
    class Cut(MemoryStore):
        cuts = 2

        def get(self, key: str, token: str | None = None) -> Blob:
            blob = super().get(key, token)
            if "/log/" in key and self.cuts:
                self.cuts -= 1
                return Blob(blob.data[:20], blob.token)
            return blob

    store = Cut()
    store.cuts = 0
    add(open_ledger(store), claim("a"))
    store.cuts = 2
    assert open_ledger(store).refresh().head == 0


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"n": NaN}', b"[" * 100_000])
def test_a_broken_entry_stops_the_ledger_and_is_named(damage: bytes) -> None:
    store, _ = filled(4)
    store.put(log_key(MODEL, 2), damage)
    with pytest.raises(IntegrityError) as caught:
        open_ledger(store).refresh()
    assert caught.value.fields == {"model": MODEL, "n": 2}
    ledger = open_ledger(MemoryStore())
    ledger._store = store
    with pytest.raises(IntegrityError):
        ledger.entry(2)


def test_a_broken_chain_stops_the_ledger() -> None:
    store, _ = filled(4)
    entry = parse_entry(store.get(log_key(MODEL, 1)).data)
    store.put(log_key(MODEL, 1), canonical({**entry, "actor": "mallory"}))
    with pytest.raises(IntegrityError):
        open_ledger(store).refresh()


def test_a_refused_read_is_not_an_empty_log() -> None:
    class Shut(MemoryStore):
        def get(self, key: str, token: str | None = None) -> Blob:
            raise Denied("no")

    with pytest.raises(Denied):
        open_ledger(Shut()).refresh()


# --- checkpoints


class Counting(MemoryStore):
    """Counts the reads."""

    reads = 0

    def get(self, key: str, token: str | None = None) -> Blob:
        self.reads += 1
        return super().get(key, token)


def copied(store: MemoryStore, into: MemoryStore | None = None) -> MemoryStore:
    """Return a copy of a store."""
    target = into or MemoryStore()
    for entry in store.list(""):
        target.put(entry.key, store.get(entry.key).data)
    return target


@pytest.mark.parametrize("count", [1, 63, 64, 65, 66, 127, 128, 129, 130, 300])
def test_a_cold_start_reads_a_checkpoint_and_at_most_64_entries(count: int) -> None:
    store, ledger = filled(count)
    cold = copied(store, Counting())
    assert isinstance(cold, Counting)
    state = open_ledger(cold).refresh()
    assert same(state, ledger.refresh())
    assert cold.reads <= CHECKPOINT_EVERY + 4


def test_checkpoints_are_pinned_by_the_chain() -> None:
    store, _ = filled(140)
    numbers = [number_of(entry.key) for entry in store.list("reg/m/ckpt/")]
    assert numbers == [63, 127]
    for n in (63, 127):
        pin = parse_entry(store.get(log_key(MODEL, n + 1)).data)["ckpt"]
        assert pin == digest_of(store.get(checkpoint_key(MODEL, n)).data)


def _forged(body: bytes) -> bytes:
    """A checkpoint whose own hash is right but whose state is not."""
    document = json.loads(body)
    document["state"]["aliases"]["production"][1] = [[version_of("s1"), 100]]
    return canonical(document)


DAMAGE = {
    "a flipped bit": lambda body: bytes([body[0] ^ 1]) + body[1:],
    "a late flipped bit": lambda body: body[:-30] + bytes([body[-30] ^ 1]) + body[-29:],
    "half of it": lambda body: body[: len(body) // 2],
    "nothing": lambda body: b"",
    "a forged state": _forged,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_forged_checkpoint_is_ignored(name: str) -> None:
    store, ledger = filled(140)
    for n in (63, 127):
        store.put(checkpoint_key(MODEL, n), DAMAGE[name](store.get(checkpoint_key(MODEL, n)).data))
    assert same(open_ledger(store).refresh(), ledger.refresh())


@pytest.mark.parametrize("change", [{"format": 99}, {"state": None}, {"state": {}}, {"n": 5}])
def test_a_checkpoint_of_another_form_is_ignored_even_if_the_chain_names_it(change: dict[str, Any]) -> None:
    """As a newer or an older version of the code would write it."""
    store = MemoryStore()
    ledger = open_ledger(store)
    add(ledger, *[{"op": "note"}] * 65)
    body = canonical({**json.loads(store.get(checkpoint_key(MODEL, 63)).data), **change})
    store.put(checkpoint_key(MODEL, 63), body)
    entry = parse_entry(store.get(log_key(MODEL, 64)).data)
    store.put(log_key(MODEL, 64), canonical({**entry, "ckpt": digest_of(body)}))
    state = open_ledger(store).refresh()
    assert (state.head, len(state.ops)) == (64, 65)


def test_correctness_does_not_depend_on_list() -> None:
    class Blind(MemoryStore):
        def list(self, prefix: str) -> Iterator[Entry]:
            raise Denied("no")

    store, ledger = filled(140)
    blind = copied(store, Blind())
    assert same(open_ledger(blind).refresh(), ledger.refresh())

    class Empty(MemoryStore):
        def list(self, prefix: str) -> Iterator[Entry]:
            return iter(())

    assert same(open_ledger(copied(store, Empty())).refresh(), ledger.refresh())


def test_a_store_that_takes_no_checkpoints_still_takes_entries() -> None:
    class Picky(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            if "/ckpt/" in key:
                raise Transient("503")
            return super().put_if_absent(key, data)

    store, ledger = Picky(), None
    ledger = open_ledger(store)
    for n in range(70):
        ledger.append(lambda _: {"op": "note"}, f"{n}")
    assert open_ledger(store).refresh().head == 69
    assert list(store.list("reg/m/ckpt/")) == []


def test_a_checkpoint_whose_entry_cannot_be_read_is_passed_over() -> None:
    class Flaky(MemoryStore):
        shut = False

        def get(self, key: str, token: str | None = None) -> Blob:
            if self.shut and "/ckpt/" in key:
                raise Denied("no")
            return super().get(key, token)

    store, ledger = filled(70)
    flaky = copied(store, Flaky())
    assert isinstance(flaky, Flaky)
    flaky.shut = True
    assert same(open_ledger(flaky).refresh(), ledger.refresh())


# --- verify


def log_of(store: ObjectStore) -> list[bytes]:
    """Return the bytes of all entries."""
    return [store.get(entry.key).data for entry in store.list("reg/m/log/")]


def with_log(bodies: list[bytes]) -> MemoryStore:
    """Return a store that holds just these entries."""
    store = MemoryStore()
    for n, body in enumerate(bodies):
        store.put(log_key(MODEL, n), body)
    return store


@pytest.fixture(scope="module")
def sound() -> list[bytes]:
    return log_of(filled(90)[0])


def anchor(bodies: list[bytes]) -> audit.Anchor:
    return audit.Anchor(len(bodies) - 1, digest_of(bodies[-1]))


def edited(body: bytes) -> bytes:
    return canonical({**parse_entry(body), "actor": "mallory"})


def test_a_sound_log_verifies(sound: list[bytes]) -> None:
    assert audit.verify(with_log(sound), MODEL) is None
    assert audit.verify(with_log(sound), MODEL, anchor(sound)) is None
    assert audit.verify(MemoryStore(), MODEL) is None


def test_every_edit_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound)):
        changed = [*sound[:n], edited(sound[n]), *sound[n + 1 :]]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == n
    for n in range(len(sound) - 1):
        changed = [*sound[:n], edited(sound[n]), *sound[n + 1 :]]
        assert audit.verify(with_log(changed), MODEL) == n


def test_an_edit_of_a_link_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound) - 1):
        entry = canonical({**parse_entry(sound[n]), "prev": "f" * 64})
        assert audit.verify(with_log([*sound[:n], entry, *sound[n + 1 :]]), MODEL) == n


def test_every_removal_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound)):
        store = with_log(sound)
        store.delete(log_key(MODEL, n))
        assert audit.verify(store, MODEL, anchor(sound)) == n
        closed_up = [*sound[:n], *sound[n + 1 :]]
        assert audit.verify(with_log(closed_up), MODEL, anchor(sound)) == n


def test_every_swap_is_found_at_its_first_index(sound: list[bytes]) -> None:
    rng = random.Random(5)
    for _ in range(60):
        low, high = sorted(rng.sample(range(len(sound)), 2))
        changed = list(sound)
        changed[low], changed[high] = sound[high], sound[low]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == low


def test_every_insertion_is_found_at_its_index(sound: list[bytes]) -> None:
    for n in range(len(sound)):
        previous = digest_of(sound[n - 1]) if n else "0" * 64
        foreign = {**parse_entry(sound[n]), "op": "note", "op_id": "foreign", "n": n, "prev": previous}
        changed = [*sound[:n], canonical(foreign), *sound[n:]]
        assert audit.verify(with_log(changed), MODEL, anchor(sound)) == n


def test_a_cut_tail_is_found_by_the_anchor_or_a_checkpoint(sound: list[bytes]) -> None:
    assert audit.verify(with_log(sound[:50]), MODEL, anchor(sound)) == 50
    assert audit.verify(with_log(sound[:50]), MODEL) is None
    store = with_log(sound[:50])
    store.put(checkpoint_key(MODEL, 63), b"{}")
    assert audit.verify(store, MODEL) == 50


@pytest.mark.parametrize("damage", [b"", b"null", b"{}", b"\xff"])
def test_an_entry_that_is_no_entry_is_found(sound: list[bytes], damage: bytes) -> None:
    for n in (0, 1, 40, len(sound) - 1):
        assert audit.verify(with_log([*sound[:n], damage, *sound[n + 1 :]]), MODEL) == n
    assert audit.verify(with_log([*sound[:40], edited(sound[40]), sound[41], damage, *sound[43:]]), MODEL) == 40


def test_an_illegal_entry_is_found_though_the_chain_holds() -> None:
    bodies = log_of(filled(5)[0])[:5]
    entry = {**parse_entry(bodies[-1]), "n": 5, "prev": digest_of(bodies[-1]), "op_id": "x"}
    assert audit.verify(with_log([*bodies, canonical(entry)]), MODEL) == 5


def test_a_verifier_without_access_does_not_call_the_log_sound() -> None:
    class Shut(MemoryStore):
        def get(self, key: str, token: str | None = None) -> Blob:
            raise Denied("no")

    with pytest.raises(CoreError):
        audit.verify(Shut(), MODEL)


def test_an_absent_entry_is_missing() -> None:
    with pytest.raises(Missing):
        open_ledger(MemoryStore()).entry(0)
