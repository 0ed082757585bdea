"""Every route, role and credential, from the endpoint table: who gets in, and that nobody else does anything."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from core import api
from core.api import ENDPOINTS
from core.app import build_app
from core.auth import MAX_TTL_S, RETRY_S, ROLES, check_of
from core.errors import ConfigError, Transient
from core.secrets import STALE_S, TTL_S, SecretTokens
from core.store import Blob, MemoryStore
from core.tokens import export_records, revoke_token
from core.web import PUBLIC, Endpoint, Request, Response
from tests.core.house import House, body_of, header, table_model
from tests.faults.scoreboard import record

STATES = ("none", "malformed", "wrong", "expired", "revoked", "right")
NAMES = {
    "model": "support",
    "version": "v-000000000001",
    "alias": "staging",
    "job": "support." + "0" * 16,
    "asset": "swagger-ui.css",
}
BODIES: dict[str, Any] = {
    "PredictRequest": {"text": "a", "model": "support"},
    "PromoteRequest": {"version": "production", "alias": "staging"},
    "AliasRequest": {"version": "production"},
    "RollbackRequest": {},
    "TrainRequest": {"model": "support"},
    "RetrainRequest": {"model": "support", "rows": [{"text": "a", "label": "b"}]},
}


class Watched(MemoryStore):
    """A store that counts writes, and fails reads when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes, self.down = 0, False

    def get(self, key: str, token: str | None = None) -> Blob:
        if self.down:
            raise Transient("down")
        return super().get(key, token)

    def put(self, key: str, data: bytes) -> str:
        self.writes += 1
        return super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        self.writes += 1
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, token: str) -> str:
        self.writes += 1
        return super().put_if_match(key, data, token)


class Hanging(MemoryStore):
    """A store whose reads hang, when told to, until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = False
        self.reached, self.released = threading.Event(), threading.Event()

    def get(self, key: str, token: str | None = None) -> Blob:
        if self.hangs:
            self.reached.set()
            self.released.wait()
        return super().get(key, token)


def path_of(endpoint: Endpoint) -> str:
    return re.sub(r"{(\w+)}", lambda found: NAMES[found[1]], endpoint.path)


@cache
def stage() -> tuple[House, Watched, dict[str, dict[str, str]]]:
    """A house with two models, and for each role a token in each state."""
    store = Watched()
    house = House(store=store)
    house.publish()
    house.publish("prices", table_model())
    tokens: dict[str, dict[str, str]] = {}
    for role in ROLES:
        right, other = house.token(role), house.token(role)
        body = right[:20] + "_" + other.split("_")[2]  # this key id, another's secret, and a right checksum
        found = {"right": right, "malformed": right[:-1], "wrong": f"{body}_{check_of(body)}"}
        found |= {"expired": house.token(role, ttl_s=1.0), "revoked": house.token(role)}
        revoke_token(store, found["revoked"].split("_")[1], clock=house.clock)
        tokens[role] = found
    return house, store, tokens


def ask(house: House, endpoint: Endpoint, token: str | None, carrier: str = "authorization") -> Response:
    house.clock.now += 10.0  # so that failures are no flood
    headers = {}
    if token is not None:
        headers[carrier] = token if carrier == "x-api-key" else f"Bearer {token}"
    return house.send(endpoint.method, path_of(endpoint), BODIES.get(endpoint.takes), headers=headers)


def cells() -> Iterator[tuple[Endpoint, str, str, str]]:
    for endpoint in ENDPOINTS:
        for role in ROLES:
            for state in STATES:
                for carrier in ("authorization", "x-api-key"):
                    yield endpoint, role, state, carrier


def fault(endpoint: Endpoint, role: str, state: str, response: Response, written: int) -> str:
    """Return what is wrong with one cell's answer, "" if nothing is."""
    status = response.status
    if endpoint.permission == PUBLIC:
        return "" if status in (200, 503) else f"public, but {status}"
    if state != "right":
        challenged = status == 401 and header(response, "www-authenticate") == "Bearer"
        return "" if challenged and not written else f"{status}, {written} writes"
    if endpoint.permission not in ROLES[role]:
        return "" if status == 403 and not written else f"{status}, {written} writes"
    return "" if status in (endpoint.status, 404, 409) else f"may, but {status}"


