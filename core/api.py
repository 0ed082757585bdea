"""The endpoint table, what a handler is given, and the one table from error code to HTTP status."""

from __future__ import annotations

import importlib
import re
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from core.auth import PERMISSIONS, Principal
from core.errors import IntegrityError, MalformedBody, NotFound
from core.inference import PRODUCTION
from core.keys import is_name
from core.telemetry import MAX_WAITING
from core.tuples import NamedTuple
from core.web import PUBLIC, Endpoint, Request, Response, Router, content

if TYPE_CHECKING:
    from core.config import Settings
    from core.inference import Predictor
    from core.store import ObjectStore
    from core.telemetry import Telemetry, Update
    from core.versions import Timing

STATUS: Mapping[str, int] = {
    "malformed_body": 400,
    "invalid_name": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "unsupported_media": 415,
    "invalid_input": 422,
    "idempotency_mismatch": 422,
    "data_rejected": 422,
    "rate_limited": 429,
    "integrity_failure": 503,
    "unavailable": 503,
}


class Counters:
    """What this process counts for its health answer. Thread-safe without a lock: a deque's ends are."""

    __slots__ = ("_lock", "_rows", "_total", "active", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.active: deque[None] = deque()  # one entry a request being answered
        self._rows: deque[int] = deque()  # predicted, but not yet added up
        self._total = 0
        self._lock = allocate_lock()

    def add(self, rows: int) -> None:
        """Add to the rows predicted."""
        self._rows.append(rows)
        if len(self._rows) >= MAX_WAITING:
            self.predictions()

    def predictions(self) -> int:
        """Return how many rows were predicted."""
        with self._lock:
            for _ in range(len(self._rows)):
                self._total += self._rows.popleft()
            return self._total


class Services(NamedTuple):
    """What the handlers work with; `store` is None in a process that only predicts, `names` lists the models.

    `kept` holds what handlers make once and use again.
    """

    settings: Settings
    predictor: Predictor
    telemetry: Telemetry
    timing: Timing
    counters: Counters
    random_bytes: Callable[[int], bytes]
    sleep: Callable[[float], None]
    kept: dict[str, Any]
    names: Callable[[], list[str]]
    store: ObjectStore | None = None


class Call(NamedTuple):
    """One request on its way through a handler; what is put into `facts` is logged, into `numbers` measured."""

    request: Request
    request_id: str
    principal: Principal
    endpoint: Endpoint
    params: Mapping[str, str]
    facts: dict[str, Any]
    numbers: list[Update]

    def content(self, limit: int) -> bytes:
        """Return the decoded body. Raises TooLarge, UnsupportedMedia, MalformedBody."""
        return content(self.request, limit)


Handler = Callable[[Services, Call], Response]


@cache
def handler(name: str) -> Handler:
    """Return the function `module.function` of core; its module is imported now if it was not yet."""
    module, _, function = name.partition(".")
    found: Handler = getattr(importlib.import_module(f"core.{module}"), function)
    return found


_JOB = r"[a-z0-9][a-z0-9-]{0,62}\.[0-9a-f]{16}"  # compiled when first asked for, not at each cold start
_FILE = r"[a-z0-9][a-z0-9_-]{0,62}(\.[a-z0-9]{1,8}){1,2}"


def illegal_param(params: Mapping[str, str]) -> str:
    """Return the name of a segment that does not match its pattern, "" if all do."""
    for name, value in params.items():
        if name == "job":
            sound = re.fullmatch(_JOB, value, re.ASCII) is not None
        elif name == "asset":
            sound = re.fullmatch(_FILE, value, re.ASCII) is not None
        else:
            sound = is_name(value)
        if not sound:
            return name
    return ""


def only_model(services: Services, principal: Principal) -> str:
    """Return the one model there is in the caller's scope, or the one of several that serves.

    A file under a misspelt name makes a log without any version: that must not stop who names no model.
    Raises MalformedBody, NotFound.
    """
    found = [name for name in services.names() if principal.sees(name)]
    if not found:
        raise NotFound("there is no model yet")
    if len(found) > 1:
        found = list(islice((name for name in found if _serves(services, name)), 2)) or found
    if len(found) > 1:
        raise MalformedBody("there are several models: name one in the path, or as `model` in the body")
    return found[0]


def _serves(services: Services, name: str) -> bool:
    try:
        services.predictor.target(name, PRODUCTION)
    except NotFound:
        return False
    except IntegrityError:
        return True  # it did, and may again: another model must not answer in its place
    return True


_PREDICT = ("predict", "http", "serving.predict", "PredictRequest", "PredictResponse")
_TRAIN = ("train", "control", "control.train", "TrainRequest", "JobAccepted")
_RETRAIN = ("train", "control", "control.retrain", "RetrainRequest", "JobAccepted")

ENDPOINTS = (
    Endpoint("POST", "/predict", *_PREDICT, "Predict with the model named in the body, or the only one", "rows"),
    Endpoint("POST", "/predict/{model}", *_PREDICT, "Predict", "rows"),
    Endpoint("GET", "/models", "model:read", "http", "serving.models", "", "Models", "List the models"),
    Endpoint(
        "GET",
        "/models/{model}",
        "model:read",
        "http",
        "serving.model",
        "",
        "ModelCard",
        "Describe a model's version",
    ),
    Endpoint(
        "GET",
        "/models/{model}/versions",
        "version:read",
        "control",
        "control.versions",
        "",
        "Versions",
        "List a model's versions, newest first",
    ),
    Endpoint(
        "GET",
        "/models/{model}/versions/{version}",
        "version:read",
        "control",
        "control.version",
        "",
        "Version",
        "Describe a version, given by its id or an alias",
    ),
    Endpoint(
        "POST",
        "/models/{model}/versions/{version}/retire",
        "retire",
        "control",
        "control.retire",
        "",
        "Version",
        "Retire a version: no alias may take it again",
    ),
    Endpoint(
        "POST",
        "/models/{model}/promote",
        "alias:move",
        "control",
        "control.promote",
        "PromoteRequest",
        "Alias",
        "Point an alias (production by default) at a version",
        "json",
    ),
    Endpoint(
        "POST",
        "/models/{model}/rollback",
        "rollback",
        "control",
        "control.rollback",
        "RollbackRequest",
        "Alias",
        "Point production back at the version before, or at a given one",
        "json",
    ),
    *(
        Endpoint(
            method,
            "/models/{model}/aliases/{alias}",
            "alias:move",
            "control",
            "control.set_alias",
            "AliasRequest",
            "Alias",
            "Create or move an alias",
            "json",
        )
        for method in ("PUT", "POST")
    ),
    Endpoint(
        "GET",
        "/models/{model}/history",
        "audit:read",
        "control",
        "control.history",
        "",
        "History",
        "Who did what and when, and where each alias pointed (`at`: a time)",
    ),
    Endpoint("POST", "/train", *_TRAIN, "Train a model with the data it has", "json", 202),
    Endpoint("POST", "/retrain", *_RETRAIN, "Retrain a model with new data", "data", 202),
    Endpoint("POST", "/retrain/{model}", *_RETRAIN, "Retrain a model with new data", "data", 202),
    Endpoint("GET", "/jobs/{job}", "train", "control", "control.job", "", "Job", "Tell how a training job stands"),
    Endpoint("GET", "/health", PUBLIC, "http", "serving.health", "", "Health", "Tell how this process does"),
    Endpoint("GET", "/health/live", PUBLIC, "http", "serving.live", "", "Live", "Tell that this process runs"),
    Endpoint(
        "GET", "/health/ready", PUBLIC, "http", "serving.ready", "", "Ready", "Tell whether models can answer"
    ),
    Endpoint("GET", "/metrics", "metrics:read", "http", "serving.metrics", "", "", "Metrics as Prometheus text"),
    Endpoint("GET", "/metrics/prometheus", "metrics:read", "http", "serving.metrics", "", "", "The same"),
    Endpoint("GET", "/docs", "docs:read", "http", "docs.page", "", "", "This interface, interactive"),
    Endpoint("GET", "/docs/{asset}", "docs:read", "http", "docs.asset", "", "", "A file of the documentation"),
    Endpoint("GET", "/openapi.json", "docs:read", "http", "docs.openapi", "", "", "This interface as OpenAPI 3.1"),
)
ROUTER = Router(ENDPOINTS, PERMISSIONS, illegal_param)
