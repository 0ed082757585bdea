"""Pickles that do something when they are read: by every family of opcodes, through many functions."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

Argument = str | list[str]


class Gadget(NamedTuple):
    """A function that a pickle can call, and what with."""

    module: str
    name: str
    arguments: tuple[Argument, ...]


def gadgets(marker: str) -> tuple[Gadget, ...]:
    """Return calls each of which makes the file or folder `marker`."""
    shell, code = f"mkdir -p '{marker}'", f"__import__('os').makedirs({marker!r}, exist_ok=True)"
    by_shell = (("os", "system"), ("posix", "system"), ("subprocess", "getoutput"), ("os", "popen"))
    by_list = (
        ("subprocess", "call"),
        ("subprocess", "check_output"),
        ("subprocess", "Popen"),
        ("subprocess", "run"),
    )
    by_code = (
        *(
            ("builtins", "exec"),
            ("builtins", "eval"),
            ("timeit", "timeit"),
            ("cProfile", "run"),
            ("profile", "run"),
        ),
        *(("__builtin__", "eval"), ("bdb", "Bdb.run"), ("code", "InteractiveInterpreter.runcode")),
    )
    by_path = (
        *(("os", "mkdir"), ("os", "makedirs"), ("posix", "mkdir"), ("pathlib", "os.mkdir")),
        *(("logging", "FileHandler"), ("sqlite3", "connect"), ("tarfile", "os.mkdir")),
    )
    by_open = (
        *(("builtins", "open"), ("io", "open"), ("_io", "open"), ("codecs", "open"), ("io", "FileIO")),
        *(("zipfile", "ZipFile"), ("gzip", "open"), ("bz2", "open"), ("lzma", "open"), ("tarfile", "open")),
    )
    return (
        *(Gadget(*function, (shell,)) for function in by_shell),
        *(Gadget(*function, (["mkdir", "-p", marker],)) for function in by_list),
        *(Gadget(*function, (code,)) for function in by_code),
        *(Gadget(*function, (marker,)) for function in by_path),
        *(Gadget(*function, (marker, "w")) for function in by_open),
    )


def families(gadget: Gadget) -> Iterator[tuple[str, bytes]]:
    """Yield the name of a family of opcodes, and a pickle that makes the call by it."""
    args = b"".join(map(_argument, gadget.arguments))
    line = f"{gadget.module}\n{gadget.name}\n".encode()
    call = b"c" + line
    stacked = _text(gadget.module) + _text(gadget.name) + b"\x93"
    yield "global", call + b"(" + args + b"tR."
    yield "stack global", b"\x80\x04" + stacked + b"(" + args + b"tR."
    yield "inst", b"(" + args + b"i" + line + b"."
    yield "obj", b"(" + call + args + b"o."
    yield "newobj", b"\x80\x02" + call + b"(" + args + b"t\x81."
    yield "newobj ex", b"\x80\x04" + stacked + b"(" + args + b"t}\x92."
    yield "memo", b"\x80\x02" + call + b"q\x000h\x00(" + args + b"tq\x01Rq\x02."
    framed = stacked + b"\x94(" + args + b"t\x94R\x94."
    yield "frame", b"\x80\x05\x95" + struct.pack("<Q", len(framed)) + framed
    yield "dropped result", b"\x80\x02]q\x00" + call + b"(" + args + b"tR0."
    yield "junk before", b"(K\x01K\x021" + b"N0" * 3 + call + b"(" + args + b"tR."
    partial = b"cfunctools\npartial\n(cbuiltins\nlen\ntR"
    yield "build", partial + b"(" + call + b"(" + args + b"t}Ntb)R."
    yield "within a list", b"\x80\x02](K\x01" + call + b"(" + args + b"tRe."


def singles() -> Iterator[tuple[str, bytes]]:
    """Yield pickles that need something of their reader: extensions, persistent ids, buffers, code."""
    yield "ext1", b"\x80\x02\x82\x01)R."
    yield "ext2", b"\x80\x02\x83\x01\x00)R."
    yield "ext4", b"\x80\x02\x84\x01\x00\x00\x00)R."
    yield "persistent id", b"Pmodule os\n."
    yield "binary persistent id", b"\x80\x02X\x02\x00\x00\x00osQ."
    yield "next buffer", b"\x80\x05\x97."
    yield "huge tuple", b"\x80\x04" + b"(" * 100_000 + b"."
    yield "huge bytes", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"."
    yield "huge long", b"\x80\x04\x8b" + struct.pack("<i", (1 << 31) - 1) + b"."
    yield "huge frame", b"\x80\x05\x95" + struct.pack("<Q", 1 << 60) + b"."
    yield "huge memo", b"\x80\x04Nr\xff\xff\xff\x7f."


class Trap:
    """An object that pickles as a call of os.makedirs."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.makedirs, (self.marker, 0o777, True)


def dumped(marker: str) -> Iterator[tuple[str, bytes]]:
    """Yield pickles as Python itself writes them, one a protocol."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"protocol {protocol}", pickle.dumps({"model": [Trap(marker)]}, protocol)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _argument(value: Argument) -> bytes:
    if isinstance(value, str):
        return _text(value)
    return b"](" + b"".join(map(_text, value)) + b"e"