def test_every_cell_of_the_matrix_is_as_the_table_says() -> None:
    started, count, wrong = time.perf_counter(), 0, []
    house, store, tokens = stage()
    for endpoint, role, state, carrier in cells():
        before = store.writes
        response = ask(house, endpoint, tokens[role].get(state), carrier)
        found = fault(endpoint, role, state, response, store.writes - before)
        wrong += [f"{endpoint.method} {endpoint.path} {role} {state} {carrier}: {found}"] if found else []
        count += 1
    record("auth matrix: wrong cells", count, len(wrong), time.perf_counter() - started)
    assert wrong == []
    assert count == len(ENDPOINTS) * len(ROLES) * len(STATES) * 2


def test_a_wrong_cell_would_be_noticed() -> None:
    endpoint = next(endpoint for endpoint in ENDPOINTS if endpoint.permission == "rollback")
    assert fault(endpoint, "admin", "revoked", Response(200), 0)
    assert fault(endpoint, "admin", "none", Response(401), 0)  # no challenge
    assert fault(endpoint, "trainer", "right", Response(200), 0)
    assert fault(endpoint, "trainer", "right", Response(403), 1)
    assert fault(endpoint, "admin", "right", Response(403), 0)


def test_unknown_routes_and_methods_are_told_only_to_who_may_call_at_all() -> None:
    house, _, tokens = stage()
    for method, path, status in (("GET", "/admin", 404), ("DELETE", "/models", 405), ("GET", "/models/A", 400)):
        for state in STATES[1:-1]:
            house.clock.now += 10.0
            assert house.send(method, path, token=tokens["admin"][state]).status == 401
        assert house.send(method, path).status == 401
        assert house.send(method, path, token=tokens["admin"]["right"]).status == status


def test_two_credentials_that_differ_are_none_though_both_are_right() -> None:
    house, _, tokens = stage()
    house.clock.now += 10.0
    admin, predictor = tokens["admin"]["right"], tokens["predictor"]["right"]
    for one, other, status in ((admin, predictor, 401), (predictor, admin, 401), (admin, admin, 200)):
        assert house.send("GET", "/models", token=one, headers={"x-api-key": other}).status == status


# -- a scope of models


@pytest.mark.parametrize("role", ["predictor", "trainer", "admin"])
def test_a_token_for_one_model_reaches_no_other_by_any_route(role: str) -> None:
    house, store, _ = stage()
    token = house.token(role, models=["prices"])
    for endpoint in ENDPOINTS:
        named = "{model}" in endpoint.path or "{job}" in endpoint.path or endpoint.takes in BODIES
        if not named or endpoint.permission not in ROLES[role]:
            continue
        before = store.writes
        answer = ask(house, endpoint, token)
        assert answer.status == 403 or ("{job}" in endpoint.path and answer.status in (403, 404)), endpoint
        assert store.writes == before
    listed = body_of(house.send("GET", "/models", token=token))["models"]
    assert [model["name"] for model in listed] == ["prices"]


def test_an_upload_of_another_model_is_out_of_scope() -> None:
    house, store, _ = stage()
    token = house.token("trainer", models=["prices"])
    store.put("uploads/support/secret.csv", b"text,label\na,b\n")
    for upload in ("uploads/support/secret.csv", "uploads/prices/../support/secret.csv", "auth/tokens/x.json"):
        before = store.writes
        answer = house.send("POST", "/retrain/prices", {"upload": upload}, token=token)
        assert 400 <= answer.status < 500
        assert store.writes == before


# -- revocation


def test_a_revoked_token_is_refused_within_a_minute_by_every_process() -> None:
    for age in (0.0, 1.0, 30.0, 44.9, 45.0, 59.9):  # how old the record is that a process knows
        house = House(store=Watched())
        token = house.token("admin")
        assert house.send("GET", "/models", token=token).status == 200
        house.clock.now += age
        revoke_token(house.store, token.split("_")[1], clock=house.clock)
        house.clock.now += MAX_TTL_S
        assert house.send("GET", "/models", token=token).status == 401


def test_a_revocation_during_an_outage_is_seen_once_the_store_is_back() -> None:
    for back in range(1, 120, 7):
        store = Watched()
        house = House(store=store)
        token = house.token("admin")
        assert house.send("GET", "/models", token=token).status == 200
        revoke_token(store, token.split("_")[1], clock=house.clock)
        revoked_at, store.down = house.clock.now, True
        for second in range(1, back):
            house.clock.now = revoked_at + second
            house.send("GET", "/health/live", token=token)
            house.send("GET", "/metrics", token=token)
        store.down = False
        house.clock.now = revoked_at + max(MAX_TTL_S, back + RETRY_S)
        assert house.send("GET", "/metrics", token=token).status == 401, back


