"""Exchanges that change something: aliases, rollback, retiring, training jobs, idempotency keys."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.exchange import Exchange, Script, Unlike, Wire
from tests.conformance.predictions import GZIP, INFLATES, JSON, QUESTION, packed, post
from tests.conformance.reading import ADMIN
from tests.conformance.refusals import get
from tests.conformance.stage import ONE, SPARE, TWO

TRAINER = ("Authorization", "Bearer {trainer}")
CSV = ("Content-Type", "text/csv")
ROWS = b"text,label\nthe parcel is lost,delivery\ncharged twice \xe2\x82\xac,billing\n"
LARGE = b"text,label\n" + b"where is my parcel,delivery\n" * 250_000
LIMIT_6_MB = "a function is called with at most 6 MB"
LIMIT_1_MB = "the load balancer calls a function with at most 1 MB of body"


def act(path: str, body: Any = None, *more: tuple[str, str], method: str = "POST") -> Wire:
    """Return an admin's request; None is no body."""
    if body is None:
        return Wire(method, path, "", (ADMIN, *more))
    return Wire(method, path, "", (ADMIN, JSON, *more), json.dumps(body, ensure_ascii=False).encode())


def key(value: str) -> tuple[str, str]:
    """Return the header that makes repeating harmless."""
    return ("Idempotency-Key", value)


PROMOTE, ROLLBACK = "/models/support/promote", "/models/support/rollback"
STAGING = "/models/support/aliases/staging"

ALIASES = (
    Exchange("promote", act(PROMOTE, {"version": ONE, "reason": 'Größe "1" — 世界'}, key("a-1"))),
    Exchange("promote-again", act(PROMOTE, {"version": ONE, "reason": 'Größe "1" — 世界'}, key("a-1"))),
    Exchange("promote-another-with-the-same-key", act(PROMOTE, {"version": TWO}, key("a-1"))),
    Exchange("predict-after-promote", post("/predict/support", QUESTION), advance_s=10.0),
    Exchange("rollback", act(ROLLBACK)),
    Exchange("predict-after-rollback", post("/predict/support", QUESTION), advance_s=10.0),
    Exchange("rollback-to", act(ROLLBACK, {"to": ONE})),
    Exchange("put-alias", act(STAGING, {"version": TWO}, method="PUT")),
    Exchange("post-alias", act(STAGING, {"version": "production"}, key("b-1"))),
    Exchange("put-alias-stale", act(STAGING, {"version": TWO, "expect_rev": 0}, method="PUT")),
    Exchange(
        "put-alias-that-is-no-name", act("/models/support/aliases/St%C3%A4ging", {"version": TWO}, method="PUT")
    ),
    Exchange("promote-nothing", act(PROMOTE, {})),
    Exchange("promote-unknown-field", act(PROMOTE, {"version": TWO, "force": True})),
    Exchange("promote-unknown-version", act(PROMOTE, {"version": "v-0123456789ab"})),
    Exchange("promote-by-a-trainer", Wire("POST", PROMOTE, "", (TRAINER, JSON), b'{"version":"staging"}')),
    Exchange("retire-in-use", act(f"/models/support/versions/{ONE}/retire")),
    Exchange("move-what-follows", act(PROMOTE, {"version": TWO, "alias": "previous"})),
    Exchange("retire", act(f"/models/support/versions/{SPARE}/retire", None, key("r-1"))),
    Exchange("retire-again", act(f"/models/support/versions/{SPARE}/retire", None, key("r-1"))),
    Exchange("promote-retired", act(PROMOTE, {"version": SPARE})),
    Exchange("rollback-of-a-model-that-never-moved", act("/models/prices/rollback")),
    Exchange("key-that-is-no-key", act(ROLLBACK, None, key("a b"))),
    Exchange("history-after-all", get("/models/support/history", ADMIN)),
)

