"""Training jobs through the control endpoints: accepted once, stored where the worker looks, refused whole."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from core import jobs
from core.errors import Transient
from core.store import MemoryStore
from core.web import Response
from tests.core.house import House, body_of, header

EMPTY = gzip.compress(b"", mtime=0)


@pytest.fixture
def house() -> House:
    """A house with one model."""
    made = House()
    made.publish()
    return made


def keyed(key: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": key}}


def refusal(response: Response) -> tuple[int, str]:
    return response.status, body_of(response)["code"]


def test_training_is_accepted_as_an_object_that_the_worker_understands(house: House) -> None:
    token = house.token("trainer", label="ci")
    response = house.send("POST", "/train", {"reason": "weekly"}, token=token)
    accepted = body_of(response)
    assert response.status == 202
    assert header(response, "location") == accepted["status_url"] == f"/jobs/{accepted['job_id']}"
    (entry,) = house.store.list("jobs/")
    assert accepted["job_id"] == jobs.job_id("support", jobs.source_id(entry.key, entry.token))
    found = jobs.parse_key(entry.key)
    assert found is not None
    assert (found.model, found.kind) == ("support", "job")
    document = json.loads(house.store.get(entry.key).data)
    assert {name: document[name] for name in ("kind", "model", "actor", "role", "reason", "created")} == {
        "kind": "train", "model": "support", "actor": "ci", "role": "trainer", "reason": "weekly",
        "created": house.clock.now,
    }  # fmt: skip
    assert document["request_id"] == header(response, "x-request-id")
    job = body_of(house.send("GET", accepted["status_url"], token=token))
    assert (job["job_id"], job["status"], job["kind"]) == (accepted["job_id"], "queued", "job")
    assert house.metric("retraining_events_count", ("support", "requested")) == 1
    assert house.logged("request")[0]["job"] == accepted["job_id"]


def test_an_empty_form_is_no_body(house: House) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d ""` sends
    assert house.send("POST", "/retrain", token=house.token("trainer"), headers=headers).status == 202


def test_training_needs_no_body_as_in_the_documents(house: House) -> None:
    assert house.send("POST", "/train", token=house.token("trainer")).status == 202
    assert house.send("POST", "/retrain", token=house.token("trainer")).status == 202
    kinds = sorted(json.loads(house.store.get(entry.key).data)["kind"] for entry in house.store.list("jobs/"))
    assert kinds == ["retrain", "train"]


def test_rows_become_an_upload_of_json_lines(house: House) -> None:
    rows = [{"text": "where is my box", "label": "delivery"}, {"text": "é", "label": "billing"}]
    token = house.token("trainer")
    for path, body in (("/retrain/support", {"rows": rows}), ("/retrain", {"rows": rows, "model": "support"})):
        accepted = body_of(house.send("POST", path, body, token=token))
        (entry,) = house.store.list("uploads/")
        assert accepted["job_id"] == jobs.job_id("support", jobs.source_id(entry.key, entry.token))
    assert entry.key.endswith(".jsonl")
    assert [json.loads(line) for line in house.store.get(entry.key).data.splitlines()] == rows
    assert body_of(house.send("GET", accepted["status_url"], token=token))["status"] == "queued"


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("text/csv", "csv"), ("application/x-ndjson", "jsonl"), ("application/jsonl", "jsonl"),
     ("application/vnd.apache.parquet", "parquet"), ("application/zip", "zip"), ("application/x-npz", "npz"),
     ("application/gzip", "gz"), ("application/octet-stream", "data"), ("text/csv; charset=utf-8", "csv")],
)  # fmt: skip
def test_a_data_file_becomes_an_upload_and_five_deliveries_are_one(house: House, kind: str, ending: str) -> None:
    token = house.token("trainer")
    answers = [
        house.send("POST", "/retrain/support", b"text,label\na,b\n", token=token, headers={"content-type": kind})
        for _ in range(5)
    ]
    assert [response.status for response in answers] == [202] * 5
    assert len({response.body for response in answers}) == 1
    (entry,) = house.store.list("uploads/")
    assert entry.key.startswith("uploads/support/")
    assert entry.key.endswith("." + ending)
    assert house.store.get(entry.key).data == b"text,label\na,b\n"


def test_a_data_file_may_name_its_model_in_the_query_and_come_packed(house: House) -> None:
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}
    packed = gzip.compress(b"text,label\na,b\n")
    response = house.send(
        "POST", "/retrain", packed, token=house.token("trainer"), query="model=support", headers=headers
    )
    assert response.status == 202
    (entry,) = house.store.list("uploads/")
    assert house.store.get(entry.key).data == b"text,label\na,b\n"


def test_an_upload_that_lies_there_is_a_job_already(house: House) -> None:
    token = house.token("trainer")
    stored = house.store.put_if_absent("uploads/support/new/march.csv", b"text,label\n")
    accepted = body_of(house.send("POST", "/retrain", {"upload": "uploads/support/new/march.csv"}, token=token))
    src = jobs.source_id("uploads/support/new/march.csv", stored)
    assert accepted["job_id"] == jobs.job_id("support", src)
    missing = house.send("POST", "/retrain", {"upload": "uploads/support/none.csv"}, token=token)
    assert refusal(missing) == (404, "not_found")
    for key in (
        "uploads/other/x.csv",
        "reg/support/log/1",
        "uploads/support/../other/x",
        "uploads/support/.x",
        "x",
    ):
        response = house.send("POST", "/retrain/support", {"upload": key}, token=token)
        assert refusal(response) == (422, "invalid_input")
        assert body_of(response)["errors"][0]["field"] == "upload"


@pytest.mark.parametrize(
    ("path", "body", "kind", "expected"),
    [
        ("/retrain/support", b"", "text/csv", 422),
        ("/retrain/support", b"", "Text/CSV; charset=utf-8", 422),
        ("/retrain/support", EMPTY, "text/csv", 422),
        ("/retrain/support", b"x", "text/html", 415),
        ("/retrain/support", b"x" * 2000, "text/csv", 413),
        ("/retrain/support", {"rows": []}, None, 422),
        ("/retrain/support", {"rows": [5]}, None, 422),
        ("/retrain/support", {"rows": [{"text": {"a": 1}}]}, None, 422),
        ("/retrain/support", {"rows": [{"text": "a"}], "upload": "uploads/support/x"}, None, 400),
        ("/retrain/support", {"model": "other"}, None, 400),
        ("/retrain/none", {}, None, 404),
        ("/retrain", {"model": "none"}, None, 404),
        ("/retrain", {"model": "A"}, None, 422),
        ("/train", {"model": "none"}, None, 404),
        ("/train", {"epochs": 3}, None, 422),
    ],
)
def test_bad_data_is_refused_and_nothing_is_stored(path: str, body: Any, kind: str | None, expected: int) -> None:
    house = House(max_upload_bytes=1024)
    house.publish()
    headers = {"content-type": kind} if kind else {}
    if body is EMPTY:
        headers["content-encoding"] = "gzip"
    response = house.send("POST", path, body, token=house.token("trainer"), headers=headers)
    assert response.status == expected
    assert list(house.store.list("uploads/")) + list(house.store.list("jobs/")) == []


def test_an_illegal_model_in_the_query_is_an_invalid_name(house: House) -> None:
    response = house.send(
        "POST",
        "/retrain",
        b"a",
        token=house.token("trainer"),
        query="model=..",
        headers={"content-type": "text/csv"},
    )
    assert refusal(response) == (400, "invalid_name")


def test_a_trainer_of_another_model_is_forbidden_and_nothing_is_stored(house: House) -> None:
    token = house.token("trainer", models=["other"])
    for path, body in (
        ("/train", {"model": "support"}),
        ("/retrain", {"model": "support"}),
        ("/retrain/support", {}),
    ):
        assert refusal(house.send("POST", path, body, token=token)) == (403, "forbidden")
    assert refusal(house.send("GET", "/jobs/support.0123456789abcdef", token=token)) == (403, "forbidden")
    assert list(house.store.list("jobs/")) == []


def test_an_unknown_job_is_not_found(house: House) -> None:
    token = house.token("trainer")
    assert refusal(house.send("GET", "/jobs/support.0123456789abcdef", token=token)) == (404, "not_found")
    assert refusal(house.send("GET", "/jobs/0123456789abcdef", token=token)) == (400, "invalid_name")


# -- a store that fails


class Flaky(MemoryStore):
    """A store whose creations under an inbox fail as told, before or after their effect."""

    mode = ""

    def put_if_absent(self, key: str, data: bytes) -> str:
        if self.mode and key.startswith(("jobs/", "uploads/")):
            if self.mode == "after":
                super().put_if_absent(key, data)
            raise Transient("cut")
        return super().put_if_absent(key, data)


def test_a_lost_answer_of_the_store_is_resolved_by_reading() -> None:
    store = Flaky()
    house = House(store=store)
    house.publish()
    token = house.token("trainer")
    store.mode = "after"
    first = house.send("POST", "/retrain/support", {"rows": [{"text": "a"}]}, token=token)
    assert first.status == 202
    assert house.send("POST", "/train", {}, token=token).status == 202
    store.mode = "before"
    unknown = house.send("POST", "/train", {}, token=token)
    assert refusal(unknown) == (503, "unavailable")
    assert header(unknown, "retry-after") is not None
    assert len(list(store.list("jobs/"))) == 1


@pytest.mark.parametrize("data", [b"not json", b"[]", b'{"digest": 5}', b"[" * 100_000])
def test_a_job_object_that_somebody_else_wrote_is_not_taken_for_ours(house: House, data: bytes) -> None:
    token = house.token("trainer")
    house.send("POST", "/train", {}, token=token, **keyed("k"))
    (entry,) = house.store.list("jobs/")
    house.store.put(entry.key, data)
    assert refusal(house.send("POST", "/train", {}, token=token, **keyed("k"))) == (422, "idempotency_mismatch")
