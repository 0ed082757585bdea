"""Files that lie: about their size, their form or what they are."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core import flatfile
from core.flatfile import FlatFile
from tests.attacks.pickles import Trap
from tests.core.house import picture, table_model, text_model

Case = tuple[str, bytes]
BOMB = 192 << 20


def wrapped(data: bytes, marker: str) -> Iterator[Case]:
    """Yield a pickle in what people wrap pickles in, under a name for it."""
    yield "gzip", gzip.compress(data)
    yield "bz2", bz2.compress(data)
    yield "xz", lzma.compress(data)
    yield "lzma", lzma.compress(data, lzma.FORMAT_ALONE)
    yield "zlib", zlib.compress(data)
    yield "twice gzip", gzip.compress(gzip.compress(data))
    yield "torch", zipped({"archive/data.pkl": data, "archive/version": b"3\n"})
    yield "keras", zipped({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": data})
    yield "zipped table", zipped({"data.csv": b"text,label\na,b\n", "data.csv.pkl": data, "images/a.png": data})
    yield "zipped as a table", zipped({"labels.csv": data})
    yield "zipped as arrays", zipped({"x.npy": data, "y.npy": data})
    yield "tar", _tarred({"model.pkl": data})
    yield "object array", _object_array(data)
    yield "objects in npz", zipped({"x.npy": _object_array(data), "y.npy": _npy(np.arange(2.0))})
    yield "skops", zipped({"schema.json": _skops(marker), "1.pkl": data})
    yield "skops with joblib inside", zipped({"schema.json": b"not json", "content.pkl": data})
    yield "magic before", b"POLYSKY1" + data
    yield "after a png", picture(3) + data
    yield "after a csv", b"text,label\n" + b"a,b\n" * 20 + data
    yield "in a parquet", parquet({"text": [data] * 12, "label": list("ab") * 6})
    yield "in parquet metadata", parquet({"text": list("ab") * 6, "label": list("ab") * 6}, {"pandas": data})
    yield "joblib numpy", _joblib([np.arange(3), Trap(marker)], 0)
    for method in ("zlib", "gzip", "bz2", "lzma", "xz"):
        yield f"joblib {method}", _joblib({"model": Trap(marker)}, (method, 3))
    for place in ("golden", "0/keys", "0/slots", "estimator/w"):
        yield f"in section {place}", in_section(data, place)
    yield "after an artifact", text_model() + data
    yield (
        "in a header",
        flatfile.with_header(text_model(), {**FlatFile(text_model()).header, "facts": data.decode("latin-1")}),
    )


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of the members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return target.getvalue()


def in_section(data: bytes, place: str) -> bytes:
    """Return a sound artifact with other bytes in one section."""
    file = FlatFile(text_model())
    kept = {name: bytes(file.raw(name)) for name in file.sections}
    header = {k: v for k, v in file.header.items() if k not in ("sections", "data_size", "digests_sha256")}
    return flatfile.write(header, {**kept, place: data})


def _tarred(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(f"../../{name}")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return target.getvalue()


def _joblib(value: Any, compress: Any) -> bytes:
    target = io.BytesIO()
    joblib.dump(value, target, compress=compress)
    return target.getvalue()


def _npy(array: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def _object_array(data: bytes) -> bytes:
    return npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + data


def _skops(marker: str) -> bytes:
    call = {
        "__class__": "makedirs",
        "__module__": "os",
        "__loader__": "FunctionNode",
        "__id__": 1,
        "content": "os",
    }
    reduced = {
        **{"__class__": "partial", "__module__": "functools", "__loader__": "OperatorFuncNode", "__id__": 2},
        **{"attrs": call, "args": [marker], "constructor": "os.makedirs", "protocol": 2, "_skops_version": "0.16"},
    }
    return json.dumps(reduced).encode()


def parquet(columns: dict[str, Any], metadata: dict[str, bytes] | None = None) -> bytes:
    """Return a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata or {}), sink)
    return sink.getvalue()


# --- arrays


