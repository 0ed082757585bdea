"""Bodies that are small on the wire and huge once opened; run as a process, it sends them with little memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

MORE = 160 << 20  # bytes of memory beyond those that the application takes at rest
HUGE = 512 << 20


def picture(width: int, height: int) -> bytes:
    """Return a PNG of one colour that claims, and holds, this many pixels; packed row by row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (1 + width // 8)) for _ in range(min(height, 4096))) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gzipped(total: int, layers: int = 1) -> bytes:
    """Return `total` zero bytes, packed as often as told."""
    packer = zlib.compressobj(9, wbits=31)
    block = b"\0" * (1 << 20)
    data = b"".join(packer.compress(block) for _ in range(total >> 20)) + packer.flush()
    for _ in range(layers - 1):
        data = gzip.compress(data, mtime=0)
    return data


def zipped(name: str, total: int) -> bytes:
    """Return a zip file with one member of `total` zero bytes."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file,
        file.open(name, "w", force_zip64=True) as member,
    ):
        for _ in range(total >> 20):
            member.write(b"\0" * (1 << 20))
    return target.getvalue()


def cases() -> dict[str, tuple[str, dict[str, str], bytes]]:
    """Return path, headers and body of each bomb."""
    json_type, packed = {"content-type": "application/json"}, {"content-encoding": "gzip"}
    csv = {"content-type": "text/csv"}
    zeros = gzipped(HUGE)
    return {
        "gzip to predict": ("/predict/support", json_type | packed, zeros[: 1 << 20]),
        "gzip in gzip": ("/predict/support", json_type | packed, gzipped(HUGE, 2)),
        "gzip to retrain": ("/retrain/support", csv | packed, zeros),
        "zip to retrain": ("/retrain/support", {"content-type": "application/zip"}, zipped("data.csv", 256 << 20)),
        "npz to predict": ("/predict/support", {"content-type": "application/x-npz"}, zipped("x.npy", 256 << 20)),
        "picture": ("/predict/photos", {"content-type": "image/png"}, picture(65_000, 65_000)),
        "long picture": ("/predict/photos", {"content-type": "image/png"}, picture(8, 1_000_000_000)),
        "deep JSON": ("/predict/support", json_type, b"[" * 1_000_000),
        "wide JSON": ("/predict/support", json_type, b'{"texts":[' + b'"",' * 300_000 + b'""]}'),
        "many cells": ("/predict/support", csv, b"text" + b"\n," * 400_000),
        "huge shape": (
            "/predict/prices",
            json_type,
            json.dumps(
                {"inputs": [{"name": "size", "shape": [1 << 40], "datatype": "FP64", "data": []}]}
            ).encode(),
        ),
    }


def main() -> None:
    """Print, as JSON, the status that each bomb gets while memory is short."""
    from tests.core.house import House, image_model, table_model
    from tests.core.house import picture as small

    house = House(max_upload_bytes=8 << 20)
    house.publish()
    house.publish("prices", table_model())
    house.publish("photos", image_model())
    token = house.token("admin")
    send: Callable[..., Any] = house.send
    fine = [
        send("POST", "/predict/photos", small(9), token=token, headers={"content-type": "image/png"}).status,
        send("POST", "/predict/support", {"text": "a"}, token=token).status,
        send("POST", "/predict/prices", {"features": {"size": 1, "town": "a"}}, token=token).status,
    ]
    made = cases()
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MORE, taken + MORE))
    statuses = {
        name: send("POST", path, body, token=token, headers=headers).status
        for name, (path, headers, body) in made.items()
    }
    json.dump({"fine": fine, "statuses": statuses}, sys.stdout)


if __name__ == "__main__":
    main()
