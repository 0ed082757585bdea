"""Credentials: what is refused, how long a record is believed, and what a role may do."""

from __future__ import annotations

import json
import random
import string
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import auth
from core.auth import PERMISSIONS, ROLES, Principal, RateLimited, Verifier, check_of, credential
from core.errors import CoreError, Denied, Forbidden, Missing, Transient, Unauthorized, Unavailable
from core.store import MemoryStore
from core.tokens import create_token, revoke_token
from tests.core.house import Clock, entropy


class Spy:
    """A reader that counts, and fails when told to."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.keys: list[str] = []
        self.error: Exception | None = None
        self.delay_s = 0.0

    def get(self, key: str) -> bytes:
        self.keys.append(key)
        if self.delay_s:
            time.sleep(self.delay_s)
        if self.error:
            raise self.error
        return self.store.get(key).data


class Door:
    """A verifier over a store in memory, with one token."""

    def __init__(
        self, role: str = "predictor", *, ttl_s: float = 60.0, rate_per_s: float = 0.0, **options: Any
    ) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.spy = Spy(self.store)
        self.token, self.info = create_token(self.store, role, clock=self.clock, random_bytes=entropy(), **options)
        self.verifier = Verifier(self.spy, clock=self.clock, ttl_s=ttl_s, rate_per_s=rate_per_s)

    def enter(self, token: str | None = None) -> Principal:
        return self.verifier.authenticate({"authorization": f"Bearer {token or self.token}"})

    def refused(self, token: str | None = None) -> CoreError:
        with pytest.raises(CoreError) as caught:
            self.enter(token)
        return caught.value


def forged(kid: str, secret: str = "A" * 43) -> str:
    body = f"polysky_{kid}_{secret}"
    return f"{body}_{check_of(body)}"


# -- carriers and form


def test_a_token_is_taken_from_either_carrier() -> None:
    door = Door(label="ci")
    for headers in (
        {"authorization": f"Bearer {door.token}"},
        {"authorization": f"bearer {door.token}"},
        {"authorization": f"Bearer   {door.token} "},
        {"x-api-key": door.token},
        {"x-api-key": door.token, "authorization": f"Bearer {door.token}"},
    ):
        assert door.verifier.authenticate(headers).label == "ci"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic {t}"},
        {"authorization": "{t}"},
        {"authorization": "Bearer {t},Bearer {t}"},
        {"authorization": "Bearer {t}, Bearer {t}"},
        {"authorization": "Bearer {t} x"},
        {"authorization": "Bearer {t}\u00e9"},
        {"authorization": "Bearer \u0661" + "0" * 60},
        {"authorization": "Bearer " + "a" * 8192},
        {"authorization": "Bearer {t}\n"},
        {"x-api-key": "a" * 8192},
        {"x-api-key": ""},
        {"x-api-key": "{t},{t}"},
        {"x-api-key": "{t}", "authorization": "Bearer polysky_other"},
        {"x-api-key": "{t}", "authorization": "Basic x"},
    ],
)
def test_other_credentials_are_unauthorized_without_a_store_read(headers: dict[str, str]) -> None:
    door = Door()
    with pytest.raises(Unauthorized):
        door.verifier.authenticate({name: value.replace("{t}", door.token) for name, value in headers.items()})
    assert door.spy.keys == []


def test_no_credentials_are_none_and_a_scheme_is_needed() -> None:
    assert credential({}) is None
    assert credential({"x-api-key": "k"}) == "k"
    with pytest.raises(Unauthorized):
        credential({"authorization": "Digest x"})


@given(st.data())
def test_a_mutated_token_is_never_accepted(data: st.DataObject) -> None:
    door = MUTANTS
    token = door.token
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(string.printable + "é\ud800"))
    mutated = token[:position] + character + token[position + data.draw(st.integers(0, 2)) :]
    if mutated.strip(" ") != token:
        assert door.refused(mutated).code in ("unauthorized", "rate_limited")
    door.clock.now += 10.0


MUTANTS = Door()


def test_twenty_thousand_random_mutations_are_all_refused_as_unauthorized() -> None:
    door, rng = Door(), random.Random(5)
    for _ in range(20_000):
        letters = list(door.token)
        for _ in range(rng.randint(1, 3)):
            letters[rng.randrange(len(letters))] = rng.choice(string.printable)
        mutated = "".join(letters)
        door.clock.now += 1.0
        if mutated != door.token and mutated.strip(" ") != door.token:
            assert isinstance(door.refused(mutated), Unauthorized)
    assert door.enter().role == "predictor"


# -- records


def test_a_cold_check_reads_one_object_and_a_warm_one_none() -> None:
    door = Door()
    for _ in range(5):
        door.enter()
    assert door.spy.keys == [f"auth/tokens/{door.info.kid}.json"]


def test_a_wrong_checksum_is_refused_without_a_store_read() -> None:
    door = Door()
    assert door.refused(door.token[:-1] + ("0" if door.token[-1] != "0" else "1")).fields["reason"] == "malformed"
    assert door.spy.keys == []


def test_a_wrong_secret_and_an_unknown_kid_are_refused_and_read_once() -> None:
    door = Door()
    for _ in range(3):
        assert door.refused(forged(door.info.kid)).fields["reason"] == "invalid"
        assert door.refused(forged("0" * 12)).fields["reason"] == "invalid"
    assert len(door.spy.keys) == 2
    assert door.enter().kid == door.info.kid


def test_a_token_ends_at_its_expiry_even_while_cached() -> None:
    door = Door()
    token, _ = create_token(door.store, "admin", clock=door.clock, random_bytes=entropy(9), ttl_s=10.0)
    assert door.enter(token).role == "admin"
    door.clock.now += 9.9
    door.enter(token)
    door.clock.now += 0.2
    assert door.refused(token).fields["reason"] == "expired"


def test_a_revoked_token_is_refused_within_the_time_promised_and_at_once_when_cold() -> None:
    door = Door(ttl_s=3600.0)
    door.enter()
    revoke_token(door.store, door.info.kid, clock=door.clock)
    cold = Verifier(door.spy, clock=door.clock)
    with pytest.raises(Unauthorized):
        cold.authenticate({"x-api-key": door.token})
    door.clock.now += auth.MAX_TTL_S
    assert isinstance(door.refused(), Unauthorized)


def test_a_revocation_cut_after_its_mark_is_seen_by_warm_verifiers() -> None:
    door = Door()
    door.enter()
    door.store.put_if_absent(auth.revoked_key(door.info.kid), b"{}")
    door.clock.now += 61.0
    assert isinstance(door.refused(), Unauthorized)


def test_a_clock_that_went_back_does_not_prolong_a_record() -> None:
    door = Door()
    door.enter()
    revoke_token(door.store, door.info.kid, clock=door.clock)
    door.clock.now -= 7200.0
    assert isinstance(door.refused(), Unauthorized)


@pytest.mark.parametrize(
    "change",
    [{"digest": "x"}, {"digest": None}, {"role": "root"}, {"role": None}, {"role": ["admin"]}, {"models": "all"},
     {"models": [1]}, {"expires": "never"}, {"expires": True},
     {"expires": float("nan")}, {"expires": float("inf")}, {"revoked": 1.0}],
)  # fmt: skip
def test_a_record_that_is_not_well_formed_lets_nobody_in(change: dict[str, Any]) -> None:
    door = Door()
    key = auth.record_key(door.info.kid)
    record = json.loads(door.store.get(key).data)
    door.store.put(key, json.dumps(record | change).encode())
    assert door.refused().fields["reason"] == "invalid"


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_record_that_is_not_json_lets_nobody_in(data: bytes) -> None:
    door = Door()
    door.store.put(auth.record_key(door.info.kid), data)
    assert isinstance(door.refused(), Unauthorized)


# -- a store that fails


@pytest.mark.parametrize("error", [Transient("down"), Denied("no")])
def test_a_known_token_is_believed_for_ten_minutes_while_the_store_is_down(error: Exception) -> None:
    door = Door()
    door.enter()
    door.spy.error = error
    door.clock.now += 61.0
    for _ in range(10):
        door.enter()
    assert len(door.spy.keys) == 2  # the failed read is not repeated at once
    door.clock.now += 500.0
    door.enter()
    door.clock.now += 60.0
    assert isinstance(door.refused(), Unavailable)
    door.spy.error = None
    door.enter()


def test_an_unknown_token_is_unavailable_while_the_store_is_down() -> None:
    door = Door()
    door.spy.error = Transient("down")
    error = door.refused()
    assert isinstance(error, Unavailable)
    assert error.fields["retry_after_s"] > 0
    door.spy.error = Missing("gone")
    assert isinstance(door.refused(), Unauthorized)


# -- floods


def test_a_flood_of_unknown_tokens_is_slowed_down_without_reading_and_known_tokens_pass() -> None:
    door = Door()
    door.enter()
    answers = [door.refused(forged(f"{number:012d}")) for number in range(200)]
    limited = [error for error in answers if isinstance(error, RateLimited)]
    assert len(limited) == 200 - auth.FAILURES
    assert all(error.fields["retry_after_s"] > 0 for error in limited)
    assert len(door.spy.keys) <= 1 + auth.FAILURES
    assert door.enter().kid == door.info.kid
    door.clock.now += 10.0
    assert isinstance(door.refused(forged("Z" * 12)), Unauthorized)


def test_a_flood_of_wrong_secrets_for_a_known_kid_is_slowed_down_and_its_owner_passes() -> None:
    door = Door()
    answers = [door.refused(forged(door.info.kid, f"{number:043d}")) for number in range(50)]
    assert sum(isinstance(error, RateLimited) for error in answers) == 50 - auth.FAILURES
    assert door.enter().kid == door.info.kid
    assert len(door.spy.keys) == 1


def test_the_cache_of_unknown_kids_is_bounded() -> None:
    door = Door()
    door.enter()
    for number in range(auth.MAX_RECORDS + 100):
        door.clock.now += 0.01 if number % 100 else 20.0
        door.refused(forged(f"{number:012d}"))
    assert len(door.verifier._known) <= auth.MAX_RECORDS
    assert door.enter().role == "predictor"


def test_the_cache_of_valid_tokens_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_RECORDS", 4)
    door = Door()
    for seed in range(1, 12):
        token, _ = create_token(door.store, "metrics", clock=door.clock, random_bytes=entropy(seed))
        assert door.enter(token).role == "metrics"
    assert len(door.verifier._known) <= 4


def test_each_token_has_its_own_rate() -> None:
    door = Door(rate_per_s=2.0)
    other, _ = create_token(door.store, "admin", clock=door.clock, random_bytes=entropy(3))
    for _ in range(4):
        door.enter()
    error = door.refused()
    assert isinstance(error, RateLimited)
    assert error.fields["retry_after_s"] == pytest.approx(0.5)
    door.enter(other)
    door.clock.now += 0.5
    door.enter()
    assert isinstance(door.refused(), RateLimited)


def test_however_many_callers_come_few_rates_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.auth.MAX_RECORDS", 4)
    door = Door(rate_per_s=2.0)
    for number in range(20):
        door.verifier.limit(f"caller {number}", door.clock())
        assert len(door.verifier._rates) <= 4


def test_many_threads_at_once_read_a_record_once() -> None:
    door = Door()
    door.spy.delay_s = 0.02
    labels: list[str] = []
    threads = [threading.Thread(target=lambda: labels.append(door.enter().label)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(labels) == 50
    assert len(door.spy.keys) == 1


def test_while_one_thread_reads_a_record_again_the_others_do_not_wait() -> None:
    door = Door()
    door.enter()
    door.clock.now += 50.0
    door.spy.delay_s = 0.5
    slow = threading.Thread(target=door.enter)
    slow.start()
    time.sleep(0.05)
    started = time.perf_counter()
    door.enter()
    assert time.perf_counter() - started < 0.3
    slow.join()


# -- what a role may do


def test_roles_hold_what_the_house_plan_gives_them() -> None:
    assert ROLES["predictor"] >= {"predict", "model:read"}
    assert ROLES["trainer"] >= ROLES["predictor"] | {"train", "version:read", "feedback"}
    assert ROLES["admin"] == PERMISSIONS
    assert ROLES["metrics"] == {"metrics:read"}
    assert not ROLES["trainer"] & {"alias:move", "rollback", "retire", "audit:read", "metrics:read"}


def test_a_scope_and_a_role_are_enforced() -> None:
    principal = Door("trainer", models=["iris"]).enter()
    principal.require("train")
    principal.require_model("iris")
    assert (principal.sees("iris"), principal.sees("other")) == (True, False)
    with pytest.raises(Forbidden):
        principal.require("alias:move")
    with pytest.raises(Forbidden):
        principal.require_model("other")
    assert Door().enter().sees("anything")
    with pytest.raises(Forbidden):
        auth.ANONYMOUS.require_model("iris")
