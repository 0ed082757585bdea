"""Creating, listing and revoking tokens."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from typing import Any

import pytest

from core.auth import ALPHABET, check_of, record_key, revoked_key
from core.errors import IntegrityError, InvalidInput, NotFound, Transient
from core.store import MemoryStore
from core.tokens import create_token, list_tokens, random_text, revoke_token
from tests.core.house import Clock, entropy


def create(store: MemoryStore, role: str = "admin", seed: int = 0, **options: Any) -> tuple[str, Any]:
    return create_token(store, role, clock=Clock(100.0 + seed), random_bytes=entropy(seed), **options)


def test_a_token_has_the_form_that_scanners_look_for_and_a_checksum() -> None:
    token, info = create(MemoryStore())
    found = re.fullmatch(r"polysky_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})", token)
    assert found is not None
    assert found[1] == info.kid
    value = 0
    for digit in found[3]:
        value = value * 62 + ALPHABET.index(digit)
    assert value == zlib.crc32(token[:-7].encode())
    assert check_of("") == "000000"


def test_the_store_holds_the_hash_and_never_the_token() -> None:
    store = MemoryStore()
    token, info = create(store, label="ci", models=["iris"], ttl_s=60)
    secret = token.split("_")[2]
    data = store.get(record_key(info.kid)).data.decode()
    assert secret not in data
    record = json.loads(data)
    assert (record["role"], record["models"], record["label"]) == ("admin", ["iris"], "ci")
    assert (record["created"], record["expires"]) == (100.0, 160.0)
    assert len(record["digest"]) == 64
    assert secret not in repr(list_tokens(store))


def test_tokens_are_listed_oldest_first_with_their_revocation() -> None:
    store = MemoryStore()
    infos = [create(store, seed=seed)[1] for seed in (2, 1, 3)]
    revoke_token(store, infos[0].kid, clock=Clock(500.0))
    store.put_if_absent(revoked_key(infos[2].kid), b"{}")  # a revocation that was cut
    listed = list_tokens(store)
    assert [info.kid for info in listed] == [infos[1].kid, infos[0].kid, infos[2].kid]
    assert [info.revoked is not None for info in listed] == [False, True, True]
    assert listed[1].revoked == 500.0
    assert listed[0].as_dict()["models"] is None


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"{}", b'{"digest": "", "models": null, "colour": 1}', b"[" * 100_000]
)
def test_a_damaged_record_is_named(data: bytes) -> None:
    store = MemoryStore()
    create(store)
    store.put("auth/tokens/AAAAAAAAAAAA.json", data)
    with pytest.raises(IntegrityError, match=r"auth/tokens/AAAAAAAAAAAA\.json"):
        list_tokens(store)


def test_revoking_is_repeatable_and_keeps_its_first_time() -> None:
    store = MemoryStore()
    _, info = create(store)
    revoke_token(store, info.kid, clock=Clock(500.0))
    assert revoke_token(store, info.kid, clock=Clock(900.0)).revoked == 500.0
    assert json.loads(store.get(revoked_key(info.kid)).data)["revoked"] == 500.0


def test_a_revocation_that_the_store_cut_is_finished_by_repeating_it() -> None:
    class Cutting(MemoryStore):
        cut = True

        def put(self, key: str, data: bytes) -> str:
            if self.cut:
                raise Transient("cut")
            return super().put(key, data)

    store = Cutting()
    _, info = create(store)
    with pytest.raises(Transient):
        revoke_token(store, info.kid, clock=Clock(500.0))
    store.cut = False
    revoke_token(store, info.kid, clock=Clock(600.0))
    assert json.loads(store.get(record_key(info.kid)).data)["revoked"] == 600.0


@pytest.mark.parametrize("kid", ["", "x", "../../reg/x", "A" * 12, "\u0661" * 12, "a" * 13])
def test_an_unknown_kid_is_not_found_and_touches_no_other_key(kid: str) -> None:
    with pytest.raises(NotFound):
        revoke_token(MemoryStore(), kid, clock=Clock())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"role": "root"}, "role"),
        ({"label": "x" * 65}, "label"),
        ({"label": "a\nb"}, "label"),
        ({"models": []}, "models"),
        ({"models": ["../x"]}, "models"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": float("nan")}, "ttl_s"),
        ({"ttl_s": float("inf")}, "ttl_s"),
        ({"ttl_s": 1e300}, "ttl_s"),
    ],
)
def test_a_bad_option_is_named_and_nothing_is_stored(options: dict[str, Any], field: str) -> None:
    store = MemoryStore()
    with pytest.raises(InvalidInput) as caught:
        create(store, **options)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert list(store.list("")) == []


def test_random_text_uses_each_character_equally() -> None:
    text = random_text(62_000, entropy(1))
    counts = Counter(text)
    assert len(text) == 62_000
    assert set(counts) == set(ALPHABET)
    chi_squared = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_squared < 120  # 61 degrees of freedom: over 120 happens once in 10^5
