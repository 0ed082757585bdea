"""The interface's document as a validator of others reads it, in both its forms."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.api import ENDPOINTS
from core.openapi import document, document_30
from tests.infra.tools import tool

Spec = dict[str, Any]


def written(form: str) -> Spec:
    """Return the document as it is sent."""
    full = document(ENDPOINTS, "/ml", public_docs=True)
    found: Spec = json.loads(json.dumps(full if form == "3.1" else document_30(full)))
    return found


def valid(spec: Spec, file: Path) -> bool:
    file.write_text(json.dumps(spec))
    line = [str(tool("openapi-spec-validator")), "--schema", "detect", str(file)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("form", ["3.1", "3.0"])
def test_the_document_is_valid(tmp_path: Path, form: str) -> None:
    spec = written(form)
    assert spec["openapi"].startswith(form)
    assert valid(spec, tmp_path / "openapi.json")


Edit = Callable[[Spec], object]
NEWER: dict[str, Edit] = {
    "a parameter of nowhere": lambda spec: operation(spec)["parameters"][0].update({"in": "nowhere"}),
    "a segment without its parameter": lambda spec: operation(spec).update(parameters=[]),
    "an answer without a description": lambda spec: operation(spec)["responses"]["200"].pop("description"),
    "an operation's name twice": lambda spec: operation(spec).update(operationId="post_predict"),
    "a schema that is not there": lambda spec: spec["components"]["schemas"].pop("Problem"),
    "a security scheme without a type": lambda spec: spec["components"]["securitySchemes"]["bearer"].pop("type"),
}
OLDER: dict[str, Edit] = {
    "nothing required": lambda spec: spec["components"]["schemas"]["Problem"].update(required=[]),
    "a constant": lambda spec: spec["components"]["schemas"]["Problem"].update(const=1),
    "several types": lambda spec: spec["components"]["schemas"]["Problem"].update(type=["object", "null"]),
}
EDITS = [("3.1", name, edit) for name, edit in NEWER.items()]
EDITS += [("3.0", name, edit) for name, edit in OLDER.items()]


def operation(spec: Spec) -> Spec:
    found: Spec = spec["paths"]["/predict/{model}"]["post"]
    return found


@pytest.mark.parametrize(("form", "edit"), [pytest.param(form, edit, id=f"{form} {n}") for form, n, edit in EDITS])
def test_one_fault_is_noticed(tmp_path: Path, form: str, edit: Edit) -> None:
    spec = written(form)
    edit(spec)
    assert not valid(spec, tmp_path / "openapi.json")


def schemas(value: Any) -> Iterator[Spec]:
    """Yield every mapping of a document."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from schemas(item)


def test_null_is_allowed_beside_a_type_where_alone_3_0_lets_it_count() -> None:
    nullable = [schema for schema in schemas(written("3.0")) if "nullable" in schema]
    assert nullable
    assert all("type" in schema for schema in nullable)


def test_no_parameter_has_a_name_that_its_path_has_too() -> None:
    """It could only contradict the path."""
    for path, item in written("3.1")["paths"].items():
        for method, found in item.items():
            names = [parameter["name"] for parameter in found["parameters"]]
            assert len(set(names)) == len(names), (method, path)
    queries = [p["name"] for p in written("3.1")["paths"]["/retrain"]["post"]["parameters"] if p["in"] == "query"]
    assert queries == ["model"]
