"""Who is calling and what they may do: tokens, roles, permissions, model scopes, and the rate backstop.

A token is `polysky_{kid}_{secret}_{check}`. The store holds its sha256, never the token.
"""

from __future__ import annotations

import json
from _thread import allocate_lock
from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Protocol
from zlib import crc32

from core.errors import CoreError, Forbidden, Missing, StoreError, Unauthorized, Unavailable
from core.tuples import NamedTuple

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KID_CHARS, SECRET_CHARS, CHECK_CHARS = 12, 43, 6
MAX_CREDENTIAL_CHARS = 4096
MAX_TTL_S = 60.0  # a revoked token is refused within this time
STALE_S = 600.0  # a record is believed for this long while the store is down
RETRY_S = 5.0  # how long a failed read of a record is not tried again
CLOCK_SLACK_S = 5.0  # a clock that goes back by more makes every record old
MAX_RECORDS = 4096
FAILURES = 20.0  # failed credentials in a burst, and how many of them per second after that
FAILURES_PER_S = 5.0
_CHARS = len("polysky___") + KID_CHARS + SECRET_CHARS + CHECK_CHARS
_HEX = frozenset("0123456789abcdef")

_PREDICTOR = frozenset({"predict", "model:read", "docs:read"})
_TRAINER = _PREDICTOR | {"train", "version:read", "feedback"}
_ADMIN = _TRAINER | {"alias:move", "rollback", "retire", "audit:read", "metrics:read"}
ROLES: Mapping[str, frozenset[str]] = {
    "predictor": _PREDICTOR,
    "trainer": _TRAINER,
    "admin": _ADMIN,
    "metrics": frozenset({"metrics:read"}),
}
PERMISSIONS = frozenset().union(*ROLES.values())
_EVER = float("inf")  # neither it nor NaN is a time at which a token would end


class RateLimited(CoreError):
    """Too many requests; `fields` holds `retry_after_s`."""

    code = "rate_limited"


class Principal(NamedTuple):
    """A verified caller. `models` is the scope, None for all models."""

    kid: str
    role: str
    label: str
    permissions: frozenset[str]
    models: frozenset[str] | None = None

    def require(self, permission: str) -> None:
        """Raise Forbidden unless the role holds `permission`."""
        if permission not in self.permissions:
            raise Forbidden(f"this needs the permission {permission}", permission=permission)

    def sees(self, model: str) -> bool:
        """Tell whether the model is in scope."""
        return self.models is None or model in self.models

    def require_model(self, model: str) -> None:
        """Raise Forbidden unless the model is in scope."""
        if not self.sees(model):
            raise Forbidden("this token is not for that model")


ANONYMOUS = Principal("", "", "anonymous", frozenset(), frozenset())


TOKENS_PREFIX = "auth/tokens/"


def record_key(kid: str) -> str:
    """Return the key of a token's record."""
    return f"{TOKENS_PREFIX}{kid}.json"


def revoked_key(kid: str) -> str:
    """Return the key of the mark that revokes a token."""
    return f"auth/revoked/{kid}.json"


def kid_of(token: str) -> str | None:
    """Return the key id of a token, None if it is not well formed. Does not look at the checksum."""
    kid, secret, check = token[8:20], token[21:64], token[65:]
    if len(token) != _CHARS or token != f"polysky_{kid}_{secret}_{check}":
        return None
    return kid if token.isascii() and f"{kid}{secret}{check}".isalnum() else None


def check_of(text: str) -> str:
    """Return the checksum of `polysky_{kid}_{secret}`, so that scanners tell a leaked token from noise."""
    value, digits = crc32(text.encode("ascii")), ""
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, 62)
        digits = ALPHABET[digit] + digits
    return digits


def digest_of(token: str) -> str:
    """Return what is stored of a token: hex sha256. 256 random bits need no slow hash."""
    return sha256(token.encode("ascii")).hexdigest()


