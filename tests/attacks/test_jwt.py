"""Access tokens of an issuer: classes of bad ones, mutations of good ones, and an issuer that is down."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from core import oidc
from core.auth import Principal
from core.config import Settings
from core.errors import ConfigError, Forbidden, Transient, Unauthorized, Unavailable
from tests.attacks.jwts import (
    AUDIENCE,
    ISSUER,
    NOW,
    claims,
    ec_jwk,
    ec_key,
    head,
    jwks,
    public_pem,
    rsa_jwk,
    rsa_key,
    spelt,
    token,
)
from tests.core.house import Clock, House, body_of, header
from tests.faults.scoreboard import record
from tests.faults.sizes import size

MUTATIONS = size(500, 20_000)
SET: dict[str, Any] = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": "https://id.example/jwks"}


class Door:
    """An issuer's verifier whose keys come from here."""

    def __init__(self, document: bytes = jwks(), **settings: Any) -> None:
        self.clock = Clock(NOW)
        self.document, self.fetches, self.down = document, 0, False
        keys = oidc.Keys(self._fetch, clock=self.clock)
        self.issuer = oidc.Issuer(Settings(**SET | settings), keys, clock=self.clock)

    def _fetch(self) -> bytes:
        self.fetches += 1
        if self.down:
            raise Transient("down")
        return self.document

    def enter(self, text: str) -> Principal:
        return self.issuer.principal(text)

    def reason(self, text: str) -> str:
        with pytest.raises(Unauthorized) as caught:
            self.enter(text)
        return str(caught.value.fields["reason"])


