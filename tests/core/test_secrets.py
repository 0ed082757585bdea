"""core.secrets: token records out of one document, fetched seldom, stale rather than absent."""

from __future__ import annotations

import json
import os

import pytest

from core.app import build_app
from core.auth import Verifier, record_key, revoked_key
from core.config import Settings
from core.errors import ConfigError, Denied, Missing, Transient, Unauthorized
from core.reader import StoreReader
from core.secrets import RETRY_S, STALE_S, TTL_S, SecretTokens, open_tokens
from core.store import MemoryStore
from core.telemetry import MemoryTelemetry
from core.tokens import create_token, export_records, revoke_token
from core.web import Request


class Vault:
    """A secret that may be down, and counts how often it was read."""

    def __init__(self, document: bytes) -> None:
        self.document, self.down, self.reads, self.now = document, False, 0, 1000.0

    def fetch(self) -> bytes:
        self.reads += 1
        if self.down:
            raise Transient("down")
        return self.document

    def tokens(self) -> SecretTokens:
        return SecretTokens(self.fetch, clock=lambda: self.now)


def vault() -> tuple[Vault, str, str]:
    store = MemoryStore()
    token, info = create_token(store, "predictor", clock=lambda: 1.0, random_bytes=os.urandom)
    return Vault(json.dumps(export_records(store, now=2.0)).encode()), token, info.kid


def test_a_token_of_the_document_is_accepted_and_another_is_not() -> None:
    secret, token, _ = vault()
    verifier = Verifier(secret.tokens(), clock=lambda: 2.0)
    assert verifier.authenticate({"x-api-key": token}).role == "predictor"
    other, _ = create_token(MemoryStore(), "admin", clock=lambda: 1.0, random_bytes=os.urandom)
    with pytest.raises(Unauthorized):
        verifier.authenticate({"x-api-key": other})


def test_only_token_records_are_told() -> None:
    secret, _, kid = vault()
    tokens = secret.tokens()
    assert json.loads(tokens.get(record_key(kid)))["kid"] == kid
    for key in (revoked_key(kid), kid, f"{kid}.json", record_key("other")):
        with pytest.raises(Missing):
            tokens.get(key)


def test_it_is_fetched_once_in_its_time() -> None:
    secret, _, kid = vault()
    tokens = secret.tokens()
    for step in (0.0, TTL_S - 1, 0.5):
        secret.now += step
        tokens.get(record_key(kid))
    assert secret.reads == 1
    secret.now += 0.5
    tokens.get(record_key(kid))
    assert secret.reads == 2


@pytest.mark.parametrize("wait", [1.0, 20.0, 29.0, 31.0, 44.0, 59.0])
def test_a_token_revoked_in_the_secret_is_refused_within_a_minute_whatever_was_read_when(wait: float) -> None:
    secret, token, kid = vault()
    telemetry, reader = MemoryTelemetry(lambda line: None, clock=lambda: 0.0), StoreReader(MemoryStore())
    app = build_app(Settings(), reader, telemetry=telemetry, tokens=secret.tokens(), clock=lambda: secret.now)
    asked = Request("GET", "/models", headers={"x-api-key": token})
    assert app(asked).status == 200
    secret.now += wait
    assert app(asked).status == 200
    records = json.loads(secret.document)
    secret.document = json.dumps({kid: records[kid] | {"revoked": secret.now}}).encode()
    for _ in range(60):
        secret.now += 1.0
        last = app(asked).status
    assert last == 401


def test_a_clock_that_goes_back_fetches_again() -> None:
    secret, _, kid = vault()
    tokens = secret.tokens()
    tokens.get(record_key(kid))
    secret.now -= 500.0
    tokens.get(record_key(kid))
    assert secret.reads == 2


def test_while_it_cannot_be_had_the_last_one_stands_in_for_a_while() -> None:
    secret, _, kid = vault()
    tokens = secret.tokens()
    tokens.get(record_key(kid))
    secret.down = True
    secret.now += TTL_S
    tokens.get(record_key(kid))
    tokens.get(record_key(kid))
    assert secret.reads == 2
    secret.now += RETRY_S
    tokens.get(record_key(kid))
    assert secret.reads == 3
    secret.now += STALE_S
    with pytest.raises(Transient):
        tokens.get(record_key(kid))
    secret.down = False
    secret.now += RETRY_S
    tokens.get(record_key(kid))


def test_a_secret_never_had_is_transient_and_not_hammered() -> None:
    secret, _, kid = vault()
    secret.down = True
    tokens = secret.tokens()
    for _ in range(5):
        with pytest.raises(Transient):
            tokens.get(record_key(kid))
    assert secret.reads == 1


@pytest.mark.parametrize("document", [b"", b"[]", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_document_gives_nobody_access(document: bytes) -> None:
    with pytest.raises(Transient):
        Vault(document).tokens().get(record_key("a"))
    with pytest.raises(ConfigError):
        open_tokens(Settings(tokens=document.decode("latin-1") or " "), lambda name: bytes, clock=lambda: 0.0)


def test_the_settings_tell_where_the_document_is() -> None:
    secret, _, kid = vault()
    asked = []

    def fetcher(name: str) -> object:
        asked.append(name)
        return secret.fetch

    def opened(settings: Settings) -> SecretTokens | None:
        return open_tokens(settings, fetcher, clock=lambda: 0.0)  # type: ignore[arg-type]

    assert opened(Settings()) is None
    direct = opened(Settings(tokens=secret.document.decode()))
    assert direct is not None
    direct.get(record_key(kid))
    assert (asked, secret.reads) == ([], 0)
    named = opened(Settings(tokens_secret="polysky/tokens"))
    assert named is not None
    named.get(record_key(kid))
    assert (asked, secret.reads) == (["polysky/tokens"], 1)


def test_a_refusal_counts_as_a_failed_fetch() -> None:
    def refuse() -> bytes:
        raise Denied("no")

    with pytest.raises(Transient):
        SecretTokens(refuse, clock=lambda: 0.0).get(record_key("a"))


def test_revoked_and_expired_tokens_are_not_exported() -> None:
    store = MemoryStore()
    _, good = create_token(store, "predictor", clock=lambda: 1.0, random_bytes=os.urandom)
    _, old = create_token(store, "predictor", clock=lambda: 1.0, random_bytes=os.urandom, ttl_s=5.0)
    _, bad = create_token(store, "predictor", clock=lambda: 1.0, random_bytes=os.urandom)
    revoke_token(store, bad.kid, clock=lambda: 2.0)
    assert set(export_records(store, now=7.0)) == {good.kid}
    assert set(export_records(store, now=3.0)) == {good.kid, old.kid}
