"""Creating, listing and revoking tokens in the store. Verifying them is the business of core.auth."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from core.auth import (
    ALPHABET,
    KID_CHARS,
    ROLES,
    SECRET_CHARS,
    check_of,
    digest_of,
    record_key,
    revoked_key,
)
from core.errors import Exists, IntegrityError, InvalidInput, Missing, NotFound, Problem
from core.keys import is_name
from core.store import ObjectStore
from core.tuples import NamedTuple

MAX_LABEL_CHARS = 64
MAX_TTL_S = 100 * 365 * 86_400.0  # a date that calendars can show


class TokenInfo(NamedTuple):
    """What is kept of a token; times are seconds since the epoch. Never the token."""

    kid: str
    role: str
    models: tuple[str, ...] | None
    label: str
    created: float
    expires: float | None
    revoked: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return self._asdict() | {"models": None if self.models is None else list(self.models)}


def create_token(
    store: ObjectStore,
    role: str,
    *,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
    label: str = "",
    models: Sequence[str] | None = None,
    ttl_s: float | None = None,
) -> tuple[str, TokenInfo]:
    """Return a new token and its record, once stored. `random_bytes` must be fit for secrets.

    Raises InvalidInput naming what is wrong with role, label, models or ttl_s.
    """
    _check(role, label, models, ttl_s)
    kid = random_text(KID_CHARS, random_bytes)
    body = f"polysky_{kid}_{random_text(SECRET_CHARS, random_bytes)}"
    token = f"{body}_{check_of(body)}"
    now = clock()
    expires = None if ttl_s is None else now + ttl_s
    info = TokenInfo(kid, role, None if models is None else tuple(models), label or kid, now, expires)
    store.put_if_absent(record_key(kid), _encode(info, digest_of(token)))
    return token, info


def list_tokens(store: ObjectStore) -> list[TokenInfo]:
    """Return all records, oldest first, revoked ones too. Raises IntegrityError naming one that is damaged."""
    marks = {_kid(entry.key): entry.modified for entry in store.list(revoked_key("")[: -len(".json")])}
    found = []
    for entry in store.list(record_key("")[: -len(".json")]):
        info, _ = _decode(_kid(entry.key), store.get(entry.key).data)
        found.append(info._replace(revoked=info.revoked or marks.get(info.kid)))
    return sorted(found, key=lambda info: (info.created, info.kid))


def revoke_token(store: ObjectStore, kid: str, *, clock: Callable[[], float]) -> TokenInfo:
    """Return the revoked record. Verifiers refuse the token within core.auth.MAX_TTL_S of this call's return.

    Safe to repeat. Raises NotFound for an unknown kid; on a store error it may be half done: call it again.
    """
    if not (kid.isascii() and kid.isalnum() and len(kid) == KID_CHARS):
        raise NotFound("no such token")
    try:
        info, digest = _decode(kid, store.get(record_key(kid)).data)
    except Missing:
        raise NotFound("no such token") from None
    info = info._replace(revoked=info.revoked or clock())
    mark = json.dumps({"kid": kid, "revoked": info.revoked}).encode()
    with suppress(Exists):  # an earlier call came this far
        store.put_if_absent(revoked_key(kid), mark)
    store.put(record_key(kid), _encode(info, digest))
    return info


def export_records(store: ObjectStore, *, now: float) -> dict[str, Any]:
    """Return the records of the tokens that are neither revoked nor expired, by key id; for core.secrets."""
    found = {}
    for info in list_tokens(store):
        if info.revoked is None and (info.expires is None or now < info.expires):
            found[info.kid] = json.loads(store.get(record_key(info.kid)).data)
    return found


def random_text(chars: int, random_bytes: Callable[[int], bytes]) -> str:
    """Return base62 text, each character equally likely."""
    text = ""
    while len(text) < chars:
        # 248 = 4 x 62: higher bytes would make some characters likelier
        text += "".join(ALPHABET[byte % 62] for byte in random_bytes(chars) if byte < 248)
    return text[:chars]


def _check(role: str, label: str, models: Sequence[str] | None, ttl_s: float | None) -> None:
    problems = []
    if role not in ROLES:
        problems.append(Problem(f"must be one of {', '.join(ROLES)}", "role"))
    if len(label) > MAX_LABEL_CHARS or not label.isprintable():
        problems.append(Problem(f"must be printable, at most {MAX_LABEL_CHARS} characters", "label"))
    if models is not None and not (models and all(map(is_name, models))):
        problems.append(Problem("must be model names", "models"))
    if ttl_s is not None and not 0 < ttl_s <= MAX_TTL_S:
        problems.append(Problem("must be over 0 and at most 100 years", "ttl_s"))
    if problems:
        text = "; ".join(f"{problem.field} {problem.message}" for problem in problems)
        raise InvalidInput(text, tuple(problems))


def _kid(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _encode(info: TokenInfo, digest: str) -> bytes:
    return json.dumps(info.as_dict() | {"digest": digest}, sort_keys=True).encode()


def _decode(kid: str, data: bytes) -> tuple[TokenInfo, str]:
    try:
        record = json.loads(data)
        digest = record.pop("digest")
        models = record["models"]
        return TokenInfo(**record | {"models": None if models is None else tuple(models)}), digest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(f"the record is damaged, and nobody can use its token: {record_key(kid)}") from None
