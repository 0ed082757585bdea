"""The interface as Google's API Gateway takes it: OpenAPI 2.0 within its documented limitations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.web import PUBLIC, Endpoint

FILE = Path(__file__).resolve().parent.parent / "infra" / "gcp" / "terraform" / "openapi.json"


def openapi(endpoints: Iterable[Endpoint]) -> str:
    """Return the document as JSON; infra/gcp puts backends and tokens in by `x-polysky`.

    The gateway passes bodies on as they are, and answers 404 itself to a path that is not here.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    info = {"title": "polysky", "version": "1"}
    return json.dumps({"swagger": "2.0", "info": info, "schemes": ["https"], "paths": paths}, indent=1) + "\n"


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", endpoint.path)
    return {
        "operationId": "_".join(re.findall(r"\w+", f"{endpoint.method.lower()} {endpoint.path}")),
        "summary": endpoint.summary,
        "parameters": [{"name": name, "in": "path", "required": True, "type": "string"} for name in names],
        "responses": {str(endpoint.status): {"description": "done"}, "default": {"description": "an error"}},
        "x-polysky": {
            "function": "predict" if endpoint.plane == "http" else "control",
            "public": endpoint.permission == PUBLIC,
        },
    }
