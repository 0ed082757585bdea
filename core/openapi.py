"""The OpenAPI document, made from the endpoint table and the message types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from core.messages import EXAMPLES, TYPES
from core.web import JSON, PROBLEM_TYPE, PUBLIC, TITLES, Endpoint

API_VERSION = "1"
_PARAMETERS = {
    "model": "A model's name.",
    "version": "A version id or an alias.",
    "alias": "An alias: production, staging, previous, or one of your own.",
    "job": "A job id, as an accepting endpoint gave it.",
    "asset": "A file name.",
}
_QUERY = {
    "serving.predict": {"version": "Answer with this version or alias."},
    "serving.models": {"after": "Go on after this name."},
    "serving.model": {"version": "Describe this version or alias."},
    "control.history": {
        "at": "A time: seconds since the epoch, or ISO 8601.",
        "limit": "At most so many entries (1 to 1000).",
    },
    "control.retrain": {"model": "The model of a data file."},
}
_DATA = (
    "text/csv",
    "application/x-ndjson",
    "application/vnd.apache.parquet",
    "application/zip",
    "application/gzip",
)
_MUTATING = ("control.promote", "control.rollback", "control.set_alias", "control.retire")
_JOBS = ("control.train", "control.retrain")


def document(endpoints: Iterable[Endpoint], base_path: str = "", *, public_docs: bool = False) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. The same table gives the same document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, public_docs)
    _, schemas = msgspec.json.schema_components(TYPES.values(), ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Polysky", "version": API_VERSION, "description": "Train, serve and retrain models."},
        "servers": [{"url": base_path or "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def document_30(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI 3.0 form of a 3.1 document, for tools that know no 3.1."""
    older: dict[str, Any] = _older(document)
    return {**older, "openapi": "3.0.3"}


def _operation(endpoint: Endpoint, public_docs: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[1] or "root"],
        "parameters": _parameters(endpoint),
        "responses": _responses(endpoint),
        "x-plane": endpoint.plane,
        "x-permission": endpoint.permission,
    }
    if endpoint.permission == PUBLIC or (public_docs and endpoint.permission == "docs:read"):
        operation["security"] = []
    if endpoint.takes:
        operation["requestBody"] = _body(endpoint)
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"[a-z0-9]+", endpoint.path)
    return "_".join([endpoint.method.lower(), *words])


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    in_path = {parameter["name"] for parameter in found}
    for name, text in _QUERY.get(endpoint.handler, {}).items():
        if name not in in_path:
            found.append({"name": name, "in": "query", "description": text, "schema": {"type": "string"}})
    if endpoint.handler == "serving.predict":
        text = "Answer with this version or alias."
        found.append(
            {"name": "X-Model-Version", "in": "header", "description": text, "schema": {"type": "string"}}
        )
    if endpoint.handler in _MUTATING + _JOBS:
        text = "Makes repeating the call safe: one key, one effect."
        schema = {"type": "string", "maxLength": 128}
        found.append({"name": "Idempotency-Key", "in": "header", "description": text, "schema": schema})
    return found


def _body(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": _ref(endpoint.takes)}}
    if endpoint.takes in EXAMPLES:
        content[JSON]["example"] = EXAMPLES[endpoint.takes]
    if endpoint.body == "rows":
        content["text/csv"] = {"schema": {"type": "string"}}
        content |= {media: {"schema": _BINARY} for media in ("image/png", "image/jpeg")}
    if endpoint.body == "data":
        content |= {media: {"schema": _BINARY} for media in _DATA}
    return {"required": endpoint.body == "rows", "content": content}


_BINARY = {"type": "string", "format": "binary"}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Accepted" if endpoint.status == 202 else "Success"}
    if endpoint.gives:
        answer["content"] = {JSON: {"schema": _ref(endpoint.gives)}}
        if endpoint.gives in EXAMPLES:
            answer["content"][JSON]["example"] = EXAMPLES[endpoint.gives]
    responses = {str(endpoint.status): answer}
    for status in _statuses(endpoint):
        content = {PROBLEM_TYPE: {"schema": _ref("Problem")}}
        responses[str(status)] = {"description": TITLES[status], "content": content}
    return responses


def _statuses(endpoint: Endpoint) -> list[int]:
    if endpoint.permission == PUBLIC:
        return [503] if endpoint.handler == "serving.ready" else []
    found = {401, 403, 429, 503}
    if "{" in endpoint.path or endpoint.takes:
        found |= {400, 404}
    if endpoint.takes:
        found |= {413, 415, 422}
    if endpoint.plane == "control" and endpoint.method != "GET":
        found.add(409)
    return sorted(found)


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _older(value: Any) -> Any:
    if isinstance(value, list):
        return [_older(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _older(item) for key, item in value.items() if key not in ("examples", "const")}
    if found.get("required") == []:  # 3.0 wants one name at least
        del found["required"]
    if "const" in value:
        found["enum"] = [value["const"]]
    options = found.get("anyOf")
    if isinstance(options, list):
        rest = [option for option in options if option != {"type": "null"}]
        if len(rest) < len(options):
            del found["anyOf"]
            first = {**rest[0], "nullable": True}  # which counts beside a type only
            found |= first if len(rest) == 1 else {"anyOf": [first, *rest[1:]]}
    return found
