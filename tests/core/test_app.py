"""The application: who gets in, what exists, what an error looks like, and that nothing leaks."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from core import serving
from core.api import ENDPOINTS, ROUTER, STATUS, handler
from core.auth import PERMISSIONS, ROLES, check_of
from core.errors import CoreError, StoreError, Transient
from core.store import Blob, MemoryStore
from core.tokens import revoke_token
from core.web import PUBLIC, Endpoint, Request, Response
from tests.core.house import House, body_of, header

SAMPLES = {
    "model": "support",
    "version": "production",
    "alias": "staging",
    "job": "support." + "0" * 16,
    "asset": "start.js",
}
ANSWERS = {200, 202, 400, 404, 409, 415, 422}  # of somebody who was let in


def path_of(endpoint: Endpoint) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: SAMPLES[found[1]], endpoint.path)


@pytest.fixture(scope="module")
def shared() -> House:
    """A house with one model, for tests that change nothing."""
    house = House()
    house.publish()
    return house


@pytest.fixture
def house() -> House:
    """A house with one model."""
    made = House()
    made.publish()
    return made


def assert_problem(response: Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem as promised, and return it."""
    body: dict[str, Any] = body_of(response)
    assert (response.status, body["status"], body["code"]) == (status, status, code)
    assert header(response, "content-type") == "application/problem+json"
    assert body.keys() <= {"type", "title", "status", "code", "detail", "request_id", "errors", "limit"}
    assert body["request_id"] == header(response, "x-request-id")
    assert (header(response, "www-authenticate") == "Bearer") == (status == 401)
    assert (header(response, "retry-after") is not None) == (status in (429, 503))
    return body


# -- the table


def test_every_endpoint_has_a_known_permission_and_a_handler() -> None:
    for endpoint in ENDPOINTS:
        assert endpoint.permission in PERMISSIONS | {PUBLIC}
        assert callable(handler(endpoint.handler))
        assert ROUTER.find(endpoint.method, path_of(endpoint)).endpoint is endpoint
    public = {endpoint.path for endpoint in ENDPOINTS if endpoint.permission == PUBLIC}
    assert public == {"/health", "/health/live", "/health/ready"}


def test_every_error_of_core_has_a_status() -> None:
    def kinds(base: type[CoreError]) -> Iterator[type[CoreError]]:
        for kind in base.__subclasses__():
            yield kind
            yield from kinds(kind)

    ours = {
        kind.code for kind in kinds(CoreError) if kind.__module__ in ("core.errors", "core.auth", "core.control")
    }
    assert ours - set(STATUS) == {"config", "fit_failed"}  # a server never raises them: were it to, a bug
    assert issubclass(StoreError, CoreError)


def cells() -> list[tuple[Endpoint, str]]:
    return [(endpoint, role) for endpoint in ENDPOINTS for role in (*ROLES, "scoped")]


@pytest.mark.parametrize(
    ("endpoint", "role"), cells(), ids=lambda v: v if isinstance(v, str) else v.method + v.path
)
def test_each_role_may_do_exactly_what_its_permissions_say(endpoint: Endpoint, role: str) -> None:
    house = House()
    house.publish()
    if role == "scoped":
        token = house.token("admin", models=["other"])
        allowed = "{model}" not in endpoint.path and "{job}" not in endpoint.path and endpoint.path not in BY_BODY
    else:
        token = house.token(role)
        allowed = endpoint.permission == PUBLIC or endpoint.permission in ROLES[role]
    response = house.send(endpoint.method, path_of(endpoint), {"model": "support"}, token=token)
    if allowed:
        assert response.status in ANSWERS
    elif role == "scoped" and endpoint.path in BY_BODY:
        assert response.status in (400, 403)  # the body of a prediction is read first
    else:
        assert_problem(response, 403, "forbidden")


BY_BODY = ("/predict", "/train", "/retrain")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.method + e.path)
def test_no_wrong_expired_or_revoked_credential_gets_in(endpoint: Endpoint) -> None:
    house = House()
    house.publish()
    expired, revoked = house.token("admin", ttl_s=1.0), house.token("admin")
    revoke_token(house.store, revoked.split("_")[1], clock=house.clock)
    house.clock.now += 2.0
    body = f"polysky_{'0' * 12}_{'x' * 43}"
    wrong = f"{body}_{check_of(body)}"
    for token in (None, "x", wrong, expired, revoked):
        response = house.send(endpoint.method, path_of(endpoint), {"model": "support"}, token=token)
        if endpoint.permission == PUBLIC:
            assert response.status == 200
        else:
            assert_problem(response, 401, "unauthorized")


