"""The control endpoints, over a real registry in memory."""

from __future__ import annotations

from typing import Any

import pytest

from core.web import Response
from tests.core.house import House, body_of, text_model, version_id

ONE, TWO = version_id(1), version_id(2)


@pytest.fixture
def house() -> House:
    """A house with version ONE, then TWO, in production."""
    made = House()
    made.publish()
    made.clock.now += 10.0
    made.publish(data=text_model(4))
    return made


def admin(house: House, method: str, path: str, body: Any = None, **options: Any) -> Response:
    return house.send(method, path, body, token=options.pop("token", None) or house.token("admin"), **options)


def keyed(key: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": key}}


def refusal(response: Response) -> tuple[int, str]:
    return response.status, body_of(response)["code"]


# -- versions and aliases


def test_versions_are_listed_newest_first_with_their_aliases(house: House) -> None:
    listed = body_of(admin(house, "GET", "/models/support/versions"))
    assert [(v["version"], v["aliases"]) for v in listed["versions"]] == [
        (TWO, ["production"]),
        (ONE, ["previous"]),
    ]
    assert listed["versions"][0]["metrics"] == {"accuracy": 0.75}
    for ref in (TWO, "production"):
        assert body_of(admin(house, "GET", f"/models/support/versions/{ref}")) == listed["versions"][0]
    for path in (
        "/models/none/versions",
        "/models/support/versions/staging",
        "/models/support/versions/v-ffffffffffff",
    ):
        assert refusal(admin(house, "GET", path)) == (404, "not_found")


def test_promoting_moves_an_alias_and_the_answer_of_a_prediction(house: House) -> None:
    moved = body_of(admin(house, "POST", "/models/support/promote", {"version": ONE, "reason": "better"}))
    assert moved == {
        "model": "support", "alias": "production", "rev": 3, "splits": [{"version": ONE, "weight": 100}],
        "since": house.clock.now,
    }  # fmt: skip
    assert body_of(admin(house, "POST", "/predict/support", {"text": "a"}))["version"] == ONE
    newest = body_of(admin(house, "GET", "/models/support/history"))["entries"][0]
    assert (newest["op"], newest["role"], newest["reason"]) == ("alias", "admin", "better")


def test_an_alias_may_be_copied_created_and_guarded_by_its_revision(house: House) -> None:
    made = body_of(admin(house, "PUT", "/models/support/aliases/staging", {"version": "production"}))
    assert (made["alias"], made["rev"], made["splits"][0]["version"]) == ("staging", 1, TWO)
    stale = admin(house, "POST", "/models/support/aliases/staging", {"version": ONE, "expect_rev": 0})
    assert refusal(stale) == (409, "conflict")
    moved = admin(house, "POST", "/models/support/aliases/staging", {"version": ONE, "expect_rev": 1})
    assert body_of(moved)["rev"] == 2
    other = admin(house, "POST", "/models/support/promote", {"version": ONE, "alias": "canary"})
    assert body_of(other)["alias"] == "canary"


def test_shares_of_an_alias_are_copied_with_their_weights(house: House) -> None:
    house.registry.move("support", "canary", [(ONE, 90), (TWO, 10)], op_id="split")
    moved = body_of(admin(house, "POST", "/models/support/promote", {"version": "canary"}))
    assert moved["splits"] == [{"version": ONE, "weight": 90}, {"version": TWO, "weight": 10}]


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 422, "invalid_input", None),
        ({"version": 5}, 422, "invalid_input", "version"),
        ({"version": ONE, "alias": "../x"}, 422, "invalid_input", "alias"),
        ({"version": ONE, "expect_rev": -1}, 422, "invalid_input", "expect_rev"),
        ({"version": ONE, "expect_rev": True}, 422, "invalid_input", "expect_rev"),
        ({"version": ONE, "reason": "x" * 257}, 422, "invalid_input", "reason"),
        ({"version": ONE, "wait": 1}, 422, "invalid_input", None),
        ({"version": "../x"}, 400, "invalid_name", None),
        ({"version": "v-ffffffffffff"}, 404, "not_found", None),
        ({"version": "nothing"}, 404, "not_found", None),
        ([ONE], 400, "malformed_body", None),
        (b"{", 400, "malformed_body", None),
    ],
)
def test_a_bad_move_is_refused_and_nothing_moves(
    house: House, body: Any, status: int, code: str, field: str | None
) -> None:
    head = house.registry.state("support").head
    response = admin(house, "POST", "/models/support/promote", body, headers={"content-type": "application/json"})
    assert refusal(response) == (status, code)
    if status == 422:
        assert [item.get("field") for item in body_of(response)["errors"]] == [field]
    assert house.registry.state("support").head == head


def test_a_body_that_is_not_json_is_not_supported(house: House) -> None:
    for kind in ("text/plain", "text/csv"):
        response = admin(house, "POST", "/models/support/promote", b"x", headers={"content-type": kind})
        assert refusal(response) == (415, "unsupported_media")


