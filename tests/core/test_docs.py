"""The OpenAPI document and the documentation page."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from core import messages
from core.api import ENDPOINTS
from core.openapi import document, document_30
from core.web import PUBLIC
from tests.core.house import House, body_of, header, table_model

SPEC = json.loads(json.dumps(document(ENDPOINTS)))


def walk(value: Any) -> Iterator[Any]:
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(item)


def operations(spec: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): op for path, ops in spec["paths"].items() for method, op in ops.items()}


@pytest.mark.parametrize("spec", [SPEC, json.loads(json.dumps(document_30(SPEC)))], ids=["3.1", "3.0"])
def test_the_document_is_whole(spec: dict[str, Any]) -> None:
    found = operations(spec)
    assert found.keys() == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)
    references = {item["$ref"] for item in walk(spec) if isinstance(item, dict) and "$ref" in item}
    assert references
    schemas = spec["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= schemas.keys()
    for (_, path), operation in found.items():
        declared = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
        assert all("description" in answer for answer in operation["responses"].values())
        assert operation["summary"]


def test_security_is_declared_as_it_is_enforced() -> None:
    assert SPEC["security"] == [{"bearer": []}, {"apiKey": []}]
    assert SPEC["components"]["securitySchemes"].keys() == {"bearer", "apiKey"}
    for endpoint in ENDPOINTS:
        operation = operations(SPEC)[endpoint.method, endpoint.path]
        assert (operation.get("security") == []) == (endpoint.permission == PUBLIC)
        assert ("401" in operation["responses"]) == (endpoint.permission != PUBLIC)
        assert operation["x-plane"] == endpoint.plane
        assert operation["x-permission"] == endpoint.permission
    public = operations(document(ENDPOINTS, "/ml", public_docs=True))
    assert public["GET", "/docs"]["security"] == []
    assert document(ENDPOINTS, "/ml")["servers"] == [{"url": "/ml"}]


def test_examples_are_of_the_types_that_they_stand_for() -> None:
    for name, example in messages.EXAMPLES.items():
        msgspec.convert(example, messages.TYPES[name])
    shown = [item["example"] for item in walk(SPEC) if isinstance(item, dict) and "example" in item]
    assert messages.EXAMPLES["PredictRequest"] in shown


def test_the_older_form_has_nothing_that_only_the_newer_one_knows() -> None:
    older = document_30(SPEC)
    assert older["openapi"] == "3.0.3"
    for item in walk(older):
        if isinstance(item, dict) and "$schema" not in item:
            assert "const" not in item
            assert item.get("type") != "null"
            assert not isinstance(item.get("type"), list)
    nullable = older["components"]["schemas"]["ModelItem"]["properties"]["version"]
    assert nullable["nullable"] is True


def test_answers_are_of_the_declared_types() -> None:
    """Every JSON answer of a house that has seen everything is strictly what the document promises."""
    house = House()
    house.publish()
    second = house.publish(alias=None)
    house.publish("prices", table_model())
    token = house.token("admin")
    job = body_of(house.send("POST", "/train", {"model": "support"}, token=token))["job_id"]
    bodies = {
        "promote": {"version": second},
        "rollback": {},
        "aliases": {"version": second},
        "train": {"model": "support"},
    }
    names = {"model": "support", "version": "production", "alias": "staging", "job": job, "asset": "start.js"}
    seen = set()
    for endpoint in ENDPOINTS:
        if not endpoint.gives:
            continue
        path = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], endpoint.path)
        if endpoint.handler == "control.retire":
            path = path.replace("production", house.publish(alias=None))
        body = next((value for part, value in bodies.items() if part in path), {"model": "support", "text": "a"})
        if "retrain" in path:
            body = {"model": "support"}
        response = house.send(endpoint.method, path, None if endpoint.method == "GET" else body, token=token)
        assert response.status == endpoint.status, (path, response.body)
        kind = messages.TYPES[endpoint.gives]
        answer = body_of(response)
        assert answer.keys() <= set(kind.__struct_encode_fields__)
        msgspec.convert(answer, kind)
        seen.add(endpoint.gives)
    regression = house.send("POST", "/predict/prices", {"instances": [[1, "a"]]}, token=token)
    msgspec.convert(body_of(regression), messages.PredictResponse)
    problem = body_of(house.send("POST", "/predict/support", {"text": 5}, token=token))
    msgspec.convert(problem, messages.Problem)
    assert seen == {endpoint.gives for endpoint in ENDPOINTS} - {""}


def test_the_page_works_without_the_internet() -> None:
    house = House(public_docs=True)
    page = house.send("GET", "/docs")
    assert header(page, "content-type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in str(header(page, "content-security-policy"))
    text = page.body.decode()
    assert "//" not in text
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(sources) == 4
    for source in sources:
        file = house.send("GET", source)
        assert file.status == 200
        assert len(file.body) > 100
    start = house.send("GET", "/docs/start.js").body.decode()
    assert "validatorUrl: null" in start
    url = re.findall(r'url: "([^"]+)"', start)[0]
    assert body_of(house.send("GET", url))["openapi"] == "3.0.3"
    assert body_of(house.send("GET", "/openapi.json"))["openapi"] == "3.1.0"
    assert house.send("GET", "/docs/swagger-ui.css").headers[0] == ("Content-Type", "text/css; charset=utf-8")


@pytest.mark.parametrize(
    "name", ["none.js", "..", "%2e%2e%2fx.js", "swagger-ui.css.map", "index.html", "x" * 80 + ".js"]
)
def test_no_other_file_is_served(name: str) -> None:
    assert House(public_docs=True).send("GET", f"/docs/{name}").status in (400, 404)


def test_a_deployment_without_the_library_still_has_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "swagger_ui_bundle":
            raise ImportError(name)
        return real(name, *args, **more)

    house = House(public_docs=True)
    monkeypatch.setattr(builtins, "__import__", without)
    assert house.send("GET", "/docs/swagger-ui.css").status == 404
    assert house.send("GET", "/openapi.json").status == 200
