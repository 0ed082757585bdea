"""The server as Vertex AI runs it: its port, its routes, no token of its callers, the store in a cloud."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from core.tokens import create_token
from core.web import Request, Response, json_response
from handlers_onprem.vertex import Routes, with_routes
from scripts.cli import run
from scripts.demo.stage import Server, command, environment
from tests.emulators.emulator import Emulator
from tests.infra.daemons import free_port
from tests.mood import SPEC, rows

HEALTH = "/v1/endpoints/1/deployedModels/2"
ROUTES = {"AIP_HEALTH_ROUTE": HEALTH, "AIP_PREDICT_ROUTE": HEALTH + ":predict"}
QUESTION = b'{"instances":[{"text":"cake and a friend"},{"text":"rain and tears"}]}'


def app(request: Request) -> Response:
    """Answer with what was asked."""
    asked = {"path": request.path, "headers": dict(request.headers)}
    return json_response({"model": "mood", "predictions": [asked]}, headers=(("X-Model-Version", "v"),))


def routed(token: str = "t") -> Routes:
    routes = Routes.from_env({**ROUTES, "POLYSKY_VERTEX_TOKEN": token})
    assert routes is not None
    return routes


@pytest.mark.parametrize("env", [{}, {"AIP_HEALTH_ROUTE": HEALTH}, {**ROUTES, "AIP_PREDICT_ROUTE": ""}])
def test_elsewhere_there_are_no_such_routes(env: dict[str, str]) -> None:
    assert Routes.from_env(env) is None


def test_a_prediction_counts_as_the_container_s_token_whatever_the_caller_sent() -> None:
    sent = {"authorization": "Bearer google's", "x-api-key": "k", "content-type": "application/json"}
    answer = with_routes(app, routed())(Request("POST", HEALTH + ":predict", "", sent, QUESTION))
    asked = json.loads(answer.body)["predictions"][0]
    assert asked["path"] == "/predict"
    assert asked["headers"] == {"authorization": "Bearer t", "content-type": "application/json"}


def test_an_answer_has_the_predictions_and_nothing_else() -> None:
    answer = with_routes(app, routed())(Request("POST", HEALTH + ":predict"))
    assert set(json.loads(answer.body)) == {"predictions"}
    assert dict(answer.headers) == {"Content-Type": "application/json", "X-Model-Version": "v"}


def test_a_refusal_is_passed_on_as_it_is() -> None:
    refusal = Response(422, (("Content-Type", "application/problem+json"),), b"{}")
    assert with_routes(lambda request: refusal, routed())(Request("POST", HEALTH + ":predict")) is refusal


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/predict"), ("GET", HEALTH + ":predict"), ("POST", HEALTH)]
)
def test_other_requests_are_left_alone(method: str, path: str) -> None:
    answer = with_routes(app, routed())(Request(method, path))
    assert json.loads(answer.body)["predictions"] == [{"path": path, "headers": {}}]


@pytest.fixture(scope="module")
def container(moto: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as Vertex AI starts it, on a store in S3."""
    folder = tmp_path_factory.mktemp("vertex")
    (folder / "mood.toml").write_text(SPEC)
    (folder / "data.csv").write_text(rows(0, 200))
    with pytest.MonkeyPatch.context() as patch:
        url = moto.new_store_url()
        env = {**environment(folder), **moto.env(), "POLYSKY_STORE": url}
        for name, value in env.items():
            patch.setenv(name, value)
        assert run(["train", str(folder / "mood.toml"), "--data", str(folder / "data.csv")]) == 0
        token, admin = (
            create_token(moto.open(url), role, clock=time.time, random_bytes=os.urandom)[0]
            for role in ("predictor", "admin")
        )
        env |= {**ROUTES, "POLYSKY_VERTEX_TOKEN": token, "AIP_HTTP_PORT": str(free_port())}
        with Server(command("serve", "--workers", "1"), folder, env, folder / "log") as server:
            assert server.url.endswith(":" + env["AIP_HTTP_PORT"])
            server.token = admin
            yield server


def test_the_container_is_healthy_and_predicts(container: Server) -> None:
    assert container.ask("GET", HEALTH, token="").status == 200
    answer = container.ask("POST", HEALTH + ":predict", QUESTION, token="")
    assert answer.status == 200, answer.body
    assert [found["label"] for found in answer.json()["predictions"]] == ["glad", "sad"]


def test_its_own_routes_still_want_a_token(container: Server) -> None:
    assert container.ask("POST", "/predict/mood", QUESTION, token="").status == 401
    assert container.ask("POST", "/predict/mood", QUESTION).status == 200


def test_a_store_in_a_cloud_is_only_read(container: Server) -> None:
    answer = container.ask("POST", "/train", b'{"model":"mood"}')
    assert (answer.status, answer.json()["detail"]) == (404, "this process only predicts")