GOOD = token(head(), claims())
GOOD_EC = token(head(alg="ES256", kid="e1"), claims(), ec_key())
H, P, S = GOOD.split(".")
DEEP = b'{"alg":"RS256","kid":"r1","typ":"at+jwt","x":' + b"[" * 1200 + b"]" * 1200 + b"}"
BAD = {
    "no algorithm": token(head(alg="none"), claims(), b""),
    "no algorithm, oddly spelt": token(head(alg="nOnE"), claims(), b""),
    "no algorithm, signature kept": f"{spelt(json.dumps(head(alg='none')).encode())}.{P}.{S}",
    "a shared secret made of the public key": token(head(alg="HS256"), claims(), public_pem(rsa_key())),
    "another algorithm of the same key": token(head(alg="PS256"), claims()),
    "the key of the other algorithm": token(head(kid="e1"), claims()),
    "another's key under our key's id": token(head(), claims(), rsa_key("other")),
    "an unknown key": token(head(kid="r9"), claims()),
    "no key id": token(head(kid=None), claims()),
    "a key in the header": token(head(kid="r9", jwk=rsa_jwk("r9", rsa_key("other"))), claims(), rsa_key("other")),
    "an address of keys in the header": token(head(kid="r9", jku="https://x.example"), claims(), rsa_key("other")),
    "for another": token(head(), claims(aud="another")),
    "by another": token(head(), claims(iss="https://id.example.evil")),
    "from the future": token(head(), claims(iat=NOW + 31)),
    "not yet valid": token(head(), claims(nbf=NOW + 31)),
    "an extension that must be understood": token(head(crit=["x"], x=1), claims()),
    "expiry beyond numbers": token(head(), json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1e400').encode()),
    "expiry that is no number": token(head(), claims(exp=float("nan"))),
    "expiry as text": token(head(), claims(exp=str(NOW + 900))),
    "a deep header": token(DEEP, claims()),
    "a token of another type": token(head(typ="id+jwt"), claims()),
    "no type": token(head(typ=None), claims()),
    "claims that are no object": token(head(), [1]),
    "a header that is no object": token([1], claims()),
    "a subject that is no text": token(head(), claims(sub=7)),
    "a subject of two lines": token(head(), claims(sub="a\nb")),
    "an expiry of true": token(head(), claims(exp=True)),
    "no signature": f"{H}.{P}.",
    "the signature of another token": f"{H}.{spelt(json.dumps(claims(roles=['admin'])).encode())}.{S}",
    "an issuer in a list": token(head(), claims(iss=[ISSUER])),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_token_is_refused(text: str) -> None:
    assert Door().reason(text) in ("invalid", "malformed")


@pytest.mark.parametrize("name", oidc.REQUIRED)
def test_a_token_without_a_required_claim_is_refused(name: str) -> None:
    assert Door().reason(token(head(), claims(**{name: None}))) == "invalid"


def test_good_tokens_of_both_algorithms_make_the_same_principal() -> None:
    door = Door()
    found = door.enter(GOOD)
    assert found == door.enter(GOOD_EC)
    assert (found.role, found.label, found.models) == ("predictor", "oidc:user-7", None)
    assert found.kid.startswith("oidc-")
    with pytest.raises(Forbidden):
        found.require("train")


def test_an_audience_may_be_a_list_that_names_us() -> None:
    door = Door()
    assert door.enter(token(head(), claims(aud=["other", AUDIENCE]))).role == "predictor"
    assert door.reason(token(head(), claims(aud=["other"]))) == "invalid"


def test_times_have_half_a_minute_of_leeway_by_our_clock() -> None:
    door = Door()
    for text in (token(head(), claims(iat=NOW + 29)), token(head(), claims(nbf=NOW + 29))):
        assert door.enter(text)
    door.clock.now = NOW + 900 + 29
    assert door.enter(GOOD)
    door.clock.now = NOW + 900 + 30
    assert door.reason(GOOD) == "expired"


def test_a_long_token_is_refused_before_it_is_read() -> None:
    door = Door()
    assert door.reason(token(head(), claims(x="y" * 4096))) == "malformed"
    assert door.fetches == 0


def test_claims_map_to_roles_and_models() -> None:
    door = Door(oidc_claim="scope", oidc_roles={"ml:run": "predictor", "ml:all": "admin"}, oidc_models="models")

    def enter(**changed: Any) -> Principal:
        return door.enter(token(head(), claims(**changed)))

    assert enter(scope="openid ml:run").role == "predictor"
    assert enter(scope="ml:run ml:all").role == "admin"
    assert enter(scope="admin").permissions == frozenset()
    assert enter(scope="ml:run").models == frozenset()
    assert enter(scope="ml:run", models=["support", 7]).models == frozenset({"support"})
    assert enter(scope="ml:run", models="*").models is None
    assert enter(scope={"ml:all": 1}).role == ""


def test_mutated_tokens_are_never_taken() -> None:
    started, rng, door, taken = time.perf_counter(), random.Random(4), Door(), []
    for index in range(MUTATIONS):
        text = mutated(rng, GOOD if index % 2 else GOOD_EC)
        try:
            door.enter(text)
        except Unauthorized:
            continue
        taken.append(text)
    # what differs in the bits that base64 leaves unused is the same token
    forged = [text for text in taken if not _same(text)]
    record("mutated JWTs: accepted, or not 401", MUTATIONS, len(forged), time.perf_counter() - started)
    assert forged == [], "seed 4"
    assert door.fetches == 1


def mutated(rng: random.Random, good: str) -> str:
    """Return a token that is nearly `good`."""
    parts = good.split(".")
    kind, at = rng.randrange(7), rng.randrange(3)
    if kind == 0:
        position = rng.randrange(len(good))
        return good[:position] + rng.choice("ABCabc012-_.=+/ \x00é") + good[position + 1 :]
    if kind == 1:
        return good[: rng.randrange(len(good))]
    if kind == 2:
        parts[at] = spelt(rng.randbytes(rng.randrange(1, 200)))
    elif kind == 3:
        parts[at], parts[at - 1] = parts[at - 1], parts[at]
    elif kind == 4:
        name = rng.choice(["alg", "kid", "typ", "crit", "jku", "x5c", "b64", "zip"])
        parts[0] = spelt(json.dumps(head(**{name: _odd(rng)})).encode())
    elif kind == 5:
        name = rng.choice(["iss", "aud", "sub", "exp", "iat", "nbf", "roles"])
        parts[1] = spelt(json.dumps(claims(**{name: _odd(rng)})).encode())
    else:
        flipped = bytearray(good.encode())
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(7)
        return flipped.decode("latin-1")
    return ".".join(parts)


def _odd(rng: random.Random) -> Any:
    return rng.choice(
        [0, -1, True, "", "RS256", "none", [], {}, [[]], 1e308, 10**400, "admin", "\ud800", "\0", NOW]
    )


def _same(text: str) -> bool:
    whole = [part + "=" * (-len(part) % 4) for part in text.split(".")]
    return any(whole[:2] == [part + "=" * (-len(part) % 4) for part in good.split(".")][:2] and
               _bytes(whole[2]) == _bytes(good.split(".")[2] + "==") for good in (GOOD, GOOD_EC))  # fmt: skip


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text)


# -- keys


def test_keys_are_asked_for_once_in_five_minutes_whatever_comes() -> None:
    door = Door()
    for index in range(600):  # ten minutes of random key ids
        door.clock.now = NOW + index
        assert door.reason(token(head(kid=f"k{index}"), claims(iat=NOW), b"x")) == "invalid"
    assert door.fetches == 2


def test_a_rotated_key_is_found_and_a_withdrawn_one_refused_after_the_cooldown() -> None:
    door = Door()
    door.enter(GOOD)
    door.document = json.dumps({"keys": [rsa_jwk("r2", rsa_key("new"))]}).encode()
    new = token(head(kid="r2"), claims(), rsa_key("new"))
    door.clock.now += 299
    assert door.reason(new) == "invalid"
    assert door.enter(GOOD)
    door.clock.now += 1
    assert door.enter(new)
    assert door.reason(GOOD) == "invalid"


def test_known_keys_serve_while_their_source_is_down_or_gives_nonsense() -> None:
    for document, down in ((b"", True), (b"{", False), (b"[]", False), (b'{"keys": [1, {}]}', False)):
        door = Door()
        door.enter(GOOD)
        door.document, door.down = document, down
        for later in (300.0, 600.0):
            door.clock.now = NOW + later
            assert door.enter(GOOD)
        door.clock.now = NOW + 86_400
        with pytest.raises(Unavailable):
            door.enter(token(head(), claims(exp=NOW + 90_000)))


def test_without_any_keys_nothing_is_believed() -> None:
    door = Door()
    door.down = True
    for _ in range(10):
        with pytest.raises(Unavailable) as caught:
            door.enter(GOOD)
    assert 0 < caught.value.fields["retry_after_s"] <= 300
    assert door.fetches == 1
    door.down, door.clock.now = False, NOW + 300
    assert door.enter(GOOD)


def test_a_clock_that_goes_back_does_not_freeze_the_keys() -> None:
    door = Door()
    door.enter(GOOD)
    door.clock.now -= 3600
    assert door.reason(GOOD) == "invalid"  # issued in the future now
    assert door.fetches == 2


def test_many_callers_at_once_fetch_once() -> None:
    door, found = Door(), list[str]()
    threads = [threading.Thread(target=lambda: found.append(door.enter(GOOD).role)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["predictor"] * 20
    assert door.fetches == 1


def test_only_public_signing_keys_of_the_two_kinds_count() -> None:
    private = rsa_jwk("p", rsa_key(), d="AQAB")
    listed = [
        private,
        rsa_jwk("small", rsa_key("small", 1024)),
        ec_jwk("wide", ec_key("w", ec.SECP384R1), crv="P-384"),
        rsa_jwk("enc", rsa_key(), use="enc"),
        rsa_jwk("ps", rsa_key(), alg="PS256"),
        {"kty": "oct", "k": "AAAA"},
        {"kty": "oct", "kid": "o", "k": "AAAA", "alg": "HS256"},
        {"kty": "RSA", "kid": "n"},
        ec_jwk("off", ec_key(), x="AAAA"),
        {"kty": ["RSA"], "kid": "l"},
        {**rsa_jwk("x", rsa_key()), "kid": 5},
        rsa_jwk("good", rsa_key()),
        *(7, None),
    ]
    document = json.dumps({"keys": listed}).encode()
    assert set(oidc.parse_keys(document)) == {("RS256", "good")}
    for bad in (b"x" * 300_000, b"[" * 100_000, b"\xff", b'{"keys": {}}'):
        with pytest.raises(Transient):
            oidc.parse_keys(bad)


def test_an_empty_key_id_finds_nothing() -> None:
    door = Door(json.dumps({"keys": [rsa_jwk("", rsa_key())]}).encode())
    assert door.reason(token(head(kid=""), claims())) == "invalid"


# -- settings and the way through the application


def test_settings_come_together_and_are_checked_at_start() -> None:
    env = {f"POLYSKY_{name.upper()}": value for name, value in SET.items()}
    env["POLYSKY_OIDC_ROLES"] = '{"ml": "admin"}'
    assert Settings.from_env(env).oidc_roles == {"ml": "admin"}
    for name in SET:
        with pytest.raises(ConfigError, match=f"POLYSKY_{name.upper()}"):
            Settings.from_env({key: value for key, value in env.items() if key != f"POLYSKY_{name.upper()}"})
    for name, value in (
        ("JWKS", "http://id.example"),
        ("JWKS", "file:///x"),
        ("ROLES", "[]"),
        ("ROLES", "[" * 9999),
    ):
        with pytest.raises(ConfigError, match=f"POLYSKY_OIDC_{name}"):
            Settings.from_env({**env, f"POLYSKY_OIDC_{name}": value})
    for changed in ({"oidc_roles": {"a": "king"}}, {"oidc_audience": ""}):
        with pytest.raises(ConfigError):
            Door(**changed)
    for place in ("", "http://id.example/jwks", "file:///etc/passwd"):
        with pytest.raises(ConfigError):
            oidc.source(place)


def test_both_kinds_of_token_are_taken_over_http(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks())
    house = House(**{**SET, "oidc_jwks": str(file), "oidc_models": "models"})
    house.publish()
    own = house.token()
    theirs = token(head(), claims(models=["support"]))
    for sent in (own, theirs):
        assert house.send("POST", "/predict/support", {"text": "a"}, token=sent).status == 200
    assert house.send("POST", "/predict/other", {"text": "a"}, token=theirs).status == 403
    assert house.send("POST", "/train", {"model": "support"}, token=theirs).status == 403
    answer = house.send("POST", "/predict/support", {"text": "a"}, token=BAD["no algorithm"])
    assert (answer.status, header(answer, "www-authenticate"), body_of(answer)["code"]) == (
        401,
        "Bearer",
        "unauthorized",
    )
    assert [line["actor"] for line in house.logged("request") if "actor" in line][-1] == "oidc:user-7"
    assert not any(theirs[-40:] in line or S in line for line in house.lines)


def test_without_its_settings_a_jwt_is_a_malformed_token() -> None:
    assert House().send("GET", "/models", token=GOOD).status == 401


def test_floods_and_rates_count_for_both_kinds(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks())
    house = House(**{**SET, "oidc_jwks": str(file), "rate_per_s": 1.0})
    good = [house.send("GET", "/models", token=GOOD).status for _ in range(3)]
    assert good == [200, 200, 429]
    bad = [house.send("GET", "/models", token=BAD["for another"]).status for _ in range(30)]
    assert set(bad[:20]) == {401}
    assert set(bad[20:]) == {429}


def test_a_missing_file_of_keys_is_no_key() -> None:
    with pytest.raises(Transient):
        oidc.source("/nowhere/jwks.json")()


def test_a_source_that_cannot_be_reached_is_a_passing_fault() -> None:
    for url in ("https://127.0.0.1:1/jwks", "https://[", "https://127.0.0.1:x/"):
        with pytest.raises(Transient):
            oidc.source(url)()
