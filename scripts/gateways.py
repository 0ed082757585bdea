"""What the clouds' gateways are told of the endpoint table: `python -m scripts.gateways` writes it to infra/."""

from __future__ import annotations

import json
import re
from pathlib import Path

from core.api import ENDPOINTS
from core.web import PUBLIC
from scripts import api_gateway, api_management

ROOT = Path(__file__).resolve().parent.parent
AWS_ROUTES = ROOT / "infra" / "aws" / "terraform" / "routes.json"
SAM_TEMPLATE = ROOT / "infra" / "aws" / "sam" / "template.yaml"
_SAM_ROUTES = ("  # routes, by `python -m scripts.gateways`\n", "  # end of routes\n")


def aws_routes() -> str:
    """Return the HTTP API's route keys as JSON: which function serves one, and whether it needs no token.

    What the table does not name goes to the predicting function too, where core asks for a token and says 404.
    """
    routes = {
        f"{endpoint.method} {endpoint.path}": {
            "function": "predict" if endpoint.plane == "http" else "control",
            "public": endpoint.permission == PUBLIC,
        }
        for endpoint in ENDPOINTS
    }
    return json.dumps({**routes, "$default": {"function": "predict", "public": True}}, indent=2) + "\n"


def sam_template() -> str:
    """Return SAM's template with its routes, one a line, between two marks. Raises ValueError without them."""
    first, last = _SAM_ROUTES
    before, found, rest = SAM_TEMPLATE.read_text().partition(first)
    _, ended, after = rest.partition(last)
    if not (found and ended):
        raise ValueError(f"{SAM_TEMPLATE.name} has no place for routes")
    routes = [_sam_route(key, **one) for key, one in json.loads(aws_routes()).items()]
    return "".join([before, first, *routes, last, after])


def _sam_route(key: str, function: str, public: bool) -> str:
    name = "Route" + "".join(part.title() for part in re.split(r"[^A-Za-z]+", key))
    kind = "AuthorizationType: !If [HasIssuer, JWT, NONE]"
    who = "AuthorizerId: !If [HasIssuer, !Ref Jwt, !Ref AWS::NoValue]"
    asked = "" if public else f", {kind}, {who}"
    target = f'!Sub "integrations/${{{function.title()}Integration}}"'
    told = f'ApiId: !Ref Api, RouteKey: "{key}", Target: {target}{asked}'
    return f'  {name}: {{ Type: "AWS::ApiGatewayV2::Route", Properties: {{ {told} }} }}\n'


def main() -> None:
    """Write the files."""
    AWS_ROUTES.write_text(aws_routes())
    SAM_TEMPLATE.write_text(sam_template())
    for form in (api_gateway, api_management):
        form.FILE.write_text(form.openapi(ENDPOINTS))


if __name__ == "__main__":
    main()