def credential(headers: Mapping[str, str]) -> str | None:
    """Return the presented token, None if there is none.

    Taken from `Authorization: Bearer …` or `x-api-key`. Raises Unauthorized for two that differ, another scheme
    or an oversized value.
    """
    found = headers.get("x-api-key")
    header = headers.get("authorization")
    if header is not None:
        if len(header) > MAX_CREDENTIAL_CHARS or header[:7].lower() != "bearer ":
            raise Unauthorized("Authorization must be: Bearer <token>")
        bearer = header[7:].strip(" ")
        if found is not None and found != bearer:
            raise Unauthorized("two different credentials")
        return bearer
    return found


class Bucket:
    """A token bucket. Callers hold the lock."""

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, rate_per_s: float, capacity: float, now: float) -> None:
        self._rate, self._capacity, self._level, self._at = rate_per_s, capacity, capacity, now

    def take(self, now: float) -> float:
        """Take one; return 0.0, or the seconds until there is one again."""
        wait = self.wait(now)
        if not wait:
            self._level -= 1.0
        return wait

    def wait(self, now: float) -> float:
        """Return 0.0 if there is one to take, else the seconds until there is."""
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level >= 1.0 else (1.0 - self._level) / self._rate


class Getter(Protocol):
    """The one verb of a Reader that is needed here."""

    def get(self, key: str) -> bytes:
        """Return the object. Raises Missing, Denied, Transient."""
        ...