def test_docs_are_public_when_the_operator_says_so() -> None:
    house = House(public_docs=True)
    for path in ("/docs", "/docs/start.js", "/openapi.json"):
        assert house.send("GET", path).status == 200
    assert house.send("GET", "/models").status == 401


# -- what exists


def test_strangers_do_not_learn_which_paths_exist(shared: House) -> None:
    for method, path in (("GET", "/nope"), ("DELETE", "/predict"), ("GET", "/predict/%zz"), ("OPTIONS", "/nope")):
        assert_problem(shared.send(method, path), 401, "unauthorized")


def test_a_known_caller_is_told_what_is_wrong_with_the_path(shared: House) -> None:
    token = shared.token()
    assert_problem(shared.send("GET", "/nope", token=token), 404, "not_found")
    assert_problem(shared.send("OPTIONS", "/nope", token=token), 404, "not_found")
    assert_problem(shared.send("GET", "/predict/%zz", token=token), 400, "invalid_name")
    response = shared.send("DELETE", "/predict", token=token)
    assert_problem(response, 405, "method_not_allowed")
    assert header(response, "allow") == "OPTIONS, POST"
    assert_problem(shared.send("BREW", "/predict", token=token), 405, "method_not_allowed")
    assert shared.metric("app_request_count", ("OTHER", "unmatched", "405")) == 1


def test_head_is_get_without_a_body(shared: House) -> None:
    response = shared.send("HEAD", "/health")
    assert (response.status, response.body) == (200, b"")
    assert header(response, "content-type") == "application/json"
    assert shared.send("HEAD", "/models").status == 401


def test_options_tells_the_methods(shared: House) -> None:
    response = shared.send("OPTIONS", "/models/support/aliases/staging", headers={"origin": "https://a.example"})
    assert (response.status, header(response, "allow")) == (204, "OPTIONS, POST, PUT")
    assert header(response, "access-control-allow-origin") is None


def test_browsers_of_allowed_origins_may_call() -> None:
    house = House(cors_origins=("https://a.example",))
    origin = {"origin": "https://a.example"}
    preflight = house.send("OPTIONS", "/predict", headers=origin)
    assert header(preflight, "access-control-allow-origin") == "https://a.example"
    assert header(preflight, "access-control-allow-methods") == "OPTIONS, POST"
    assert "Authorization" in str(header(preflight, "access-control-allow-headers"))
    refused = house.send("POST", "/predict", {}, headers=origin)
    assert (refused.status, header(refused, "access-control-allow-origin")) == (401, "https://a.example")
    assert header(refused, "vary") == "Origin"
    other = house.send("OPTIONS", "/predict", headers={"origin": "https://b.example"})
    assert header(other, "access-control-allow-origin") is None
    assert header(house.send("GET", "/health"), "access-control-allow-origin") is None
    everyone = House(cors_origins=("*",)).send("GET", "/health", headers={"origin": "https://c.example"})
    assert header(everyone, "access-control-allow-origin") == "https://c.example"


def test_a_base_path_is_taken_off() -> None:
    house = House(base_path="/ml")
    house.publish()
    assert house.send("GET", "/ml/health").status == 200
    assert house.send("GET", "/ml", token=house.token()).status == 404
    assert house.send("GET", "/ml/../health", token=house.token()).status == 404
    assert house.send("GET", "/mlhealth", token=house.token()).status == 404
    assert b'src="/ml/docs/start.js"' in house.send("GET", "/ml/docs", token=house.token()).body
    accepted = house.send("POST", "/ml/train", {}, token=house.token("trainer"))
    assert body_of(accepted)["status_url"].startswith("/ml/jobs/support.")


def test_a_process_without_a_store_only_predicts() -> None:
    house = House(control=False)
    house.publish()
    token = house.token("admin")
    assert house.send("POST", "/predict/support", {"text": "refund"}, token=token).status == 200
    assert house.send("POST", "/predict", {"text": "refund"}, token=token).status == 200
    assert_problem(house.send("POST", "/train", {}, token=token), 404, "not_found")
    assert_problem(house.send("GET", "/models/support/versions", token=token), 404, "not_found")
    assert body_of(house.send("GET", "/models", token=token))["models"][0]["name"] == "support"
    paths = body_of(house.send("GET", "/openapi.json", token=token))["paths"]
    assert "/predict" in paths
    assert "/train" not in paths


