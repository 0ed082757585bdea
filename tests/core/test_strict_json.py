"""Strict JSON: FAULTS 60, and agreement with the standard decoder on everything honest."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import MalformedBody
from core.strict_json import MAX_DEPTH, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "character 0"),
    "cut": (b'{"text": "a', "character 9"),
    "two values": (b"{} {}", "character 2"),
    "trailing comma": (b'{"a": 1,}', "character"),
    "single quotes": (b"{'a': 1}", "character 1"),
    "not a number": (b'{"a": NaN}', "NaN"),
    "infinity": (b'{"a": Infinity}', "Infinity"),
    "minus infinity": (b'{"a": -Infinity}', "-Infinity"),
    "float overflow": (b'{"a": 1e400}', "64-bit"),
    "long integer": (b'{"a": ' + b"7" * 5000 + b"}", "64-bit"),
    "integer over the float range": (b"1" * 309, "64-bit"),
    "duplicate key": (b'{"a": 1, "b": 2, "a": 3}', "'a'"),
    "nested duplicate key": (b'[{"x": {"k": 1, "k": 1}}]', "'k'"),
    "deep lists": (b"[" * 100_000, "deeper"),
    "deep objects": (b'{"a":' * 100_000, "deeper"),
    "deep and closed": (b"[" * 65 + b"]" * 65, "deeper"),
    "deep zigzag": ((b"[" * 60 + b"]" * 59 + b",") * 400, "deeper"),
    "lone high surrogate": (b'{"a": "\\ud800"}', "surrogate"),
    "lone low surrogate in a key": (b'[{"\\uDC00": 1}]', "surrogate"),
    "lone surrogate in a list": (b'["\\ud83d\\ude00", "\\uD83D"]', "surrogate"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    "utf-16 without mark": ('{"a": 1}'.encode("utf-16-le"), "character"),
    "byte order mark": (b"\xef\xbb\xbf{}", "character 0"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "UTF-8"),
    "surrogate bytes": (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
    "overlong": (b'"\xc0\xaf"', "UTF-8"),
    "raw control character": (b'{"a": "x\ny"}', "character"),
    "bad escape": (rb'{"a": "\q"}', "character"),
    "comment": (b"{} // x", "character"),
    "backslashes": (b'"' + b"\\" * 99_999, "character"),
    "quotes": (b'"' * 100_000, "character"),
    "flat brackets": (b"[]" * 50_000, "character"),
    "leading zero": (b"01", "character"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_in_little_time_naming_a_place(name: str) -> None:
    body, told = HOSTILE[name]
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        with pytest.raises(MalformedBody) as caught:
            loads(body)
        spent.append(time.perf_counter() - started)
    assert told in caught.value.message
    assert min(spent) < 0.005


@given(VALUES)
def test_honest_json_is_read_as_the_standard_decoder_reads_it(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert loads(text.encode()) == json.loads(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    told = "fine"
    try:
        loads(body)
    except MalformedBody as error:
        told = error.message
    assert told.isprintable()


@given(st.text('[]{}",:\\ a1', max_size=60))
def test_what_is_read_agrees_with_the_standard_decoder_near_json(text: str) -> None:
    try:
        value = loads(text.encode())
    except MalformedBody:
        return
    assert value == json.loads(text)


def test_nesting_is_allowed_up_to_the_limit_and_brackets_in_strings_do_not_count() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.dumps(loads(deep)).encode() == deep
    assert loads(b"[" + deep[1:-1] + b"]") == json.loads(deep)
    text = "[{" * 500 + '\\"' + '"' * 3
    assert loads(json.dumps({"text": text, "rows": [[], {}] * 60}).encode())["text"] == text


@pytest.mark.parametrize("shape", ["[{}]", '{"a":[%s]}', '[1,{"b":%s}]'])
@pytest.mark.parametrize("wide", [0, 70])
def test_the_depth_scan_counts_as_recursion_does(shape: str, wide: int) -> None:
    side = "[" + ",".join(["{}"] * wide) + "]"
    text, depth = side, 1 + bool(wide)
    while True:
        if "%s" not in shape:
            text, depth = "[" + text + "]", depth + 1
        else:
            text, depth = shape % text, depth + 2
        if depth > MAX_DEPTH:
            with pytest.raises(MalformedBody):
                loads(text.encode())
            return
        assert loads(text.encode()) == json.loads(text)


def test_values_are_never_echoed() -> None:
    secret = "hunter2hunter2"
    for body in (f'{{"{"k" * 80}": "{secret}", "{"k" * 80}": 1}}', f'{{"a": "{secret}}}', f'["{secret}", 1e999]'):
        with pytest.raises(MalformedBody) as caught:
            loads(body.encode())
        assert secret not in caught.value.message + str(caught.value.fields)
        assert len(caught.value.message) < 120


def test_surrogate_pairs_and_escapes_are_text() -> None:
    assert loads(b'"\\ud83d\\ude00 \\u00e9"') == "\U0001f600 é"
    assert loads(b'["\\\\ud800", {"\\ud83d\\ude00": [null]}]') == ["\\ud800", {"\U0001f600": [None]}]


def test_one_honest_text_takes_a_few_microseconds() -> None:
    body = json.dumps({"text": " ".join(f"word{i}" for i in range(60))}).encode()
    spent = []
    for _ in range(300):
        started = time.perf_counter()
        loads(body)
        spent.append(time.perf_counter() - started)
    assert min(spent) < 20e-6
