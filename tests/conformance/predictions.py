"""Exchanges about predicting: every form of rows, pictures, batches, pinned versions, unicode, gzip."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from tests.conformance.exchange import Exchange, Pairs, Script, Unlike, Wire
from tests.conformance.stage import ONE

CALLER = ("Authorization", "Bearer {predictor}")
JSON = ("Content-Type", "application/json")
GZIP = ("Content-Encoding", "gzip")
# two 16x16 pictures, dark and light, made once: other versions of the encoder would write other bytes
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAGklEQVR4nGMUYUAFTAxECVxHEmAk04zBKAAA67QBHmh6JWEAAAAASUVORK5CYII="
)
LIGHT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAG0lEQVR4nGO8w4AKmBhIEnBnYGBgpNCMwSQAAOJbAh4gyne7AAAAAElFTkSuQmCC"
)
INFLATES = "the REST API inflates request bodies by itself and leaves the header in place"


def post(path: str, body: Any, *more: tuple[str, str], query: str = "") -> Wire:
    """Return a prediction request by a predictor; a body that is not bytes goes as JSON."""
    headers: Pairs = (CALLER, *more)
    if not isinstance(body, bytes):
        body, headers = json.dumps(body, ensure_ascii=False).encode(), (CALLER, JSON, *more)
    return Wire("POST", path, query, headers, body)


def packed(body: bytes) -> bytes:
    """Return the body as gzip, stored, so that every version of zlib would write the same."""
    size = len(body).to_bytes(2, "little")
    return _member(body, b"\1" + size + bytes(byte ^ 0xFF for byte in size) + body)


def _member(body: bytes, deflated: bytes) -> bytes:
    ends = zlib.crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated + ends


SUPPORT, PRICES, PHOTOS = "/predict/support", "/predict/prices", "/predict/photos"
ROW = {"size": 2.5, "town": "a"}
QUESTION = {"text": "my card was declined"}
LONG = json.dumps({"text": "parcel " * 700}).encode()
BOMB = _member(LONG, base64.b64decode("7cWxDQAQEADAVeTHsI2ITiGikIjdDeKuuROr7RU5xSiztp4kSZIkSZKkb4v7AA=="))

FORMS = (
    Exchange("text", post(SUPPORT, QUESTION)),
    Exchange("texts", post(SUPPORT, {"texts": ["where is my parcel", "cannot login"]})),
    Exchange("instances", post(SUPPORT, {"instances": ["refund please", "the app crashes"]})),
    Exchange("model-in-body", post("/predict", {"model": "support", **QUESTION})),
    Exchange("features", post(PRICES, {"features": ROW})),
    Exchange("features-as-list", post(PRICES, {"features": [4, "b"]})),
    Exchange("rows", post(PRICES, {"rows": [ROW, {"size": 6, "town": "Zürich"}]})),
    Exchange("missing-cells", post(PRICES, {"rows": [{"size": None, "town": "b"}]})),
    Exchange("split-frame", post(PRICES, {"dataframe_split": {"columns": ["town", "size"], "data": [["a", 1]]}})),
    Exchange("records", post(PRICES, {"dataframe_records": [ROW]})),
    Exchange("input-data", post(PRICES, {"input_data": {"columns": ["size", "town"], "data": [[5, "a"]]}})),
    Exchange(
        "tensors",
        post(
            PRICES,
            {
                "inputs": [
                    {"name": "size", "datatype": "FP64", "shape": [2], "data": [1.5, 5.5]},
                    {"name": "town", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
                ]
            },
        ),
    ),
    Exchange("csv", post(PRICES, b"size,town\n1,a\n5.5,Z\xc3\xbcrich\n", ("Content-Type", "text/csv"))),
    Exchange(
        "csv-with-charset",
        post(PRICES, b'\xef\xbb\xbfsize,town\r\n2,"b"\r\n', ("Content-Type", "text/csv; charset=utf-8")),
    ),
    Exchange("image-in-json", post(PHOTOS, {"image": base64.b64encode(PNG).decode()})),
    Exchange(
        "images-in-json", post(PHOTOS, {"images": [base64.b64encode(data).decode() for data in (PNG, LIGHT)]})
    ),
    Exchange("image-as-binary-body", post(PHOTOS, PNG, ("Content-Type", "image/png"))),
    Exchange("unicode-body", post(SUPPORT, {"text": 'Größe 世界 🎂 \u2028 "quoted" \\ parcel late'})),
    Exchange("escaped-unicode-body", post(SUPPORT, b'{"text": "\\u00e9 \\ud83c\\udf82 card"}', JSON)),
    Exchange("a-body-of-the-largest-size", post(SUPPORT, b'{"text":"' + b"x" * 4085 + b'"}', JSON)),
    Exchange("a-batch-of-the-largest-size", post(SUPPORT, {"texts": ["parcel"] * 8})),
    Exchange("request-id-of-the-client", post(SUPPORT, QUESTION, ("X-Request-Id", "order-66.a_b"))),
    Exchange("request-id-that-is-no-id", post(SUPPORT, QUESTION, ("X-Request-Id", "a b"))),
    Exchange("api-key", Wire("POST", SUPPORT, "", (("X-Api-Key", "{predictor}"), JSON), b'{"text":"card"}')),
    Exchange("media-type-in-capitals", post(SUPPORT, b'{"text":"card"}', ("CONTENT-TYPE", "Application/JSON"))),
    Exchange(
        "chunked-body",
        post(SUPPORT, QUESTION)._replace(chunked=True),
        unlike={
            "azure": Unlike(
                "the Functions host passes a body on only if Content-Length is above zero",
                seen=post(SUPPORT, b"", JSON)._replace(chunked=True),
            )
        },
    ),
)

PINS = (
    Exchange("version-in-query", post(SUPPORT, QUESTION, query="version=previous")),
    Exchange("version-in-header", post(SUPPORT, QUESTION, ("X-Model-Version", "previous"))),
    Exchange("version-in-body", post(SUPPORT, {**QUESTION, "version": "previous"})),
    Exchange("version-by-id", post(SUPPORT, QUESTION, query=f"version={ONE}")),
    Exchange("version-encoded-in-query", post(SUPPORT, QUESTION, query="%76ersion=pre%76ious")),
    Exchange("same-version-twice", post(SUPPORT, {**QUESTION, "version": "previous"}, query="version=previous")),
    Exchange(
        "different-versions",
        post(SUPPORT, QUESTION, ("X-Model-Version", "production"), query="version=previous"),
    ),
    Exchange(
        "version-twice-in-query",
        post(SUPPORT, QUESTION, query="version=previous&version=production"),
        unlike={
            "alb": Unlike(
                "without multi-value headers the load balancer keeps the last of several values",
                seen=post(SUPPORT, QUESTION, query="version=production"),
            )
        },
    ),
    Exchange(
        "version-twice-in-headers",
        post(SUPPORT, QUESTION, ("X-Model-Version", "production"), ("X-Model-Version", "previous")),
        unlike={
            "alb": Unlike(
                "without multi-value headers the load balancer keeps the last of several values",
                seen=post(SUPPORT, QUESTION, ("X-Model-Version", "previous")),
            )
        },
    ),
    Exchange("version-that-is-no-name", post(SUPPORT, QUESTION, query="version=Gr%C3%B6%C3%9Fe%20%26%3D%25")),
    Exchange("version-that-does-not-exist", post(SUPPORT, QUESTION, query="version=v-0123456789ab")),
    Exchange(
        "version-not-encoded-well",
        post(SUPPORT, QUESTION, query="version=%zz"),
        unlike={
            "api-gateway-v1": Unlike(
                "the REST API hands over decoded parameters: what was no encoding arrives as plain text",
                seen=post(SUPPORT, QUESTION, query="version=%25zz"),
            )
        },
    ),
    Exchange("plus-is-a-space-in-query", post(SUPPORT, QUESTION, query="version=a+b")),
    Exchange("empty-version-in-query", post(SUPPORT, QUESTION, query="version=")),
    Exchange("unknown-parameters-in-query", post(SUPPORT, QUESTION, query="a=1&b&=c&d=%26%3D&version=previous")),
)

COMPRESSED = (
    Exchange(
        "gzip-json",
        post(SUPPORT, packed(b'{"text": "my refund never came"}'), JSON, GZIP),
        unlike={"api-gateway-v1": Unlike(INFLATES, seen=post(SUPPORT, b'{"text": "my refund never came"}', JSON))},
    ),
    Exchange(
        "gzip-csv",
        post(PRICES, packed(b"size,town\n3,a\n"), ("Content-Type", "text/csv"), ("content-encoding", "GZIP")),
        unlike={
            "api-gateway-v1": Unlike(
                INFLATES, seen=post(PRICES, b"size,town\n3,a\n", ("Content-Type", "text/csv"))
            )
        },
    ),
    Exchange(
        "gzip-image",
        post(PHOTOS, packed(PNG), ("Content-Type", "image/png"), GZIP),
        unlike={"api-gateway-v1": Unlike(INFLATES, seen=post(PHOTOS, PNG, ("Content-Type", "image/png")))},
    ),
    Exchange(
        "gzip-that-inflates-too-far",
        post(SUPPORT, BOMB, JSON, GZIP),
        unlike={"api-gateway-v1": Unlike(INFLATES, seen=post(SUPPORT, LONG, JSON))},
    ),
    Exchange(
        "gzip-that-is-cut",
        post(SUPPORT, packed(b'{"text": "card"}')[:-4], JSON, GZIP),
        unlike={"api-gateway-v1": Unlike(INFLATES + ", so it refuses what is not whole", refused=400)},
    ),
    Exchange("identity", post(SUPPORT, QUESTION, ("Content-Encoding", "identity"))),
    Exchange("unknown-encoding", post(SUPPORT, QUESTION, ("Content-Encoding", "br"))),
)

SCRIPTS = (
    Script("forms", FORMS),
    Script("pins", PINS),
    Script("compressed", COMPRESSED),
    Script(
        "only-model",
        (
            Exchange("no-model-named", post("/predict", QUESTION)),
            Exchange("no-model-named-but-its-version", post("/predict", QUESTION, query="version=previous")),
        ),
        options={"models": ("support",)},
    ),
    Script("no-model", (Exchange("predict-without-models", post("/predict", QUESTION)),), options={"models": ()}),
)