# -- request ids


def test_a_request_id_is_kept_if_safe_and_made_if_not(shared: House) -> None:
    kept = shared.send("GET", "/health", headers={"x-request-id": "req-1.A_b"})
    assert header(kept, "x-request-id") == "req-1.A_b"
    made = set()
    for bad in ("", "a b", "a\r\nSet-Cookie: x", "é", "-x", "x" * 65, "../x", "<script>"):
        found = header(shared.send("GET", "/health", headers={"x-request-id": bad}), "x-request-id")
        assert found is not None
        assert re.fullmatch(r"[0-9a-f]{16}", found)
        made.add(found)
    assert len(made) == 8
    assert header(kept, "x-content-type-options") == "nosniff"


# -- limits and outages


def test_too_many_requests_of_one_token_are_told_to_wait() -> None:
    house = House(rate_per_s=1.0)
    house.publish()
    token = house.token()
    answers = [house.send("GET", "/models", token=token) for _ in range(4)]
    assert [response.status for response in answers] == [200, 200, 429, 429]
    assert_problem(answers[-1], 429, "rate_limited")
    assert int(header(answers[-1], "retry-after") or 0) >= 1
    assert house.metric("auth_failures_count", ("rate",)) == 2


def test_a_store_that_is_down_is_unavailable_and_not_a_bug() -> None:
    class Down(MemoryStore):
        down = False

        def get(self, key: str, token: str | None = None) -> Blob:
            if self.down:
                raise Transient("down")
            return super().get(key, token)

    store = Down()
    house = House(store=store)
    token = house.token("admin")
    store.down = True
    assert_problem(house.send("GET", "/models", token=token), 503, "unavailable")
    store.down = False
    assert house.send("GET", "/models", token=token).status == 200
    store.down = True
    assert_problem(house.send("POST", "/predict/m", {"text": "a"}, token=token), 503, "unavailable")
    assert house.send("GET", "/health/live").status == 200


# -- bugs


SECRET = "CANARY-7f3a91"


