"""A set of terms as an open-addressing hash table in a flat file: term → index, no parsing at load.

A record is (crc32 of the UTF-8 term, start of its bytes, their length, index + 1), 0 in the last place for an
empty slot; a term lies at the first free slot from crc32 mod capacity (linear probing, at most 2/3 full).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from core.errors import IntegrityError

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Sections

_RECORD = struct.Struct("<IIII")


def sections(terms: Sequence[str]) -> Sections:
    """Return the table (`slots`) and the terms' bytes (`keys`); term i gets index i."""
    import numpy as np

    capacity = 16
    while capacity * 2 < len(terms) * 3:
        capacity *= 2
    slots = np.zeros((capacity, 4), np.uint32)
    taken, start, keys = bytearray(capacity), 0, []
    for index, term in enumerate(terms):
        key = encode(term)
        crc = crc32(key)
        slot = crc & (capacity - 1)
        while taken[slot]:
            slot = (slot + 1) & (capacity - 1)
        taken[slot] = 1
        slots[slot] = (crc, start, len(key), index + 1)
        keys.append(key)
        start += len(key)
    return {"slots": slots, "keys": b"".join(keys)}


def encode(term: str) -> bytes:
    """Return the term's UTF-8 bytes; a lone surrogate, which a file may hold, is kept as it is."""
    return term.encode("utf-8", "surrogatepass")


def finder(file: FlatFile, prefix: str) -> Callable[[str], int]:
    """Return the function term → index, or -1 for a term that is not in the table."""
    capacity = file.section(prefix + "slots").shape[0]
    if capacity & (capacity - 1) or not capacity:
        raise IntegrityError("the vocabulary's capacity is not a power of two")
    record = file.records(prefix + "slots", _RECORD, capacity)
    key_bytes = file.slice_reader(prefix + "keys")
    mask = capacity - 1

    def find(term: str) -> int:
        key = encode(term)
        crc = crc32(key)
        slot = crc & mask
        for _ in range(capacity):
            its_crc, start, length, index = record(slot)
            if index == 0:
                return -1
            if its_crc == crc and length == len(key) and key_bytes(start, start + length) == key:
                return int(index) - 1
            slot = (slot + 1) & mask
        return -1

    return find


def find_all(file: FlatFile, prefix: str, terms: Sequence[str]) -> list[int]:
    """Return the index of each term (-1: unknown), probing the table for all of them at once."""
    import numpy as np

    slots, keys = file.array(prefix + "slots"), file.raw(prefix + "keys")
    mask = len(slots) - 1
    encoded = [encode(term) for term in terms]
    crc = np.array([crc32(key) for key in encoded], np.uint32)
    lengths = np.array([len(key) for key in encoded], np.uint32)
    found = np.full(len(terms), -1, np.int64)
    waiting, slot = np.arange(len(terms)), (crc & mask).astype(np.int64)
    while len(waiting):
        record = slots[slot[waiting]]
        filled = record[:, 3] > 0
        alike = filled & (record[:, 0] == crc[waiting]) & (record[:, 2] == lengths[waiting])
        for at, (_, start, length, index) in zip(waiting[alike].tolist(), record[alike].tolist(), strict=True):
            if keys[start : start + length] == encoded[at]:
                found[at] = index - 1
        waiting = waiting[filled & (found[waiting] < 0)]
        slot[waiting] = (slot[waiting] + 1) & mask
    result: list[int] = found.tolist()
    return result


def terms(file: FlatFile, prefix: str) -> list[str]:
    """Return all terms by index (reads the whole table)."""
    slots, keys = file.array(prefix + "slots"), bytes(file.raw(prefix + "keys"))
    filled = slots[slots[:, 3] > 0]
    ordered = filled[filled[:, 3].argsort()].tolist()
    return [keys[start : start + length].decode("utf-8", "surrogatepass") for _, start, length, _ in ordered]