def npy_header(text: str, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """Return the start of a .npy with this header, whose length may be another than it says."""
    body = text.encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(body) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + body


def arrays() -> Iterator[Case]:
    """Yield .npy and .npz files whose headers lie, or whose contents are bombs."""
    shapes = (
        *("(10000000000000,)", "(-1,)", "(9223372036854775807, 9223372036854775807)", "(4, -4)", "(0,)", "()"),
        *("(1e3,)", "(True,)", "(None,)", "('a',)", "(2**70,)", "[3]", "3", "((1,),)", f"({'1,' * 500})"),
        *("(4294967296, 4294967296)", "(1000000, 1000000)", "(3, 0)"),
    )
    for shape in shapes:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
        yield f"shape {shape[:20]}", npy_header(header) + bytes(64)
        yield f"zipped shape {shape[:20]}", zipped({"x.npy": npy_header(header) + bytes(64)})
    kinds = (
        *("'|O'", "'<M8[s]'", "'|V8'", "'<c16'", "[('a','|O')]", "[('a','<f8'),('b','<f8')]", "'<f1000000000'"),
        *(
            "'|S2147483647'",
            "'<U2147483647'",
            "'|S0'",
            "'__import__'",
            "(1,2)",
            "None",
            "'<f8,<O'",
            "'(1000,1000)<f8'",
        ),
    )
    for kind in kinds:
        header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': (8,), }}"
        yield f"kind {kind[:20]}", npy_header(header) + bytes(64)
        yield f"zipped kind {kind[:20]}", zipped({"x.npy": npy_header(header) + bytes(64)})
    texts = (
        *(
            "__import__('os').system('true')",
            "{'descr': __import__('os'), 'shape': (1,)}",
            "(" * 60_000,
            "{" * 9000,
        ),
        *(
            "-" * 9_000 + "1",
            "(" * 9_000,
            "{0:" * 3_000,
            "1" + "+1" * 5000,
            "",
            "\0" * 100,
            "{'shape': (1,)}",
            "-" * 50_000 + "1",
            "'a'" * 9999,
            "[" * 1000 + "]" * 1000,
        ),
    )
    for number, text in enumerate(texts):
        yield f"header {number}", npy_header(text, (2, 0))
        yield f"long header {number}", npy_header(text, (3, 0))
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 1 << 20, 0):
        yield f"header length {length}", npy_header("{}", (2, 0), length)
        yield f"zipped header length {length}", zipped({"x.npy": npy_header("{}", (2, 0), length)})


def bombs() -> Iterator[Case]:
    """Yield files that are small and unpack to much."""
    zeros = bytes(BOMB)
    header = npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({BOMB},), }}")
    yield "npz bomb", zipped({"x.npy": header + zeros})
    yield "csv zip bomb", zipped({"data.csv": b"text,label\n" + zeros})
    yield "png zip bomb", zipped({"labels.csv": b"file,label\na.png,b\n", "a.png": zeros})
    yield "gzip bomb", gzip.compress(b"text,label\n" + b"a" * BOMB)
    yield "gzip of gzip", gzip.compress(gzip.compress(zeros))
    yield "zip of zips", zipped({f"{i}.zip": zipped({"a.csv": bytes(1 << 20)}) for i in range(20)})
    yield "many members", zipped({f"{i}.png": b"" for i in range(20_000)})
    yield "lying sizes", _lying_sizes(zipped({"data.csv": b"text,label\n" + bytes(1 << 20)}))
    yield "overlapping members", _overlapping(zipped({"data.csv": b"a,b\n" * 1000, "b.csv": b"c"}))
    yield "dictionary bomb", _dictionary_bomb()
    yield "run length bomb", parquet({"text": pa.array(["a"] * 3_000_000), "label": pa.array(["b"] * 3_000_000)})
    yield "deep json lines", b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"
    yield "wide json lines", b"{" + b",".join(b'"k%d": 1' % i for i in range(100_000)) + b"}\n"
    yield "long digits", b'{"text": ' + b"9" * 400_000 + b', "label": "a"}\n'
    yield "one long field", b"text,label\n" + b"a" * (24 << 20) + b",b\n"
    yield "open quote", b'text,label\n"' + b"a,b\n" * (4 << 20)
    yield "many columns", b",".join(b"c%d" % i for i in range(300_000)) + b"\n"
    yield "header bomb", _header_bomb(b"[]," * (5 << 20))
    yield "deep header", _header_bomb(b"[" * 500_000)
    yield "golden bomb", in_section(b"[" + b"[]," * (8 << 20) + b"[]]", "golden")
    yield "deep golden", in_section(b"[" * 500_000 + b"]" * 500_000, "golden")


