"""The flat file: what is written is read back, and no damaged byte is ever used."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from typing import Any

import numpy as np
import pytest

from core import flatfile
from core.errors import IntegrityError
from core.flatfile import PAGE, FlatFile


def sample() -> bytes:
    rng = np.random.default_rng(0)
    sections: dict[str, Any] = {
        "w": rng.normal(size=(5000, 4)),
        "k": rng.integers(0, 9, 7).astype(np.int32),
        "raw": b"bytes",
    }
    return flatfile.write({"name": "x"}, sections)


def test_sections_come_back_as_they_were_written() -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(5000, 4))
    file = FlatFile(sample())
    assert np.array_equal(file.array("w"), w)
    assert file.rows("w")(4999) == tuple(w[4999])
    assert bytes(file.raw("raw")) == b"bytes"
    assert file.slice_reader("raw")(1, 3) == b"yt"
    assert file.array("k").dtype == np.int32


def test_the_same_content_gives_the_same_bytes() -> None:
    assert sample() == sample()


def test_reading_one_row_checks_only_its_pages() -> None:
    file = FlatFile(sample())
    file.rows("w")(0)
    assert sum(file._seen) == 1
    assert len(file._seen) == -(-file.header["data_size"] // PAGE)
    file.verify_all()
    assert all(file._seen)


def test_a_header_other_than_the_promised_one_is_refused() -> None:
    data = sample()
    promised = FlatFile(data).header_sha256
    assert FlatFile(data, promised).header["name"] == "x"
    with pytest.raises(IntegrityError, match="does not match the log"):
        FlatFile(data, "0" * 64)


@pytest.mark.parametrize("seed", range(20))
def test_every_flipped_bit_is_found_before_its_byte_is_used(seed: int) -> None:
    rng, data = random.Random(seed), sample()
    promised = FlatFile(data).header_sha256
    for _ in range(25):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(IntegrityError):
            FlatFile(bytes(damaged), promised).verify_all()


@pytest.mark.parametrize("cut", [0, 5, 15, 16, 100, 9000, -1])
def test_a_cut_file_is_refused(cut: int) -> None:
    with pytest.raises(IntegrityError):
        FlatFile(sample()[:cut])


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(IntegrityError):
        FlatFile(sample() + b"x")
    with pytest.raises(IntegrityError):
        FlatFile(sample() + bytes(PAGE))


def forge(sections: object, **fields: object) -> bytes:
    """Return a file with consistent digests whose header says anything."""
    data = bytes(PAGE)
    digests = hashlib.sha256(data).digest()[: flatfile.DIGEST]
    header = {"sections": sections, "data_size": PAGE, "digests_sha256": hashlib.sha256(digests).hexdigest()}
    body = json.dumps({**header, **fields}).encode()
    head = struct.pack("<8sII", b"POLYSKY1", len(body), 1) + body + digests
    return head + bytes(-len(head) % PAGE) + data


@pytest.mark.parametrize(
    "sections",
    [
        {"a": [0, 8 * 2**40, "f8", [2**40]]},  # a header that claims 8 TB
        {"a": [0, 8, "f8", [2]]},
        {"a": [-64, 8, "f8", [1]]},
        {"a": [8, 8, "f8", [1]]},
        {"a": [PAGE, 64, "f8", [8]]},
        {"a": [0, 8, "O", [1]]},
        {"a": [0, 8, "f8", [-1]]},
        {"a": [0, 8, "f8", [1.0]]},
        {"a": [0, 8, "f8", None]},
        {"a": 3},
        [],
    ],
)
def test_a_section_table_that_lies_is_refused_before_anything_is_allocated(sections: object) -> None:
    with pytest.raises(IntegrityError):
        FlatFile(forge(sections))


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"sections": 1}', b"[" * 100_000])
def test_a_header_that_is_not_an_object_is_refused(body: bytes) -> None:
    head = struct.pack("<8sII", b"POLYSKY1", len(body), 0) + body
    with pytest.raises(IntegrityError):
        FlatFile(head + bytes(-len(head) % PAGE))


def test_a_wrong_size_or_digest_table_is_refused() -> None:
    with pytest.raises(IntegrityError):
        FlatFile(forge({}, data_size=PAGE - 1))
    with pytest.raises(IntegrityError):
        FlatFile(forge({}, digests_sha256="0" * 64))


def test_reads_outside_a_section_are_refused() -> None:
    file = FlatFile(sample())
    with pytest.raises(IntegrityError):
        file.rows("w")(5000)
    with pytest.raises(IntegrityError):
        file.rows("w")(-1)
    with pytest.raises(IntegrityError):
        file.slice_reader("raw")(0, 6)
    with pytest.raises(IntegrityError):
        file.records("w", struct.Struct("<d"), 3)
    with pytest.raises(IntegrityError):
        file.raw("absent")


def test_object_arrays_cannot_be_written() -> None:
    with pytest.raises(IntegrityError):
        flatfile.write({}, {"a": np.array([None])})


def test_a_file_over_the_size_limit_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatfile, "MAX_DATA", 100)
    with pytest.raises(IntegrityError, match="size limit"):
        flatfile.write({}, {"a": bytes(101)})
