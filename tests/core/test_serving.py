"""Predictions, model cards, health and metrics through the whole application."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.artifact import load
from core.keys import alias_key
from core.store import MemoryStore
from tests.core.house import (
    House,
    Spy,
    body_of,
    damaged,
    header,
    image_model,
    picture,
    table_model,
    text_model,
    version_id,
    wide_model,
)

TEXT = "where is my parcel"


@pytest.fixture
def house() -> House:
    """A house with a text model."""
    made = House()
    made.publish()
    return made


# -- predictions


def test_a_prediction_is_what_the_model_itself_says(house: House) -> None:
    response = house.send("POST", "/predict/support", {"texts": [TEXT, "refund"]}, token=house.token())
    model = load(text_model())
    direct = model.predict(model.schema.batch([{"text": TEXT}, {"text": "refund"}]))
    body = body_of(response)
    assert direct.probabilities is not None
    assert [p["label"] for p in body["predictions"]] == direct.labels
    for entry, row in zip(body["predictions"], direct.probabilities, strict=True):
        shares = [float(f"{share:.12g}") for share in row]
        assert entry["probabilities"] == dict(zip(model.classes, shares, strict=True))
        assert entry["probability"] == max(shares)
    assert (body["model"], body["version"]) == ("support", version_id(1))
    assert header(response, "x-model-name") == "support"
    assert header(response, "x-model-version") == version_id(1)
    assert body["request_id"] == header(response, "x-request-id")


def test_a_regression_answers_values(house: House) -> None:
    house.publish("prices", table_model())
    response = house.send("POST", "/predict/prices", {"features": {"size": 2, "town": "b"}}, token=house.token())
    (entry,) = body_of(response)["predictions"]
    assert entry.keys() == {"value"}
    assert entry["value"] == pytest.approx(2.5, abs=0.6)
    assert house.metric("model_prediction_count", ("prices", "_value")) == 1


def test_json_gzip_and_csv_bodies_mean_the_same(house: House) -> None:
    token = house.token()
    packed = gzip.compress(json.dumps({"text": TEXT}).encode())
    sent: list[tuple[bytes, dict[str, str]]] = [
        (json.dumps({"text": TEXT}).encode(), {"content-type": "application/json; charset=utf-8"}),
        (packed, {"content-type": "application/json", "content-encoding": "gzip"}),
        (f"text\n{TEXT}\n".encode(), {"content-type": "text/csv"}),
    ]
    answers = [house.send("POST", "/predict/support", body, token=token, headers=more) for body, more in sent]
    assert [response.status for response in answers] == [200] * 3
    assert len({json.dumps(body_of(response)["predictions"]) for response in answers}) == 1


def test_the_model_is_named_by_path_body_or_being_the_only_one(house: House) -> None:
    token = house.token()
    for path, body in (("/predict/support", {}), ("/predict", {"model": "support"}), ("/predict", {}),
                       ("/predict/support", {"model": "support"})):  # fmt: skip
        assert house.send("POST", path, {"text": TEXT, **body}, token=token).status == 200
    conflict = house.send("POST", "/predict/support", {"text": TEXT, "model": "other"}, token=token)
    assert (conflict.status, body_of(conflict)["code"]) == (400, "malformed_body")
    house.publish("prices", table_model())
    house.clock.now += 5.0
    several = house.send("POST", "/predict", {"text": TEXT}, token=token)
    assert (several.status, body_of(several)["code"]) == (400, "malformed_body")
    scoped = house.token(models=["support"])
    assert house.send("POST", "/predict", {"text": TEXT}, token=scoped).status == 200
    assert house.send("POST", "/predict", {"text": TEXT, "model": "prices"}, token=scoped).status == 403


def test_a_log_without_a_serving_version_does_not_make_the_only_model_ambiguous(house: House) -> None:
    house.publish("suport", alias=None)
    house.clock.now += 5.0
    response = house.send("POST", "/predict", {"text": TEXT}, token=house.token())
    assert (response.status, header(response, "x-model-name")) == (200, "support")


def test_without_any_model_there_is_nothing_to_predict_with() -> None:
    house = House()
    response = house.send("POST", "/predict", {"text": TEXT}, token=house.token())
    assert (response.status, body_of(response)["code"]) == (404, "not_found")
    assert house.send("POST", "/predict/none", {"text": TEXT}, token=house.token()).status == 404


def test_a_version_is_pinned_by_query_header_or_body(house: House) -> None:
    two = house.publish(data=text_model(4), alias="staging")
    token, path = house.token(), "/predict/support"
    pinned = [
        house.send("POST", path, {"text": TEXT}, token=token, query=f"version={two}"),
        house.send("POST", path, {"text": TEXT}, token=token, headers={"x-model-version": two}),
        house.send("POST", path, {"text": TEXT, "version": two}, token=token, query=f"version={two}"),
        house.send("POST", path, {"text": TEXT, "version": "staging"}, token=token),
    ]
    assert [body_of(response)["version"] for response in pinned] == [two] * 4
    assert body_of(house.send("POST", path, {"text": TEXT}, token=token, query="x=1"))["version"] == version_id(1)
    other = house.send("POST", path, {"text": TEXT, "version": "staging"}, token=token, query=f"version={two}")
    assert (other.status, body_of(other)["code"]) == (400, "malformed_body")
    for unknown in ("v-0123456789ab", "nothing"):
        assert house.send("POST", path, {"text": TEXT, "version": unknown}, token=token).status == 404
    for illegal in ("../x", "V1", ""):
        assert house.send("POST", path, {"text": TEXT, "version": illegal}, token=token).status == 400


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"rows": []}, 422, "invalid_input"),
        ({"text": 5}, 422, "invalid_input"),
        ({"text": None}, 422, "invalid_input"),
        ({"text": True}, 422, "invalid_input"),
        ({"rows": [{"text": "a", "extra": 1}]}, 422, "invalid_input"),
        ({"rows": [{}]}, 422, "invalid_input"),
        ({"instances": [["a", "b"]]}, 422, "invalid_input"),
        ({"texts": ["a"] * 17}, 413, "too_large"),
        ({"text": "a" * 70_000}, 413, "too_large"),
        ({"sentence": "a"}, 400, "malformed_body"),
        (b"", 415, "unsupported_media"),
        (b"{", 415, "unsupported_media"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(body: Any, status: int, code: str) -> None:
    house = House(max_batch_rows=16, max_body_bytes=65_536)
    house.publish()
    response = house.send("POST", "/predict/support", body, token=house.token())
    found = body_of(response)
    assert (response.status, found["code"]) == (status, code)
    if status == 422:
        assert found["errors"]
        assert all(item.keys() <= {"message", "field", "row"} for item in found["errors"])
    if status == 413:
        assert str(found["limit"]) in found["detail"]


def test_batches_of_one_and_of_the_limit_are_answered_in_order() -> None:
    house = House(max_batch_rows=50)
    house.publish()
    texts = [("refund " if i % 2 else "parcel ") + str(i) for i in range(50)]
    answers = body_of(house.send("POST", "/predict/support", {"texts": texts}, token=house.token()))["predictions"]
    assert [entry["label"] for entry in answers] == ["delivery", "billing"] * 25
    assert house.metric("model_prediction_count", ("support", "billing")) == 25


def test_an_image_is_taken_as_a_body_and_as_base64(house: House) -> None:
    house.publish("photos", image_model())
    token = house.token()
    for shade, label in ((25, "dark"), (215, "light")):
        sent = {"image": base64.b64encode(picture(shade)).decode()}
        packed = house.send("POST", "/predict/photos", sent, token=token)
        plain = house.send(
            "POST", "/predict/photos", picture(shade), token=token, headers={"content-type": "image/png"}
        )
        assert body_of(packed)["predictions"] == body_of(plain)["predictions"]
        assert body_of(plain)["predictions"][0]["label"] == label
    bad = house.send("POST", "/predict/photos", b"\x89PNG\r\n", token=token, headers={"content-type": "image/png"})
    assert (bad.status, body_of(bad)["code"]) == (422, "invalid_input")


def test_an_image_for_a_model_without_one_is_invalid(house: House) -> None:
    headers = {"content-type": "image/png"}
    response = house.send("POST", "/predict/support", b"\x89PNG", token=house.token(), headers=headers)
    assert (response.status, body_of(response)["errors"][0]["field"]) == (422, "image")


# -- versions that move, break and are asked for all at once


def test_a_moved_alias_is_followed_within_seconds_and_a_rollback_too(house: House) -> None:
    token, path = house.token(), "/predict/support"

    def version() -> Any:
        return body_of(house.send("POST", path, {"text": TEXT}, token=token))["version"]

    assert version() == version_id(1)
    two = house.publish(data=text_model(4))
    house.clock.now += 3.0
    assert version() == two
    house.registry.rollback("support", op_id="back")
    house.clock.now += 3.0
    assert version() == version_id(1)


def test_damage_found_while_predicting_is_answered_by_the_previous_version() -> None:
    house = House()
    house.publish(data=text_model())
    broken = house.publish(data=damaged(wide_model(), unread=True))
    token = house.token()
    model = load(wide_model())
    texts = [f"w{number}x w{number + 1}x w{number + 2}x" for number in range(0, 3990, 4)]
    answers = [body_of(house.send("POST", "/predict/support", {"text": t}, token=token)) for t in texts]
    versions = [answer["version"] for answer in answers]
    assert set(versions) == {broken, version_id(1)}
    assert versions == sorted(versions, reverse=True)
    for text, answer in zip(texts, answers, strict=True):
        if answer["version"] == broken:  # what was answered before the damage was met is right
            assert (
                answer["predictions"][0]["label"]
                == (model.predict(model.schema.batch([{"text": text}])).labels or [""])[0]
            )
    assert house.metric("integrity_failures_count", ("support",)) == 1
    health = body_of(house.send("GET", "/health"))
    assert (health["status"], health["models"]["support"]["status"]) == ("degraded", "fallback")


def test_a_cold_stampede_takes_three_reads_and_writes_nothing() -> None:
    store = Spy()
    house = House(store=store)
    house.publish()
    token = house.token()
    before = {entry.key: entry.token for entry in store.list("")}
    store.keys.clear()
    store.delay_s = 0.01
    found: list[int] = []
    barrier = threading.Barrier(100)

    def work() -> None:
        barrier.wait()
        found.append(house.send("POST", "/predict/support", {"text": TEXT}, token=token).status)

    threads = [threading.Thread(target=work) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 100
    assert len(store.keys) == 3
    assert {entry.key: entry.token for entry in store.list("")} == before
    assert body_of(house.send("GET", "/health"))["predictions_count"] == 100
    assert house.metric("app_active_requests") == 0


# -- cards, health, metrics


def test_models_are_listed_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.serving.PAGE", 2)
    house = House()
    for name in ("a", "b", "c"):
        house.publish(name)
    house.publish("d", alias=None)
    token = house.token()
    first = body_of(house.send("GET", "/models", token=token))
    assert [item["name"] for item in first["models"]] == ["a", "b"]
    second = body_of(house.send("GET", "/models", token=token, query=f"after={first['next']}"))
    assert second == {"models": [{"name": "c", "version": version_id(3)}, {"name": "d", "version": None}]}
    scoped = body_of(house.send("GET", "/models", token=house.token(models=["c"])))
    assert [item["name"] for item in scoped["models"]] == ["c"]


def test_one_damaged_alias_takes_no_other_model_out_of_the_list(house: House) -> None:
    house.publish("broken")
    house.store.put(alias_key("broken", "production"), b"nothing")
    token = house.token()
    first = {"name": "broken", "version": None, "status": "failed"}
    second = {"name": "support", "version": version_id(1)}
    assert body_of(house.send("GET", "/models", token=token)) == {"models": [first, second]}
    assert house.send("POST", "/predict", {"text": TEXT}, token=token).status == 400  # it may be meant


def test_a_model_that_serves_on_is_listed_as_it_serves(house: House) -> None:
    token = house.token()
    assert house.send("POST", "/predict", {"text": TEXT}, token=token).status == 200
    house.store.put(alias_key("support", "production"), b"nothing")
    house.clock.now += 5.0
    assert body_of(house.send("GET", "/models", token=token)) == {
        "models": [{"name": "support", "version": version_id(1)}]
    }


def test_a_card_tells_what_a_version_takes_answers_and_scored(house: House) -> None:
    two = house.publish(data=text_model(4), alias="staging")
    token = house.token()
    card = body_of(house.send("GET", "/models/support", token=token))
    assert (card["version"], card["task"], card["classes"]) == (
        version_id(1), "classification", ["account", "billing", "delivery"],
    )  # fmt: skip
    assert card["columns"] == [{"name": "text", "kind": "text", "width": 0, "values": []}]
    assert card["metrics"]["accuracy"] == 0.75
    assert body_of(house.send("GET", "/models/support", token=token, query="version=staging"))["version"] == two
    assert house.send("GET", "/models/none", token=token).status == 404


def test_health_tells_models_versions_age_and_work(house: House) -> None:
    cold = body_of(house.send("GET", "/health"))
    assert cold == {
        "status": "healthy",
        "models": {},
        "model_version": None,
        "uptime": 0.0,
        "predictions_count": 0,
    }
    house.send("POST", "/predict/support", {"texts": ["a", "b"]}, token=house.token())
    house.clock.now += 7.5
    assert body_of(house.send("GET", "/health")) == {
        "status": "healthy",
        "models": {"support": {"status": "ready", "version": version_id(1)}},
        "model_version": version_id(1),
        "uptime": 7.5,
        "predictions_count": 2,
    }
    house.publish("other")
    house.clock.now += 7.5
    house.send("GET", "/health/ready")
    assert body_of(house.send("GET", "/health"))["model_version"] is None
    assert body_of(house.send("GET", "/health/live")) == {"live": True}


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_a_moved_alias_is_told_without_any_other_traffic(house: House, path: str) -> None:
    token = house.token("metrics")
    house.send("GET", "/health/ready")
    two = house.publish(data=text_model(1))
    house.clock.now += 5.0
    assert two.encode() in house.send("GET", path, token=token).body


def test_ready_loads_what_there_is_and_one_damaged_model_takes_no_other_out_of_service(house: House) -> None:
    response = house.send("GET", "/health/ready")
    assert response.status == 200
    assert body_of(response) == {
        "ready": True,
        "models": {"support": {"status": "ready", "version": version_id(1)}},
    }
    house.publish("draft", alias="staging")
    house.publish("broken", damaged(wide_model()), alias="production")
    house.clock.now += 5.0
    response = house.send("GET", "/health/ready")
    assert (response.status, body_of(response)["ready"]) == (200, True)
    assert body_of(response)["models"]["broken"] == {"status": "failed", "version": None}
    assert "draft" not in body_of(response)["models"]


def test_a_process_whose_only_model_is_damaged_is_not_ready() -> None:
    house = House()
    house.publish("broken", damaged(wide_model()), alias="production")
    response = house.send("GET", "/health/ready")
    assert (response.status, body_of(response)["ready"]) == (503, False)


def test_an_empty_store_is_ready_and_a_store_that_is_down_only_if_something_is_loaded() -> None:
    class Down(MemoryStore):
        down = False

        def list(self, prefix: str) -> Any:
            if self.down:
                from core.errors import Transient

                raise Transient("down")
            return super().list(prefix)

    store = Down()
    house = House(store=store)
    assert house.send("GET", "/health/ready").status == 200
    house.clock.now += 5.0
    store.down = True
    assert house.send("GET", "/health/ready").status == 503
    store.down = False
    house.publish()
    house.clock.now += 5.0
    assert house.send("GET", "/health/ready").status == 200
    house.clock.now += 5.0
    store.down = True
    assert house.send("GET", "/health/ready").status == 200


def test_metrics_have_the_promised_names_on_both_paths(house: House) -> None:
    token = house.token("metrics")
    house.send("POST", "/predict/support", {"texts": [TEXT, "one two"]}, token=house.token())
    house.send("POST", "/predict/support", {"text": 1}, token=house.token())
    bodies = [house.send("GET", path, token=token) for path in ("/metrics", "/metrics/prometheus")]
    for response in bodies:
        assert header(response, "content-type") == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name: family for family in text_string_to_metric_families(response.body.decode())}
        app = "request_count request_latency_seconds preprocessing_latency_seconds inference_latency_seconds"
        more = "input_length_words errors_by_endpoint active_requests uptime_seconds"
        model = "prediction_count confidence accuracy loaded"
        assert families.keys() >= {f"app_{name}" for name in (*app.split(), *more.split())}
        assert families.keys() >= {f"model_{name}" for name in model.split()}
        words = {sample.name: sample.value for sample in families["app_input_length_words"].samples}
        assert (words["app_input_length_words_sum"], words["app_input_length_words_count"]) == (6, 2)
    assert house.metric("app_request_count", ("POST", "/predict/{model}", "200")) == 1
    assert house.metric("app_errors_by_endpoint", ("/predict/{model}", "invalid_input")) == 1
    assert house.metric("model_accuracy", ("support",)) == 0.75


def test_metrics_kept_elsewhere_are_not_found(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.telemetry, "exposition", lambda: None)
    assert house.send("GET", "/metrics", token=house.token("metrics")).status == 404