def _lying_sizes(data: bytes) -> bytes:
    """Return the zip with sizes of 10 bytes in its directory."""
    at = data.index(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<I", 10) + data[at + 28 :]


def _overlapping(data: bytes) -> bytes:
    """Return the zip with a second member that lies where the first does."""
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


def _dictionary_bomb() -> bytes:
    """Return a Parquet file of a few KB whose one text stands in it 20,000 times: 20 GB if it were unpacked."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), pa.array(["a" * 1_000_000]))
    sink = io.BytesIO()
    table = pa.table({"text": text, "label": pa.array(["x", "y"] * 10_000)})
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue()


def _header_bomb(text: bytes) -> bytes:
    return _framed(b'{"sections":{},"x":[' + text + b"0]}", b"", b"")


# --- flat files


def _framed(header: bytes, digests: bytes, data: bytes) -> bytes:
    head = struct.pack("<8sII", b"POLYSKY1", len(header), len(digests) // 16) + header + digests
    return head + bytes(-len(head) % 4096) + data


def flat_files() -> Iterator[Case]:
    """Yield artifacts whose frame, section table or parameters lie."""
    sound = text_model()
    for name, offset, form, values in (
        ("header size", 8, "<I", (0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 24)),
        ("pages", 12, "<I", (0, 1, 0xFFFFFFFF, 1 << 28)),
    ):
        for value in values:
            yield f"{name} {value}", sound[:offset] + struct.pack(form, value) + sound[offset + 4 :]
    for name, change in _tables():
        header = FlatFile(sound).header
        yield (
            f"table: {name}",
            flatfile.with_header(sound, {**header, "sections": change(dict(header["sections"]))}),
        )
    for number, (data, path, value) in enumerate(_parameters()):
        header = json.loads(json.dumps(FlatFile(data).header))
        place = header
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
        yield f"parameter {number} {path[-1]}", flatfile.with_header(data, header)
    raw = json.dumps({**FlatFile(sound).header, "data_size": 0, "sections": {}, "digests_sha256": _sha256(b"")})
    yield "no data", _framed(raw.encode(), b"", b"")
    for text in (b"", b"null", b"[]", b"{", b"\xff", b'{"sections": 3}', b'{"sections":{"a":[]}}', b"9" * 5000):
        yield f"header {text[:16]!r}", _framed(text, b"", b"")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tables() -> Iterator[tuple[str, Callable[[dict[str, Any]], Any]]]:
    rows: tuple[list[Any], ...] = (
        [0, 1 << 40, "u1", [1 << 40]],
        [1 << 40, 64, "u1", [64]],
        [-64, 64, "u1", [64]],
        [0, 64, "O", [8]],
        [0, 64, "f8", [-8, -1]],
        [0, 64, "f8", [1 << 62, 1 << 62]],
        [0.0, 64, "u1", [64]],
        [0, 64.0, "u1", [64]],
        [0, 64, "u1", [64.0]],
        [0, 1, "u1", [True]],
        [False, 64, "u1", [64]],
        [0, 64, "u1", "64"],
        [0, 64, ["u1"], [64]],
        [0, 0, "u1", [0] * 2000],
        [0, 64],
    )
    for number, row in enumerate(rows):
        yield f"row {number}", lambda table, row=row: {**table, "golden": row}  # type: ignore[misc]
        yield f"all {number}", lambda table, row=row: dict.fromkeys(table, row)  # type: ignore[misc]
    yield "none", lambda table: {}
    yield "list", lambda table: [1, 2]


def _parameters() -> Iterator[tuple[bytes, list[Any], Any]]:
    huge: tuple[Any, ...] = (-1, 0, 1 << 31, 1 << 62, 10**30, 1e308, "x", None, [], {}, "../../os", True)
    for data, paths in (
        (
            text_model(),
            (["blocks", 0, "params", "width"], ["estimator", "kind"], ["blocks", 0, "kind"], ["classes"]),
        ),
        (text_model(), (["blocks", 0, "params", "options", "ngrams"], ["blocks", 0, "columns"], ["schema"])),
        (table_model(), (["estimator", "params"], ["blocks", 0, "params"], ["task"], ["format_version"])),
    ):
        for path in paths:
            for value in huge:
                yield data, path, value
    yield text_model(), ["blocks", 0, "params", "options", "ngrams"], [1, 1 << 40]
    yield text_model(), ["blocks", 0, "params", "options", "token_pattern"], "("
