"""The interface as Azure's API Management takes it: OpenAPI 3.0 within the documented limits of its import."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.openapi import document, document_30
from core.web import Endpoint

FILE = Path(__file__).resolve().parent.parent / "infra" / "azure" / "terraform" / "openapi.json"
_BODIES = {"Text": {"type": "string"}, "Binary": {"type": "string", "format": "binary"}}
_KNOWN = ("operationId", "summary", "tags", "parameters", "requestBody", "responses", "x-plane", "x-permission")


def openapi(endpoints: Iterable[Endpoint]) -> str:
    """Return the document as JSON; infra/azure reads backend and publicity of an operation from its x- fields."""
    full = document_30(document(endpoints))
    form = {
        "openapi": full["openapi"],
        "info": full["info"],
        "paths": {path: _operations(item) for path, item in full["paths"].items()},
        "components": {"schemas": {**full["components"]["schemas"], **_BODIES}},
    }
    return json.dumps(form, indent=1) + "\n"


def _operations(item: Mapping[str, Any]) -> dict[str, Any]:
    return {method: _operation(one) for method, one in item.items()}


def _operation(full: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation under the name that the import would give it, with what the import knows."""
    operation = {key: full[key] for key in _KNOWN if key in full}
    operation["operationId"] = full["operationId"].replace("_", "-")
    for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
        for media in part.get("content", {}).values():
            media["schema"] = _referred(media["schema"])
    return operation


def _referred(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a reference to the schema, which may not stand in the operation."""
    name = next((name for name, one in _BODIES.items() if one == schema), None)
    return schema if name is None else {"$ref": f"#/components/schemas/{name}"}
