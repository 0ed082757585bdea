"""What the clouds' gateways are told of the endpoint table: `python -m scripts.gateways` writes it to infra/."""

from __future__ import annotations

import json
from pathlib import Path

from core.api import ENDPOINTS
from core.web import PUBLIC

ROOT = Path(__file__).resolve().parent.parent
AWS_ROUTES = ROOT / "infra" / "aws" / "terraform" / "routes.json"


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


def main() -> None:
    """Write the files."""
    AWS_ROUTES.write_text(aws_routes())


if __name__ == "__main__":
    main()
