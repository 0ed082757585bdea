"""Token records out of one secret document, for platforms that keep secrets apart from data."""

from __future__ import annotations

import json
from _thread import allocate_lock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.auth import MAX_TTL_S, TOKENS_PREFIX
from core.errors import ConfigError, Missing, StoreError, Transient

if TYPE_CHECKING:
    from core.config import Settings

TTL_S = MAX_TTL_S / 2  # for the other half the verifier believes a record: a revocation is seen in their sum
RETRY_S = 5.0
STALE_S = 600.0


class SecretTokens:
    """Reads `auth/tokens/KID.json` out of a document {"KID": record, …}. Thread-safe.

    The document is fetched at most once in TTL_S, after a failure once in RETRY_S; while it cannot be had the last
    one stands in for STALE_S.
    """

    def __init__(self, fetch: Callable[[], bytes], *, clock: Callable[[], float]) -> None:
        """`fetch` returns the document and raises a StoreError where that fails; `clock` gives seconds."""
        self._fetch = fetch
        self._clock = clock
        self._lock = allocate_lock()
        self._records: dict[str, Any] | None = None
        self._read_at = self._due = float("-inf")

    def get(self, key: str) -> bytes:
        """Return a token's record. Raises Missing, Transient."""
        record = self._current().get(key.removeprefix(TOKENS_PREFIX).removesuffix(".json"))
        if record is None or not key.startswith(TOKENS_PREFIX):
            raise Missing("no object at this key")
        return json.dumps(record).encode()

    def _current(self) -> dict[str, Any]:
        with self._lock:
            now = self._clock()
            if not self._read_at <= now < self._due:
                self._refresh(now)
            if self._records is None or now - self._read_at >= STALE_S:
                raise Transient("the secret of the tokens cannot be read for now")
            return self._records

    def _refresh(self, now: float) -> None:
        try:
            self._records = parse_records(self._fetch())
        except (StoreError, ConfigError):
            self._due = now + RETRY_S
            self._read_at = min(self._read_at, now)
        else:
            self._read_at, self._due = now, now + TTL_S


def parse_records(document: bytes) -> dict[str, Any]:
    """Return the records by key id. Raises ConfigError without quoting any of it."""
    try:
        records = json.loads(document)
    except (ValueError, RecursionError):
        records = None
    if not (isinstance(records, dict) and all(isinstance(record, dict) for record in records.values())):
        raise ConfigError(
            "the document of token records is not a JSON object of objects", setting="POLYSKY_TOKENS"
        )
    return records


def open_tokens(
    settings: Settings, fetcher: Callable[[str], Callable[[], bytes]], *, clock: Callable[[], float]
) -> SecretTokens | None:
    """Return where the settings say that tokens are: in themselves, in a secret, or (None) in the store.

    `fetcher` makes of a secret's name what fetches it. Raises ConfigError for a bad document in the settings.
    """
    if settings.tokens:
        document = settings.tokens.encode()
        parse_records(document)
        return SecretTokens(lambda: document, clock=clock)
    if settings.tokens_secret:
        return SecretTokens(fetcher(settings.tokens_secret), clock=clock)
    return None
