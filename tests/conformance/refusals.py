"""Exchanges that are refused: credentials, names, bodies, limits, and a store that fails."""

from __future__ import annotations

from tests.conformance.exchange import Exchange, Pairs, Script, Unlike, Wire
from tests.conformance.predictions import CALLER, JSON, PHOTOS, PNG, PRICES, QUESTION, ROW, SUPPORT, post

BODY = b'{"text":"card"}'
AS_TEXT = "a body of a text type is handed over as text, so bytes that are no UTF-8 arrive as U+FFFD"


def get(path: str, *headers: tuple[str, str], query: str = "", method: str = "GET") -> Wire:
    """Return a request without a body."""
    return Wire(method, path, query, headers)


def with_token(value: str, name: str = "Authorization") -> Wire:
    """Return a prediction request with these credentials."""
    headers: Pairs = ((name, value), JSON)
    return Wire("POST", SUPPORT, "", headers, BODY)


_NOT_UTF8 = post(SUPPORT, b'{"text": "\xff\xfe card"}', JSON)
_REPLACED = Unlike(
    AS_TEXT,
    seen=post(
        SUPPORT,
        '{"text": "\ufffd\ufffd card"}'.encode(),
        JSON,
        ("Content-Length", str(len(_NOT_UTF8.body))),
    ),
)

CREDENTIALS = (
    Exchange("no-token", Wire("POST", SUPPORT, "", (JSON,), BODY)),
    Exchange("another-scheme", with_token("Basic dXNlcjpwYXNz")),
    Exchange("token-that-is-no-token", with_token("Bearer secret")),
    Exchange("forged-token", with_token("Bearer {forged}")),
    Exchange("expired-token", with_token("Bearer {expired}")),
    Exchange("revoked-token", with_token("Bearer {revoked}")),
    Exchange("bad-api-key", with_token("nobody", "X-Api-Key")),
    Exchange(
        "two-credentials",
        Wire("POST", SUPPORT, "", (CALLER, ("X-Api-Key", "{trainer}"), JSON), BODY),
    ),
    Exchange(
        "same-credential-twice", Wire("POST", SUPPORT, "", (CALLER, ("X-Api-Key", "{predictor}"), JSON), BODY)
    ),
    Exchange("scheme-in-capitals", with_token("BEARER {predictor}")),
    Exchange("role-too-low", Wire("POST", "/train", "", (CALLER, JSON), b'{"model":"support"}')),
    Exchange("role-without-the-right", get("/models", ("Authorization", "Bearer {metrics}"))),
    Exchange("model-out-of-scope", with_token("Bearer {scoped}")),
    Exchange("stranger-at-unknown-path", get("/nowhere")),
    Exchange("stranger-at-wrong-method", get("/predict")),
)

BODIES = (
    Exchange("empty-body", post(SUPPORT, b"")),
    Exchange("empty-body-of-json", post(SUPPORT, b"", JSON)),
    Exchange("empty-json", post(SUPPORT, {})),
    Exchange("not-json", post(SUPPORT, b"{text: card}", JSON)),
    Exchange("number-that-is-not-finite", post(PRICES, b'{"features": {"size": NaN, "town": "a"}}', JSON)),
    Exchange("key-twice", post(SUPPORT, b'{"text": "a", "text": "b"}', JSON)),
    Exchange("not-an-object", post(SUPPORT, b'["card"]', JSON)),
    Exchange("unknown-key", post(SUPPORT, {"txet": "card"})),
    Exchange(
        "not-utf-8",
        _NOT_UTF8,
        unlike={"http-api-v2": _REPLACED, "function-url": _REPLACED, "alb": _REPLACED, "alb-multi": _REPLACED},
    ),
    Exchange("no-media-type", post(SUPPORT, BODY)),
    Exchange("unknown-media-type", post(SUPPORT, b"<a/>", ("Content-Type", "application/xml"))),
    Exchange("unknown-charset", post(SUPPORT, BODY, ("Content-Type", "application/json; charset=latin-1"))),
    Exchange("form-body", post(SUPPORT, b"text=card", ("Content-Type", "application/x-www-form-urlencoded"))),
    Exchange("body-over-the-limit", post(SUPPORT, b'{"text":"' + b"x" * 4086 + b'"}', JSON)),
    Exchange("binary-body-over-the-limit", post(PHOTOS, PNG + b"\0" * 4096, ("Content-Type", "image/png"))),
    Exchange("too-many-rows", post(SUPPORT, {"texts": ["parcel"] * 9})),
    Exchange("no-rows", post(SUPPORT, {"texts": []})),
    Exchange(
        "rows-that-break-the-schema", post(PRICES, {"rows": [ROW, {"size": "big"}, {"town": "Köln", "x": 1}]})
    ),
    Exchange("picture-that-is-none", post(PHOTOS, b"\x89PNG\r\n\x1a\n\0\xff", ("Content-Type", "image/png"))),
    Exchange("base64-that-is-none", post(PHOTOS, {"image": "!!!!QUJD"})),
    Exchange("picture-for-a-text-model", post(SUPPORT, PNG, ("Content-Type", "image/png"))),
    Exchange("two-models", post(SUPPORT, {"model": "prices", **QUESTION})),
    Exchange("several-models", post("/predict", QUESTION)),
    Exchange("unknown-model", post("/predict/nothing", QUESTION)),
    Exchange("name-in-capitals", post("/predict/Support", QUESTION)),
)

FAILING = (
    Exchange("store-down-for-a-token", post(SUPPORT, QUESTION), faults={"auth/": "unavailable"}),
    Exchange("store-down-for-a-model", post(PRICES, {"features": ROW}), faults={"reg/": "unavailable"}),
    Exchange("not-ready", get("/health/ready")),
    Exchange("store-back", post(SUPPORT, QUESTION), advance_s=30.0, faults={}),
    Exchange("damaged-model", post(PHOTOS, PNG, ("Content-Type", "image/png")), faults={"/art/": "damaged"}),
    Exchange("degraded", get("/health")),
    Exchange(
        "damaged-log",
        get("/models/support/history", ("Authorization", "Bearer {admin}")),
        faults={"/log/": "damaged"},
    ),
    Exchange(
        "models-of-which-some-are-damaged",
        get("/models", CALLER),
        advance_s=30.0,
        faults={"/alias/production": "damaged"},
    ),
    Exchange("bug", get("/models/prices/history", ("Authorization", "Bearer {admin}")), faults={"/log/": "bug"}),
)

RATED = (
    Exchange("first-of-a-burst", post(SUPPORT, QUESTION)),
    Exchange("second-of-a-burst", post(SUPPORT, QUESTION)),
    Exchange("over-the-rate", post(SUPPORT, QUESTION)),
    Exchange("after-a-while", post(SUPPORT, QUESTION), advance_s=2.0),
)

SCRIPTS = (
    Script("credentials", CREDENTIALS),
    Script("bodies", BODIES),
    Script("failing", FAILING),
    Script("rated", RATED, settings={"rate_per_s": 1.0}),
    Script(
        "flood",
        (
            *(Exchange(f"guess-{number}", with_token("Bearer {forged}")) for number in range(21)),
            Exchange("honest-caller-in-a-flood", with_token("Bearer {predictor}"), advance_s=1.0),
        ),
    ),
)
