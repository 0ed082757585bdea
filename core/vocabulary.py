"""A set of weighted terms as an open-addressing hash table in a flat file: no parsing at load.

A record is (crc32 of the UTF-8 term, start of its bytes, their length, index + 1, weight), index + 1 = 0 for an
empty slot; a term lies at the first free slot from crc32 mod capacity (linear probing, at most 2/3 full). The
weight (idf) stands in the record so that a look-up reads one page less.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

from core.errors import IntegrityError

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Sections

_RECORD = struct.Struct("<IIIId")
_FIELDS = [("crc", "<u4"), ("start", "<u4"), ("length", "<u4"), ("next", "<u4"), ("weight", "<f8")]
UNKNOWN = (-1, 0.0)


def sections(terms: Sequence[str], weights: Sequence[float]) -> Sections:
    """Return the table (`slots`) and the terms' bytes (`keys`); term i gets index i and weights[i]."""
    import numpy as np

    capacity = 16
    while capacity * 2 < len(terms) * 3:
        capacity *= 2
    slots = np.zeros(capacity, _FIELDS)
    taken, start, keys = bytearray(capacity), 0, []
    for index, (term, weight) in enumerate(zip(terms, weights, strict=True)):
        key = encode(term)
        crc = crc32(key)
        slot = crc & (capacity - 1)
        while taken[slot]:
            slot = (slot + 1) & (capacity - 1)
        taken[slot] = 1
        slots[slot] = (crc, start, len(key), index + 1, weight)
        keys.append(key)
        start += len(key)
    return {"slots": slots.tobytes(), "keys": b"".join(keys)}


def encode(term: str) -> bytes:
    """Return the term's UTF-8 bytes; a lone surrogate, which a file may hold, is kept as it is."""
    return term.encode("utf-8", "surrogatepass")


def finder(file: FlatFile, prefix: str) -> Callable[[str], tuple[int, float]]:
    """Return the function term → (index, weight), UNKNOWN for a term that is not in the table."""
    capacity = file.section(prefix + "slots").size // _RECORD.size
    if capacity & (capacity - 1) or not capacity:
        raise IntegrityError("the vocabulary's capacity is not a power of two")
    record = file.records(prefix + "slots", _RECORD, capacity)
    key_bytes = file.slice_reader(prefix + "keys")
    mask = capacity - 1

    def find(term: str) -> tuple[int, float]:
        key = encode(term)
        crc = crc32(key)
        slot = crc & mask
        for _ in range(capacity):
            its_crc, start, length, index, weight = record(slot)
            if index == 0:
                return UNKNOWN
            if its_crc == crc and length == len(key) and key_bytes(start, start + length) == key:
                return index - 1, weight
            slot = (slot + 1) & mask
        return UNKNOWN

    return find


def find_all(file: FlatFile, prefix: str, terms: Sequence[str]) -> list[int]:
    """Return the index of each term (-1: unknown), probing the table for all of them at once."""
    import numpy as np

    slots, keys = _slots(file, prefix), file.raw(prefix + "keys")
    mask = len(slots) - 1
    encoded = [encode(term) for term in terms]
    crc = np.array([crc32(key) for key in encoded], np.uint32)
    lengths = np.array([len(key) for key in encoded], np.uint32)
    found = np.full(len(terms), -1, np.int64)
    waiting, slot = np.arange(len(terms)), (crc & mask).astype(np.int64)
    while len(waiting):
        record = slots[slot[waiting]]
        filled = record["next"] > 0
        alike = filled & (record["crc"] == crc[waiting]) & (record["length"] == lengths[waiting])
        for at, (_, start, length, index, _) in zip(waiting[alike].tolist(), record[alike].tolist(), strict=True):
            if keys[start : start + length] == encoded[at]:
                found[at] = index - 1
        waiting = waiting[filled & (found[waiting] < 0)]
        slot[waiting] = (slot[waiting] + 1) & mask
    result: list[int] = found.tolist()
    return result


def terms(file: FlatFile, prefix: str) -> list[str]:
    """Return all terms by index (reads the whole table)."""
    keys = bytes(file.raw(prefix + "keys"))
    ordered = _ordered(file, prefix).tolist()
    return [keys[start : start + length].decode("utf-8", "surrogatepass") for _, start, length, _, _ in ordered]


def weights(file: FlatFile, prefix: str) -> Any:
    """Return all weights by index, float64 of shape (n_terms,) (reads the whole table)."""
    return _ordered(file, prefix)["weight"].copy()


def _slots(file: FlatFile, prefix: str) -> Any:
    import numpy as np

    return np.frombuffer(file.raw(prefix + "slots"), _FIELDS)


def _ordered(file: FlatFile, prefix: str) -> Any:
    slots = _slots(file, prefix)
    filled = slots[slots["next"] > 0]
    return filled[filled["next"].argsort()]