def exported(house: House) -> bytes:
    """Return the document of token records, as it lies in a secret."""
    return json.dumps(export_records(house.store, now=house.clock.now)).encode()


def asking(house: House, fetch: Callable[[], bytes]) -> Callable[[str], int]:
    """Return what asks, with a token, a process that has its token records out of a secret."""
    tools: dict[str, Any] = {"telemetry": house.telemetry, "store": house.store, "clock": house.clock}
    app = build_app(house.settings, house.reader, tokens=SecretTokens(fetch, clock=house.clock), **tools)
    return lambda token: app(Request("GET", "/models", headers={"x-api-key": token})).status


def test_a_secret_that_cannot_be_had_is_believed_for_eleven_minutes_at_most() -> None:
    house, down = House(), list[bool]()
    token = house.token("admin")

    def fetch() -> bytes:
        if down:
            raise Transient("down")
        return exported(house)

    status = asking(house, fetch)
    started = house.clock.now
    assert status(token) == 200
    down.append(True)
    found = []
    for second in range(0, 1500, 7):
        house.clock.now = started + second
        if not STALE_S <= second <= STALE_S + MAX_TTL_S:
            found.append((second < STALE_S, status(token)))
    assert set(found) == {(True, 200), (False, 503)}


@pytest.mark.parametrize("gap", [0.0, 10.0, TTL_S - 1, TTL_S + 1])
def test_a_revocation_in_the_secret_is_seen_in_a_minute_though_others_had_it_read_just_before(gap: float) -> None:
    """The secret's document is old already when a token is first looked up in it: both ages add up."""
    house, documents = House(), list[bytes]()
    one, other = house.token("admin"), house.token("admin")
    documents.append(exported(house))
    status = asking(house, lambda: documents[-1])
    assert status(other) == 200
    revoked_at = house.clock.now
    revoke_token(house.store, one.split("_")[1], clock=house.clock)
    documents.append(exported(house))
    house.clock.now = revoked_at + gap
    assert status(one) == (200 if gap < TTL_S else 401)
    house.clock.now = revoked_at + MAX_TTL_S
    assert status(one) == 401


def test_a_read_that_hangs_does_not_prolong_a_record() -> None:
    """While one caller reads a record again the others go on with what is known, but not beyond its time."""
    store = Hanging()
    house = House(store=store)
    token = house.token("admin")
    assert house.send("GET", "/metrics", token=token).status == 200
    revoke_token(store, token.split("_")[1], clock=house.clock)
    found: list[int] = []
    store.hangs = True
    house.clock.now += MAX_TTL_S - 1.0
    first = threading.Thread(target=lambda: house.send("GET", "/metrics", token=token))
    first.start()
    store.reached.wait()
    assert house.send("GET", "/metrics", token=token).status == 200
    house.clock.now += 1.0
    second = threading.Thread(target=lambda: found.append(house.send("GET", "/metrics", token=token).status))
    second.start()
    second.join(0.5)  # it waits for the first; whoever does not would be through by now
    store.released.set()
    first.join()
    second.join()
    assert found == [401]


# -- a route without a permission


@pytest.mark.parametrize("permission", ["", "anything", "Public"])
def test_a_route_without_a_known_permission_fails_at_import(permission: str, tmp_path: Path) -> None:
    source = Path(str(api.__file__)).read_text()
    changed = source.replace('"/models", "model:read"', f'"/models", "{permission}"')
    assert changed != source
    (tmp_path / "undeclared.py").write_text(changed)
    spec = importlib.util.spec_from_file_location("undeclared", tmp_path / "undeclared.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["undeclared"] = module
    try:
        with pytest.raises(ConfigError, match="GET /models declares no known permission"):
            spec.loader.exec_module(module)
    finally:
        del sys.modules["undeclared"]


def test_the_interface_tells_each_routes_permission() -> None:
    house, _, tokens = stage()
    told = json.loads(house.send("GET", "/openapi.json", token=tokens["admin"]["right"]).body)["paths"]
    for endpoint in ENDPOINTS:
        assert told[endpoint.path][endpoint.method.lower()]["x-permission"] == endpoint.permission
