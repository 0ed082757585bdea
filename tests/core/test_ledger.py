"""The ledger: exactly-once appends, recovery from checkpoints, and a chain that shows every change."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from core import audit
from core.errors import Conflict, Denied, Exists, IntegrityError, Missing, Transient, Unavailable
from core.keys import log_key, model_key
from core.ledger import Backoff, Ledger, canonical, digest_of, parse_entry
from core.store import Blob, MemoryStore
from tests.contracts.store_contract import in_threads
from tests.core.ledgers import MODEL, add, alias, claim, filled, log_of, open_ledger, publish, src_of


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
    """Answers log creations as the script says: ok, before (no effect), after, late, down, denied, taken, twin."""

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
        if act in ("taken", "twin"):
            told = json.loads(data)
            rival = {name: told[name] for name in ("n", "prev", "actor", "role", "reason", "ts")}
            op_id = told["op_id"] if act == "twin" else f"rival-{told['n']}"
            super().put_if_absent(key, canonical({**rival, "op_id": op_id, "op": "note"}))
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


def test_what_is_told_is_what_another_wrote_in_the_name_of_the_same_operation() -> None:
    store = Scripted("twin")
    entry = open_ledger(store).append(lambda _: claim("a"), "op")
    assert entry == parse_entry(log_of(store)[0])
    assert entry["op"] == "note"


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


def test_an_absent_entry_is_missing() -> None:
    with pytest.raises(Missing):
        open_ledger(MemoryStore()).entry(0)


def test_tries_of_one_backoff_within_another_do_not_multiply() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise Transient("down")

    backoff = Backoff(lambda seconds: None, random.Random(1))
    with pytest.raises(Transient):
        backoff.call(lambda: backoff.call(fail))
    assert len(calls) == 5


def test_a_store_that_creates_what_is_there_gets_no_entry() -> None:
    class Lying(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            return self.put(key, data)

    store = Lying()
    for _ in range(2):
        with pytest.raises(Denied, match="conditional writes"):
            add(open_ledger(store), claim("a"))
    assert log_of(store) == []


def test_a_store_is_asked_once_a_process_whether_it_honours_conditions() -> None:
    store = MemoryStore()
    asked: list[str] = []

    class Counting(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> str:
            asked.append(key)
            return store.put_if_absent(key, data)

        get, list = store.get, store.list

    ledger = open_ledger(Counting())
    add(ledger, claim("a"), publish("a"))
    assert asked.count(model_key(MODEL)) == 2
    add(open_ledger(Counting()), claim("b"))
    assert asked.count(model_key(MODEL)) == 3
