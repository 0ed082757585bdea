"""JSON without the leniency of the standard decoder: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from core.errors import MalformedBody

MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 308  # what a 64-bit float can hold
_PREFIX = 4096  # what nests deep to do harm does so early
_WHITESPACE = " \t\r\n"
# every byte but brackets is dropped, and both kinds of bracket become one
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def loads(body: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of a JSON text in UTF-8. Linear in the body's length.

    Raises MalformedBody that names a position or a key, never a value: bad UTF-8, a byte order mark, nesting
    over `max_depth`, NaN and Infinity, numbers beyond a 64-bit float, duplicate keys, lone surrogates.
    """
    try:
        text = body.decode("utf-8").strip(_WHITESPACE)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"body is not UTF-8 at byte {error.start}", position=error.start) from None
    if body.count(b"[") + body.count(b"{") > max_depth and (
        _deeper(body[:_PREFIX], max_depth) or _deeper(body, max_depth)
    ):
        raise MalformedBody(f"body is nested deeper than {max_depth} levels", limit=max_depth)
    try:
        value, end = _scan(text, 0)
    except json.JSONDecodeError as error:
        raise _at(error.pos) from None
    except StopIteration as error:
        raise _at(error.value) from None
    if end != len(text):
        raise _at(end)
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(value)
    return value


def _at(position: int) -> MalformedBody:
    return MalformedBody(f"body is not valid JSON at character {position}", position=position)


def _deeper(body: bytes, limit: int) -> bool:
    """Tell whether brackets outside strings nest deeper than `limit`. May say no for text that is not JSON."""
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(bare.split(b'"')[::2]).translate(_BRACKETS, _NO_BRACKETS)
    # each round takes the innermost pairs away, and with them one level
    brackets = brackets.replace(b"[]", b"").replace(b"[]", b"")
    depth, limit = 0, limit - 2
    for bracket in brackets:
        depth += 1 if bracket == 0x5B else -1
        if depth > limit:
            return True
    return False


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedBody(f"body holds the key {key[:64]!a} twice", key=key[:64])
            seen.add(key)
    return found


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise MalformedBody("body holds a number beyond a 64-bit float")
    return number


def _int(digits: str) -> int:
    if len(digits) > MAX_INTEGER_DIGITS:
        raise MalformedBody("body holds a number beyond a 64-bit float")
    return int(digits)


def _constant(name: str) -> Any:
    raise MalformedBody(f"body holds {name}: use null", constant=name)


def _refuse_surrogates(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise MalformedBody("body holds a lone surrogate") from None


_decoder: Any = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_float, parse_int=_int, parse_constant=_constant
)
_scan = _decoder.scan_once