def test_a_bug_is_answered_with_an_id_and_logged_once_without_its_text(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Response:
        raise KeyError(SECRET)

    monkeypatch.setattr(serving, "live", broken)
    handler.cache_clear()
    response = house.send("GET", "/health/live")
    handler.cache_clear()
    body = assert_problem(response, 500, "internal")
    assert "Traceback" not in response.body.decode()
    (line,) = house.logged("error")
    assert (line["request_id"], line["kind"]) == (body["request_id"], "KeyError")
    assert re.fullmatch(r"test_app\.py:\d+", line["where"])
    assert SECRET not in "".join(house.lines) + response.body.decode()
    assert house.metric("app_errors_by_endpoint", ("/health/live", "internal")) == 1
    assert house.metric("app_active_requests") == 0


def test_an_error_that_no_table_knows_is_a_bug_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(CoreError):
        code = "odd"

    def broken(*_: Any) -> Response:
        raise Odd(SECRET)

    monkeypatch.setattr(serving, "live", broken)
    handler.cache_clear()
    response = house.send("GET", "/health/live")
    handler.cache_clear()
    assert_problem(response, 500, "internal")
    assert SECRET not in "".join(house.lines) + response.body.decode()


# -- nothing leaks


def canary_requests() -> list[tuple[str, str, Any, str, dict[str, str]]]:
    """Return requests with the canary in each place where a client can put something."""
    c = SECRET
    post, path = "POST", "/predict/support"
    return [
        (post, path, {"text": c}, "", {}),
        (post, path, {"text": [c]}, "", {}),
        (post, path, {"rows": [{"text": 5, "x": c}]}, "", {}),
        (post, path, {"rows": [[c, c]]}, "", {}),
        (post, path, {"features": c}, "", {}),
        (post, path, {"text": c, "rows": c}, "", {}),
        (post, path, {"model": c, "text": "a"}, "", {}),
        (post, path, {"version": c, "text": "a"}, "", {}),
        (post, path, {"inputs": [{"name": "text", "datatype": c, "shape": [2], "data": [c]}]}, "", {}),
        (post, path, f'{{"text": "{c}'.encode(), "", {"content-type": "application/json"}),
        (post, path, f"text\n{c},{c}\n".encode(), "", {"content-type": "text/csv"}),
        (post, path, f'text\n"{c}\n'.encode(), "", {"content-type": "text/csv"}),
        (post, path, c.encode(), "", {"content-type": c}),
        (post, path, c.encode(), "", {"content-type": "image/png"}),
        (post, path, c.encode(), "", {"content-type": "application/json", "content-encoding": c}),
        (post, path, {"text": "a"}, f"version={c}", {}),
        (post, path, {"text": "a"}, f"{c}={c}&{c}={c}", {}),
        (post, path, {"text": "a"}, "", {"x-model-version": c}),
        (post, f"/predict/{c}", {"text": "a"}, "", {}),
        ("GET", f"/{c}", None, "", {}),
        (c, "/predict", None, "", {}),
        ("GET", f"/jobs/{c}", None, "", {}),
        ("GET", f"/docs/{c}", None, "", {}),
        (post, "/retrain/support", {"rows": [{"text": c, "label": c}]}, "", {}),
        (post, "/retrain/support", {"rows": c}, "", {}),
        (post, "/retrain/support", {"upload": c}, "", {}),
        (post, "/retrain/support", c.encode(), "", {"content-type": "text/csv"}),
        (post, "/models/support/promote", {"version": c, "alias": c}, "", {}),
        (post, "/models/support/promote", {"version": 5, "expect_rev": c}, "", {}),
        (post, "/models/support/rollback", {"to": c}, "", {}),
        ("GET", "/models/support/history", None, f"at={c}", {}),
        ("GET", "/models", None, "", {"authorization": f"Bearer {c}"}),
        ("GET", "/models", None, "", {"authorization": c}),
        ("GET", "/models", None, "", {"user-agent": c, "cookie": c, "referer": c, "x-forwarded-for": c}),
        (post, "/train", {}, "", {"idempotency-key": c + "\u00e9"}),
    ]  # fmt: skip


def test_what_a_client_sends_is_never_echoed_nor_logged_nor_counted(house: House) -> None:
    token = house.token("admin")
    for method, path, body, query, headers in canary_requests():
        sent = headers if "authorization" in headers else {**headers, "authorization": f"Bearer {token}"}
        response = house.send(method, path, body, query=query, headers=sent)
        assert response.status < 500
        assert SECRET not in response.body.decode() + str(response.headers), (method, path, body)
    everything = "".join(house.lines) + house.telemetry.exposition().decode()
    assert SECRET not in everything
    assert SECRET.lower() not in everything
    assert token not in everything
    assert token.split("_")[2] not in everything
    assert len(house.logged("request")) == len(canary_requests())


def test_each_request_is_one_line_with_fixed_fields(house: House) -> None:
    house.send("POST", "/predict/support", {"text": "refund"}, token=house.token(label="shop"))
    (line,) = house.logged("request")
    fixed = {"ts", "level", "event", "request_id", "method", "status", "ms", "endpoint", "actor"}
    assert line.keys() == fixed | {"model", "version", "rows"}
    assert (line["endpoint"], line["actor"], line["rows"]) == ("/predict/{model}", "shop", 1)


@pytest.mark.parametrize("odd", ["a\r\nb", "\x1b[31m", "\u2028", "\x00", '"', "x" * 100_000])
def test_no_header_can_forge_a_log_line(house: House, odd: str) -> None:
    names = ("x-request-id", "authorization", "x-api-key", "content-type", "idempotency-key", "origin")
    for name in names:
        house.app(Request("POST", "/train", odd, {name: odd}, b"{}"))
        house.app(Request(odd, "/train/" + odd, "", {name: odd}, b"{}"))
    assert len(house.lines) == 2 * len(names)
    for text in house.lines:
        assert text.count("\n") == 1
        assert text[:-1].isprintable()
        assert len(text) < 1000
        json.loads(text)


def test_a_gzip_bomb_is_too_large(house: House) -> None:
    bomb = gzip.compress(bytes(100_000_000), 9)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = house.send("POST", "/predict/support", bomb, token=house.token(), headers=headers)
    assert assert_problem(response, 413, "too_large")["limit"] == house.settings.max_body_bytes
