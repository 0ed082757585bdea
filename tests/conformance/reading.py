"""Exchanges that read: models, health, metrics, documentation; HEAD, OPTIONS, CORS, paths as they may be spelt."""

from __future__ import annotations

from tests.conformance.exchange import Exchange, Script, Unlike, Wire
from tests.conformance.predictions import CALLER, JSON, QUESTION, post
from tests.conformance.refusals import get

ADMIN = ("Authorization", "Bearer {admin}")
METRICS = ("Authorization", "Bearer {metrics}")
ORIGIN = ("Origin", "https://app.example")
STRANGE_ORIGIN = ("Origin", "https://evil.example")
PREFLIGHT = (("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization"))
DECODES = "the HTTP API hands over the path decoded"
TWICE = "the HTTP API decodes the path twice"
LIMIT_1_MB = "the load balancer takes answers of at most 1 MB from a function"

MODELS = (
    Exchange("models", get("/models", CALLER)),
    Exchange("models-in-scope", get("/models", ("Authorization", "Bearer {scoped}"))),
    Exchange("models-after", get("/models", CALLER, query="after=photos")),
    Exchange("models-after-unicode", get("/models", CALLER, query="after=%E2%82%AC%26x%3D1")),
    Exchange("model", get("/models/support", CALLER)),
    Exchange("model-with-unicode-values", get("/models/prices", CALLER)),
    Exchange("model-of-a-version", get("/models/support", CALLER, query="version=previous")),
    Exchange("model-that-does-not-exist", get("/models/nothing", CALLER)),
    Exchange("versions", get("/models/support/versions", ADMIN)),
    Exchange("version", get("/models/support/versions/previous", ADMIN)),
    Exchange("version-unknown", get("/models/support/versions/v-0123456789ab", ADMIN)),
    Exchange("history", get("/models/support/history", ADMIN)),
    Exchange(
        "history-at-a-time",
        get("/models/support/history", ADMIN, query="at=2023-11-14T22%3A13%3A20%2B00%3A00&limit=2"),
    ),
    Exchange("history-at-no-time", get("/models/support/history", ADMIN, query="at=yesterday")),
    Exchange("history-limit-out-of-range", get("/models/support/history", ADMIN, query="limit=0")),
    Exchange("job-that-does-not-exist", get("/jobs/support.0123456789abcdef", ADMIN)),
    Exchange("job-that-is-no-job", get("/jobs/support", ADMIN)),
)

HEALTH = (
    Exchange("live", get("/health/live")),
    Exchange("health-of-a-cold-process", get("/health")),
    Exchange("ready", get("/health/ready")),
    Exchange("health", get("/health"), advance_s=12.5),
    Exchange("health-with-a-bad-token", get("/health", ("Authorization", "Bearer nobody"))),
    Exchange("predict-for-metrics", post("/predict/support", QUESTION)),
    Exchange("metrics", get("/metrics", METRICS)),
    Exchange("metrics-prometheus", get("/metrics/prometheus", METRICS)),
    Exchange("metrics-without-the-right", get("/metrics", CALLER)),
)

DOCS = (
    Exchange("docs", get("/docs", CALLER)),
    Exchange("docs-script", get("/docs/start.js", CALLER)),
    Exchange("docs-style", get("/docs/swagger-ui.css", CALLER)),
    Exchange("docs-picture", get("/docs/favicon-32x32.png", CALLER)),
    Exchange(
        "docs-bundle",
        get("/docs/swagger-ui-bundle.js", CALLER),
        unlike={name: Unlike(LIMIT_1_MB, refused=502) for name in ("alb", "alb-multi")},
    ),
    Exchange("docs-openapi-30", get("/docs/openapi-30.json", CALLER)),
    Exchange("docs-file-unknown", get("/docs/secret.txt", CALLER)),
    Exchange(
        "docs-file-that-climbs",
        get("/docs/..%2Fapp.py", CALLER),
        unlike={
            "http-api-v2": Unlike(DECODES, seen=get("/docs/../app.py", CALLER)),
        },
    ),
    Exchange("openapi", get("/openapi.json", CALLER)),
    Exchange("docs-without-a-token", get("/docs")),
)

