"""Composition root of serving: settings and a reader become one function from Request to Response."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

# the whole predict path is imported at the start, not by the first request
from core import serving  # noqa: F401
from core.api import ROUTER, STATUS, Call, Counters, Services, handler
from core.auth import ANONYMOUS, MAX_TTL_S, STALE_S, Authenticator, Getter, Principal, Verifier
from core.errors import CoreError, InvalidName, MethodNotAllowed, NotFound, Unauthorized
from core.inference import Predictor
from core.keys import MODELS_PREFIX, is_name
from core.versions import Timing
from core.web import PUBLIC, Headers, Request, Response, problem

if TYPE_CHECKING:
    from core.config import Settings
    from core.model import Model
    from core.reader import Reader
    from core.store import ObjectStore
    from core.telemetry import Telemetry, Update

App = Callable[[Request], Response]
_REQUEST_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, X-Api-Key, X-Model-Version, X-Request-Id"
_EXPOSED_HEADERS = "X-Model-Name, X-Model-Version, X-Request-Id, Retry-After"


class InternalError(CoreError):
    """A bug: what went wrong is in the log under the request id, not in the answer."""


def build_app(
    settings: Settings,
    reader: Reader,
    *,
    telemetry: Telemetry,
    store: ObjectStore | None = None,
    tokens: Getter | None = None,
    load: Callable[[Any, str], Model] | None = None,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> App:
    """Return the application. Without `store` it only predicts, and the control endpoints do not exist.

    `tokens` gives the token records (default: the reader). `load` is core.artifact.load by default.
    """
    timing = Timing(clock, timer, lambda: int.from_bytes(random_bytes(4), "big") / 2**32)
    predictor = Predictor(
        reader, load=load or _load, telemetry=telemetry, timing=timing, refresh_s=settings.refresh_s
    )
    # records out of a secret are up to core.secrets.TTL_S old already, in an outage up to its STALE_S
    ttl_s, stale_s = (MAX_TTL_S / 2, 0.0) if tokens else (MAX_TTL_S, STALE_S)
    ttl_s = min(settings.token_ttl_s, ttl_s)
    verifier = Verifier(
        tokens or reader, clock=clock, ttl_s=ttl_s, stale_s=stale_s, rate_per_s=settings.rate_per_s
    )
    checker: Authenticator = verifier
    if settings.oidc_issuer or settings.oidc_audience or settings.oidc_jwks:
        from core.oidc import with_issuer

        checker = with_issuer(settings, verifier, clock=clock)
    names = Names(reader, clock, settings.refresh_s)
    services = Services(
        settings, predictor, telemetry, timing, Counters(clock()), random_bytes, sleep, {}, names, store
    )
    return _App(services, checker)


def _load(buffer: Any, header_sha256: str) -> Model:
    from core.artifact import load

    return load(buffer, header_sha256)


class Names:
    """Lists the models of a store, at most once in `ttl_s`."""

    def __init__(self, reader: Reader, clock: Callable[[], float], ttl_s: float) -> None:
        self._reader, self._clock, self._ttl_s = reader, clock, ttl_s
        self._known: tuple[float, list[str]] = (float("-inf"), [])

    def __call__(self) -> list[str]:
        """Return the names, sorted. Raises StoreError."""
        now = self._clock()
        read_at, names = self._known
        if not 0.0 <= now - read_at < self._ttl_s:
            keys = [key[len(MODELS_PREFIX) :] for key in self._reader.keys(MODELS_PREFIX)]
            names = sorted(name for name in (key.removesuffix(".json") for key in keys) if is_name(name))
            self._known = (now, names)
        return names


class _App:
    """The way of every request: authenticate, route, authorize, handle; errors become problem+json."""

    def __init__(self, services: Services, verifier: Authenticator) -> None:
        self._services, self._verifier = services, verifier
        self._base = services.settings.base_path
        self._origins = frozenset(services.settings.cors_origins)
        self._public = {PUBLIC, "docs:read"} if services.settings.public_docs else {PUBLIC}
        self._telemetry, self._timer = services.telemetry, services.timing.timer
        self._active = services.counters.active

    def __call__(self, request: Request) -> Response:
        """Return the answer; never raises."""
        started = self._timer()
        self._active.append(None)
        numbers: list[Update] = []
        request_id = request.headers.get("x-request-id", "")
        if not (request_id and re.fullmatch(_REQUEST_ID, request_id, re.ASCII)):
            request_id = self._services.random_bytes(8).hex()
        facts: dict[str, Any] = {"request_id": request_id, "endpoint": "unmatched"}
        try:
            response = self._answer(request, request_id, facts, numbers)
        except CoreError as error:
            response = self._refuse(error, request_id, facts)
        except Exception as error:  # noqa: BLE001 - the one place: a bug becomes a 500 with an id, not a crash
            response = self._fail(error, request_id, facts)
        headers = (*response.headers, ("X-Request-Id", request_id), ("X-Content-Type-Options", "nosniff"))
        if self._origins:
            headers += self._cors(request)
        self._record(request.method, response.status, facts, numbers, self._timer() - started)
        body = b"" if request.method == "HEAD" else response.body
        return Response(response.status, headers, body)

    def _answer(self, request: Request, request_id: str, facts: dict[str, Any], numbers: list[Update]) -> Response:
        path = request.path
        if self._base and (path + "/").startswith(self._base + "/"):
            path = path[len(self._base) :] or "/"
        if request.method == "OPTIONS":
            return self._options(request, path)
        try:
            match = ROUTER.find(request.method, path)
        except (NotFound, MethodNotAllowed, InvalidName):
            self._authenticate(request, facts)  # strangers do not learn which paths exist
            raise
        endpoint, params, illegal = match
        facts["endpoint"] = endpoint.path
        principal, permission = ANONYMOUS, endpoint.permission
        if permission not in self._public:
            principal = self._authenticate(request, facts)
            principal.require(permission)
        if endpoint.plane == "control" and self._services.store is None:
            raise NotFound("this process only predicts")
        if illegal:
            raise InvalidName(f"{illegal} is not a legal name", field=illegal)
        if "model" in params:
            principal.require_model(params["model"])
        call = Call(request, request_id, principal, endpoint, params, facts, numbers)
        return handler(endpoint.handler)(self._services, call)

    def _authenticate(self, request: Request, facts: dict[str, Any]) -> Principal:
        try:
            principal = self._verifier.authenticate(request.headers)
        except CoreError as error:
            if "reason" in error.fields:
                self._telemetry.count("auth_failures_count", (error.fields["reason"],))
            raise
        facts["actor"] = principal.label
        return principal

    def _options(self, request: Request, path: str) -> Response:
        try:
            allow = ROUTER.allow(path)
        except (NotFound, InvalidName):
            self._authenticate(request, {})
            raise
        headers: Headers = (("Allow", allow),)
        if self._cors(request):
            headers += (
                ("Access-Control-Allow-Methods", allow),
                ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
                ("Access-Control-Max-Age", "600"),
            )
        return Response(204, headers)

    def _cors(self, request: Request) -> Headers:
        origin = request.headers.get("origin")
        if origin is None or not ({origin, "*"} & self._origins):
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED_HEADERS),
            ("Vary", "Origin"),
        )

    def _refuse(self, error: CoreError, request_id: str, facts: dict[str, Any]) -> Response:
        status = STATUS.get(error.code, 500)
        facts["code"] = error.code
        headers: Headers = ()
        if isinstance(error, Unauthorized):
            headers = (("WWW-Authenticate", "Bearer"),)
        elif isinstance(error, MethodNotAllowed):
            headers = (("Allow", error.fields["allow"]),)
        elif status in (429, 503):
            headers = (("Retry-After", str(max(1, round(error.fields.get("retry_after_s", 1.0) + 0.5)))),)
        if status == 500:
            return self._fail(error, request_id, facts)
        return problem(status, error, request_id, headers)

    def _fail(self, error: Exception, request_id: str, facts: dict[str, Any]) -> Response:
        """Log a bug once: its type and place. Its text may hold what a client sent, so it is not logged."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = trace.tb_frame.f_code.co_filename.rpartition("/")[2] if trace else ""
        where = f"{code}:{trace.tb_lineno}" if trace else ""
        facts["code"] = InternalError.code
        kind = type(error).__name__
        self._telemetry.log("error", "error", request_id=request_id, kind=kind, where=where)
        return problem(500, InternalError("something went wrong here; quote the request_id"), request_id)

    def _record(
        self, method: str, status: int, facts: dict[str, Any], numbers: list[Update], spent_s: float
    ) -> None:
        """Tell what came of a request: all of its numbers at once, and one line of its facts."""
        endpoint = facts["endpoint"]
        if method not in _METHODS:
            method = "OTHER"
        numbers += (
            ("app_request_count", (method, endpoint, str(status)), 1.0),
            ("app_request_latency_seconds", (endpoint,), spent_s),
        )
        if status >= 400:
            numbers.append(("app_errors_by_endpoint", (endpoint, facts.get("code", str(status))), 1.0))
        self._active.pop()
        self._telemetry.record(numbers)
        facts["method"], facts["status"], facts["ms"] = method, status, round(spent_s * 1e3, 3)
        self._telemetry.log("request", **facts)
