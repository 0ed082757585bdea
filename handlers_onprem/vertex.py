"""What Vertex AI tells a custom container: the routes of health and predictions. Elsewhere there are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from core.tuples import NamedTuple
from core.web import Request, Response, json_response

App = Callable[[Request], Response]
TOKEN_VARIABLE = "POLYSKY_VERTEX_TOKEN"  # noqa: S105 - its name


class Routes(NamedTuple):
    """The two paths that Vertex AI calls, and the token that its requests count as.

    It checks its callers itself and passes no token of ours. Without `token` predictions are refused.
    """

    health: str
    predict: str
    token: str

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Routes | None:
        """Return the routes, None outside Vertex AI."""
        health, predict = env.get("AIP_HEALTH_ROUTE", ""), env.get("AIP_PREDICT_ROUTE", "")
        return cls(health, predict, env.get(TOKEN_VARIABLE, "")) if health and predict else None


def with_routes(app: App, routes: Routes) -> App:
    """Return `app` with Vertex AI's routes before its own."""

    def answer(request: Request) -> Response:
        if request.path == routes.health and request.method in ("GET", "HEAD"):
            return app(request._replace(path="/health/ready"))
        if request.path == routes.predict and request.method == "POST":
            headers = {name: text for name, text in request.headers.items() if name != "x-api-key"}
            headers["authorization"] = f"Bearer {routes.token}"
            return _bare(app(request._replace(path="/predict", headers=headers)))
        return app(request)

    return answer


def _bare(response: Response) -> Response:
    """Return the answer with nothing but the predictions, which is all that Vertex AI's contract knows."""
    if response.status != 200:
        return response
    kept = tuple(pair for pair in response.headers if pair[0].lower() != "content-type")
    return json_response({"predictions": json.loads(response.body)["predictions"]}, headers=kept)