JOBS = (
    Exchange("train", Wire("POST", "/train", "", (TRAINER, JSON), b'{"model":"support","reason":"more"}')),
    Exchange("train-with-key", Wire("POST", "/train", "", (TRAINER, JSON, key("t-1")), b'{"model":"support"}')),
    Exchange(
        "train-with-key-again", Wire("POST", "/train", "", (TRAINER, JSON, key("t-1")), b'{"model":"support"}')
    ),
    Exchange(
        "train-with-key-otherwise", Wire("POST", "/train", "", (TRAINER, JSON, key("t-1")), b'{"model":"prices"}')
    ),
    Exchange(
        "train-with-key-for-another-reason",
        Wire("POST", "/train", "", (TRAINER, JSON, key("t-1")), b'{"model":"support","reason":"x"}'),
    ),
    Exchange("train-unknown-model", Wire("POST", "/train", "", (TRAINER, JSON), b'{"model":"nothing"}')),
    Exchange("retrain-without-data", Wire("POST", "/retrain/support", "", (TRAINER,))),
    Exchange("retrain-model-in-body", Wire("POST", "/retrain", "", (TRAINER, JSON), b'{"model":"support"}')),
    Exchange(
        "retrain-rows",
        Wire(
            "POST",
            "/retrain/support",
            "",
            (TRAINER, JSON),
            b'{"rows":[{"text":"card \xe2\x82\xac","label":"billing"}]}',
        ),
    ),
    Exchange("retrain-csv", Wire("POST", "/retrain", "model=%73upport", (TRAINER, CSV), ROWS)),
    Exchange("retrain-csv-again", Wire("POST", "/retrain/support", "", (TRAINER, CSV), ROWS)),
    Exchange(
        "retrain-gzip",
        Wire("POST", "/retrain/support", "", (TRAINER, CSV, GZIP), packed(ROWS * 2)),
        unlike={
            "api-gateway-v1": Unlike(INFLATES, seen=Wire("POST", "/retrain/support", "", (TRAINER, CSV), ROWS * 2))
        },
    ),
    Exchange(
        "retrain-binary",
        Wire(
            "POST",
            "/retrain/support",
            "",
            (TRAINER, ("Content-Type", "application/vnd.apache.parquet")),
            b"PAR1\x00\xff\xfe\x80PAR1",
        ),
    ),
    Exchange("retrain-csv-empty", Wire("POST", "/retrain/support", "", (TRAINER, CSV))),
    Exchange(
        "retrain-picture", Wire("POST", "/retrain/support", "", (TRAINER, ("Content-Type", "image/png")), b"\x89")
    ),
    Exchange(
        "retrain-elsewhere", Wire("POST", "/retrain/support", "", (TRAINER, JSON), b'{"upload":"uploads/x/1.csv"}')
    ),
    Exchange(
        "retrain-large",
        Wire("POST", "/retrain/support", "", (TRAINER, CSV), LARGE),
        unlike={
            "api-gateway-v1": Unlike(LIMIT_6_MB, refused=413),
            "http-api-v2": Unlike(LIMIT_6_MB, refused=413),
            "function-url": Unlike(LIMIT_6_MB, refused=413),
            "alb": Unlike(LIMIT_1_MB, refused=413),
            "alb-multi": Unlike(LIMIT_1_MB, refused=413),
        },
    ),
    Exchange(
        "retrain-too-large",
        Wire("POST", "/retrain/support", "", (TRAINER, CSV), b"x" * ((8 << 20) + 1)),
        unlike={
            name: Unlike(LIMIT_6_MB, refused=413) for name in ("api-gateway-v1", "http-api-v2", "function-url")
        }
        | {name: Unlike(LIMIT_1_MB, refused=413) for name in ("alb", "alb-multi")},
    ),
)

FOLLOWED = (
    Exchange("upload", Wire("POST", "/retrain/support", "", (TRAINER, CSV, key("u-1")), ROWS)),
    Exchange("upload-again-with-its-key", Wire("POST", "/retrain/support", "", (TRAINER, CSV, key("u-1")), ROWS)),
    Exchange(
        "upload-another-with-its-key", Wire("POST", "/retrain/support", "", (TRAINER, CSV, key("u-1")), b"x")
    ),
    Exchange("job-queued", get("/jobs/{job}", TRAINER)),
    Exchange("job-running", get("/jobs/{job}", TRAINER), act="claim"),
    Exchange("job-succeeded", get("/jobs/{job}", TRAINER), act="publish", advance_s=5.0),
    Exchange("new-version", get("/models/support/versions", ADMIN)),
    Exchange("upload-of-bad-data", Wire("POST", "/retrain/support", "", (TRAINER, CSV), b"text,label\n1,2\n")),
    Exchange("job-rejected", get("/jobs/{job}", TRAINER), act="reject"),
    Exchange("job-out-of-sight", get("/jobs/{job}", ("Authorization", "Bearer {scoped_trainer}"))),
)

SCRIPTS = (Script("aliases", ALIASES), Script("jobs", JOBS), Script("followed", FOLLOWED))