METHODS = (
    Exchange("head-of-health", get("/health/live", method="HEAD")),
    Exchange("head-of-models", get("/models", CALLER, method="HEAD")),
    Exchange("head-of-a-picture", get("/docs/favicon-32x32.png", CALLER, method="HEAD")),
    Exchange("head-without-a-token", get("/models", method="HEAD")),
    Exchange("head-where-only-post-is", get("/predict", CALLER, method="HEAD")),
    Exchange("options", get("/predict/support", method="OPTIONS")),
    Exchange("options-of-an-alias", get("/models/support/aliases/staging", method="OPTIONS")),
    Exchange("options-of-nowhere", get("/nowhere", method="OPTIONS")),
    Exchange("options-of-nowhere-by-a-caller", get("/nowhere", CALLER, method="OPTIONS")),
    Exchange("get-where-only-post-is", get("/predict", CALLER)),
    Exchange("delete", get("/models/support", ADMIN, method="DELETE")),
    Exchange("patch", Wire("PATCH", "/models/support/aliases/staging", "", (ADMIN, JSON), b"{}")),
    Exchange("preflight", get("/predict/support", ORIGIN, *PREFLIGHT, method="OPTIONS")),
    Exchange("preflight-of-a-stranger", get("/predict/support", STRANGE_ORIGIN, *PREFLIGHT, method="OPTIONS")),
    Exchange("cors", post("/predict/support", QUESTION, ORIGIN)),
    Exchange("cors-of-a-refusal", get("/models", ORIGIN)),
    Exchange("cors-of-a-stranger", post("/predict/support", QUESTION, STRANGE_ORIGIN)),
)

PATHS = (
    Exchange("encoded-letters-in-path", post("/predict/%73uppor%74", QUESTION)),
    Exchange("encoded-fixed-segment", get("/%68ealth/live")),
    Exchange(
        "encoded-slash-in-path",
        get("/models/a%2Fb", CALLER),
        unlike={
            "http-api-v2": Unlike(DECODES, seen=get("/models/a/b", CALLER)),
        },
    ),
    Exchange(
        "encoded-question-mark-in-path",
        get("/models/support%3Fx", CALLER, query="version=previous"),
        unlike={
            "http-api-v2": Unlike(
                DECODES + " and cuts it at a question mark",
                seen=get("/models/support", CALLER, query="version=previous"),
            ),
        },
    ),
    Exchange("encoded-hash-in-path", get("/models/a%23b", CALLER)),
    Exchange(
        "encoded-percent-in-path",
        get("/models/50%25", CALLER),
        unlike={
            "http-api-v2": Unlike(TWICE + " and refuses what is no encoding then", refused=400),
        },
    ),
    Exchange(
        "encoded-twice-in-path",
        get("/models/%2573upport", CALLER),
        unlike={
            "http-api-v2": Unlike(TWICE, seen=get("/models/support", CALLER)),
            "azure": Unlike(
                "the Functions host decodes the path and encodes it again, but leaves what looks encoded",
                seen=get("/models/%73upport", CALLER),
            ),
        },
    ),
    Exchange("encoded-thrice-in-path", get("/models/%252573upport", CALLER)),
    Exchange("plus-in-path", get("/models/a+b", CALLER)),
    Exchange("space-in-path", get("/models/a%20b", CALLER)),
    Exchange("unicode-in-path", get("/models/%E4%B8%96%E7%95%8C", CALLER)),
    Exchange(
        "path-that-is-no-utf-8",
        get("/models/%FF", CALLER),
        unlike={
            "http-api-v2": Unlike(
                DECODES + ": what is no UTF-8 arrives as U+FFFD", seen=get("/models/%EF%BF%BD", CALLER)
            ),
        },
    ),
    Exchange(
        "bad-escape-in-path",
        get("/models/a%zz", CALLER),
        unlike={
            "http-api-v2": Unlike(DECODES + " and refuses what is no encoding", refused=400),
            "azure": Unlike(
                "the Functions host encodes a percent sign that encodes nothing",
                seen=get("/models/a%25zz", CALLER),
            ),
        },
    ),
    Exchange("slash-at-the-end", get("/models/", CALLER)),
    Exchange("two-slashes", get("/models//support", CALLER)),
    Exchange("root", get("/", CALLER)),
    Exchange("favicon", get("/favicon.ico", CALLER)),
    Exchange("robots", get("/robots.txt")),
    Exchange("nowhere", get("/a/b/c/d", CALLER, query="x=%20")),
)

SCRIPTS = (
    Script("models", MODELS),
    Script("health", HEALTH),
    Script("docs", DOCS),
    Script("methods", METHODS),
    Script("paths", PATHS),
    Script(
        "base-path",
        (
            Exchange("live-under-a-base", get("/ml/health/live")),
            Exchange("predict-under-a-base", post("/ml/predict/support", QUESTION)),
            Exchange("docs-under-a-base", get("/ml/docs")),
            Exchange("outside-of-the-base", get("/mlx/health/live", CALLER)),
        ),
        settings={"base_path": "/ml", "public_docs": True},
    ),
    Script(
        "predict-only",
        (
            Exchange("predict-without-a-store", post("/predict/support", QUESTION)),
            Exchange("train-without-a-store", Wire("POST", "/train", "", (ADMIN, JSON), b"{}")),
            Exchange("openapi-without-a-store", get("/openapi.json", CALLER)),
        ),
        options={"control": False},
    ),
)