def test_rolling_back_needs_no_body_and_goes_back_and_forth(house: House) -> None:
    assert body_of(admin(house, "POST", "/models/support/rollback"))["splits"][0]["version"] == ONE
    house.clock.now += 5.0
    assert body_of(admin(house, "POST", "/predict/support", {"text": "a"}))["version"] == ONE
    assert body_of(admin(house, "POST", "/models/support/rollback", {}))["splits"][0]["version"] == TWO
    back = admin(house, "POST", "/models/support/rollback", {"to": ONE, "reason": "complaints"})
    assert body_of(back)["splits"][0]["version"] == ONE
    assert refusal(admin(house, "POST", "/models/support/rollback", {"to": "v-ffffffffffff"})) == (
        404,
        "not_found",
    )
    assert refusal(admin(house, "POST", "/models/support/rollback", {"to": "production"})) == (
        422,
        "invalid_input",
    )


def test_a_model_that_is_not_there_cannot_be_rolled_back(house: House) -> None:
    found = admin(house, "POST", "/models/nope/rollback")
    assert (*refusal(found), body_of(found)["detail"]) == (404, "not_found", "no such model")


def test_a_retired_version_is_refused_by_every_alias(house: House) -> None:
    three = house.publish(data=text_model(7), alias=None)
    held = admin(house, "POST", f"/models/support/versions/{TWO}/retire")
    assert refusal(held) == (409, "conflict")
    retired = body_of(admin(house, "POST", f"/models/support/versions/{three}/retire"))
    assert (retired["version"], retired["retired"]) == (three, house.clock.now)
    assert refusal(admin(house, "POST", "/models/support/promote", {"version": three})) == (409, "conflict")
    assert refusal(admin(house, "POST", "/predict/support", {"text": "a", "version": three})) == (404, "not_found")
    assert body_of(admin(house, "GET", f"/models/support/versions/{three}"))["retired"] == house.clock.now


def test_history_tells_who_did_what_and_where_aliases_pointed_at_a_time(house: House) -> None:
    token = house.token("admin", label="ada")
    start = house.clock.now
    house.clock.now += 100.0
    admin(house, "POST", "/models/support/rollback", token=token)
    now = body_of(admin(house, "GET", "/models/support/history"))
    assert (now["entries"][0]["actor"], now["entries"][0]["rollback"]) == ("ada", True)
    assert now["aliases"]["production"]["splits"] == [{"version": ONE, "weight": 100}]
    for at in (str(start + 50), "2023-11-14T22:14:20", "2023-11-14T23:14:20%2B01:00", "2023-11-14T22:14:20Z"):
        then = body_of(admin(house, "GET", "/models/support/history", query=f"at={at}"))
        assert then["aliases"]["production"]["splits"] == [{"version": TWO, "weight": 100}]
        assert len(then["entries"]) == len(now["entries"]) - 1
    assert len(body_of(admin(house, "GET", "/models/support/history", query="limit=2"))["entries"]) == 2
    assert refusal(admin(house, "GET", "/models/none/history")) == (404, "not_found")


@pytest.mark.parametrize(
    "query", ["at=yesterday", "at=", "at=9e999", "at=99999-01-01", "limit=0", "limit=1001", "limit=-1", "limit=x"]
)
def test_a_time_or_limit_that_is_not_one_is_malformed(house: House, query: str) -> None:
    assert refusal(admin(house, "GET", "/models/support/history", query=query)) == (400, "malformed_body")


# -- idempotency


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/models/support/promote", {"version": ONE}, {"version": TWO}),
        ("/models/support/promote", {"version": ONE}, {"version": ONE, "alias": "staging"}),
        ("/models/support/rollback", {"to": ONE}, {"to": TWO}),
        ("/models/support/aliases/staging", {"version": ONE}, {"version": "production"}),
        ("/train", {"model": "support"}, {"model": "support", "reason": "again"}),
        ("/retrain/support", {"rows": [{"text": "a"}]}, {"rows": [{"text": "b"}]}),
    ],
)
def test_a_key_makes_one_effect_and_another_body_is_refused(
    house: House, path: str, body: Any, other: Any
) -> None:
    token = house.token("admin")
    before = len(list(house.store.list("")))
    first = admin(house, "POST", path, body, token=token, **keyed("k-1"))
    assert first.status in (200, 202)
    after = {entry.key: entry.token for entry in house.store.list("")}
    again = admin(house, "POST", path, body, token=token, **keyed("k-1"))
    assert (again.status, again.body) == (first.status, first.body)
    assert refusal(admin(house, "POST", path, other, token=token, **keyed("k-1"))) == (422, "idempotency_mismatch")
    assert {entry.key: entry.token for entry in house.store.list("")} == after
    assert len(after) > before
    assert admin(house, "POST", path, other, token=token, **keyed("k-2")).status in (200, 202)
    assert admin(house, "POST", path, body, token=house.token("admin", label="b"), **keyed("k-1")).status in (
        200,
        202,
    )


def test_retiring_with_a_key_may_be_repeated(house: House) -> None:
    three = house.publish(data=text_model(7), alias=None)
    token = house.token("admin")
    path = f"/models/support/versions/{three}/retire"
    answers = [admin(house, "POST", path, token=token, **keyed("k")).body for _ in range(2)]
    assert answers[0] == answers[1]
    assert refusal(admin(house, "POST", path, token=token)) == (409, "conflict")


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "é"])
def test_a_key_that_is_not_one_is_malformed(house: House, key: str) -> None:
    response = admin(house, "POST", "/models/support/rollback", **keyed(key))
    assert refusal(response) == (400, "malformed_body")