class Authenticator(Protocol):
    """What tells who is calling."""

    def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the caller. Raises Unauthorized, RateLimited, Unavailable."""
        ...


class _Known(NamedTuple):
    """What was last read of one kid; `principal` is None if it is absent, revoked or not well formed.

    From `due` on one caller reads it again, from `until` on the others wait for that.
    """

    read_at: float
    due: float
    until: float
    digest: bytes = b""
    expires: float | None = None
    principal: Principal | None = None

    def is_before(self, limit: float, now: float) -> bool:
        """Tell whether `limit` is still to come; after a clock that went back nothing is."""
        return now < limit and now >= self.read_at - CLOCK_SLACK_S


class Verifier:
    """Checks credentials against the records in the store, through a bounded cache. Thread-safe."""

    def __init__(
        self,
        reader: Getter,
        *,
        clock: Callable[[], float],
        ttl_s: float = MAX_TTL_S,
        stale_s: float = STALE_S,
        rate_per_s: float = 0.0,
    ) -> None:
        """`clock` gives seconds since the epoch; `ttl_s` is cut to MAX_TTL_S; a rate of 0 is no limit.

        `stale_s` is 0 for a reader that bridges outages itself: what both believe would add up.
        """
        self._reader = reader
        self._clock = clock
        self._ttl_s, self._stale_s = min(ttl_s, MAX_TTL_S), stale_s
        self._rate = rate_per_s
        self._lock = allocate_lock()
        self._reading = allocate_lock()
        self._known: dict[str, _Known] = {}
        self._rates: dict[str, Bucket] = {}
        self._failures = Bucket(FAILURES_PER_S, FAILURES, clock())

    def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the caller. Raises Unauthorized, RateLimited, Unavailable (store down and token not known)."""
        token = credential(headers)
        if token is None:
            raise Unauthorized("a token is required", reason="none")
        kid, now = kid_of(token), self._clock()
        if kid is None:
            raise Unauthorized("the token is not well formed", reason="malformed")
        known = self._known.get(kid)
        if known is None or not known.is_before(known.due, now):
            known = self._refresh(kid, token, now)
        _, _, _, expected, expires, principal = known
        digest = sha256(token.encode("ascii")).digest()
        if principal is None or not compare_digest(digest, expected):
            raise self.refusal("invalid", now)
        if expires is not None and now >= expires:
            raise self.refusal("expired", now)
        if self._rate:
            self.limit(kid, now)
        return principal

    def refusal(self, reason: str, now: float) -> CoreError:
        """Return the error for a credential that is not valid; count it against the floods."""
        with self._lock:
            wait = self._failures.take(now)
        if wait:
            return RateLimited("too many failed credentials", retry_after_s=wait, reason="flood")
        return Unauthorized("the token is not valid", reason=reason)

    def limit(self, kid: str, now: float) -> None:
        """Count a request of a verified caller. Raises RateLimited."""
        if not self._rate:
            return
        with self._lock:
            bucket = self._rates.get(kid)
            if bucket is None:
                if len(self._rates) >= MAX_RECORDS:
                    self._rates.clear()
                bucket = self._rates[kid] = Bucket(self._rate, max(1.0, 2.0 * self._rate), now)
            wait = bucket.take(now)
        if wait:
            raise RateLimited("too many requests", retry_after_s=wait, reason="rate")

    def _refresh(self, kid: str, token: str, now: float) -> _Known:
        """Return what the store says of `kid`, read by one thread at a time."""
        if check_of(token[: -CHECK_CHARS - 1]) != token[-CHECK_CHARS:]:
            raise self.refusal("malformed", now)
        with self._lock:
            wait = 0.0 if kid in self._known else self._failures.wait(now)
        if wait:
            raise RateLimited("too many failed credentials", retry_after_s=wait, reason="flood")
        before = self._known.get(kid)
        wait_for_it = before is None or not before.is_before(before.until, now)
        if not self._reading.acquire(blocking=wait_for_it) and before is not None:
            return before
        try:
            return self._reread(kid, now)
        finally:
            self._reading.release()

    def _reread(self, kid: str, now: float) -> _Known:
        known = self._known.get(kid)
        if known is None or not known.is_before(known.due, now):
            known = self._read(kid, known, now)
            with self._lock:
                self._remember(kid, known)
        return known

    def _read(self, kid: str, before: _Known | None, now: float) -> _Known:
        try:
            found = self._fetch(kid, now, warm=before is not None)
        except Missing:
            found = _Known(now, now, now)
        except StoreError as error:
            if before is None or not 0.0 <= now - before.read_at < self._stale_s:
                raise Unavailable("tokens cannot be checked now", retry_after_s=RETRY_S) from error
            return before._replace(due=now + RETRY_S, until=now + RETRY_S)
        return found._replace(due=now + 0.75 * self._ttl_s, until=now + self._ttl_s)

    def _fetch(self, kid: str, now: float, *, warm: bool) -> _Known:
        """Read the record; once warm also the revocation mark.

        Revoking writes the mark, then the record, and reports success after both: the record alone is enough
        for a cold start, and the mark catches a revocation that was cut half-way.
        """
        record = _parse(self._reader.get(record_key(kid)))
        return _Known(now, now, now) if warm and self._is_marked(kid) else _known(kid, record, now)

    def _is_marked(self, kid: str) -> bool:
        try:
            self._reader.get(revoked_key(kid))
        except Missing:
            return False
        return True

    def _remember(self, kid: str, fresh: _Known) -> None:
        self._known[kid] = fresh
        if len(self._known) > MAX_RECORDS:
            strangers = [other for other, known in self._known.items() if known.principal is None]
            for other in strangers or list(self._known)[: MAX_RECORDS // 2]:
                del self._known[other]


def _parse(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _known(kid: str, record: Mapping[str, Any], now: float) -> _Known:
    """Return the record in checked form; anything odd about it means: not valid."""
    role, models, expires = record.get("role"), record.get("models"), record.get("expires")
    digest = record.get("digest")
    sound = (
        isinstance(digest, str)
        and len(digest) == 64
        and _HEX.issuperset(digest)
        and isinstance(role, str)
        and role in ROLES
        and (models is None or (isinstance(models, list) and all(isinstance(name, str) for name in models)))
        and (
            expires is None
            or (isinstance(expires, int | float) and expires < _EVER and not isinstance(expires, bool))
        )
        and not record.get("revoked")
    )
    if not sound:
        return _Known(now, now, now)
    scope = None if models is None else frozenset(models)
    principal = Principal(kid, str(role), str(record.get("label") or kid), ROLES[str(role)], scope)
    return _Known(now, now, now, bytes.fromhex(str(digest)), expires, principal)
