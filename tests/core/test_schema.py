"""Rows to a batch: every bad cell is reported at once, by row and field, never by value."""

from __future__ import annotations

import math

import pytest

from core.errors import InvalidInput
from core.schema import MAX_PROBLEMS, MAX_TEXT_CHARS, Batch, Column, Schema, schema_from_dicts

SCHEMA = Schema(
    (
        Column("text", "text"),
        Column("price", "number"),
        Column("brand", "category", values=("a", "b")),
        Column("photo", "image"),
        Column("v", "vector", width=2),
    )
)
GOOD = {"text": "hello", "price": 3, "brand": "a", "photo": "aGk=", "v": [1, 2.5]}


def test_a_good_row_becomes_typed_columns() -> None:
    batch = SCHEMA.batch([GOOD, {**GOOD, "price": None, "brand": True}])
    assert batch.columns["text"] == ["hello", "hello"]
    assert batch.columns["price"][0] == 3.0
    assert math.isnan(batch.columns["price"][1])
    assert batch.columns["brand"] == ["a", "true"]
    assert batch.columns["photo"][0] == b"hi"
    assert batch.columns["v"][0] == [1.0, 2.5]


def test_a_boolean_is_spelt_as_the_training_data_spelt_it() -> None:
    for values, expected in ((("False", "True"), "True"), (("false", "true"), "true"), ((), "true")):
        schema = Schema((Column("flag", "category", values=values),))
        assert schema.batch([{"flag": True}]).columns["flag"] == [expected]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("text", 5, "string"),
        ("text", None, "string"),
        ("text", "x" * (MAX_TEXT_CHARS + 1), "characters"),
        ("price", "3", "number"),
        ("price", True, "number"),
        ("price", float("inf"), "finite"),
        ("price", 10**400, "64-bit"),
        ("brand", ["a"], "string"),
        ("photo", 5, "base64"),
        ("photo", "!!!!QUJD", "base64"),
        ("photo", "é", "base64"),
        ("v", [1], "2 numbers"),
        ("v", "12", "2 numbers"),
        ("v", [1, None], "null"),
        ("v", [1, "2"], "number"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_field(field: str, value: object, rule: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.batch([GOOD, {**GOOD, field: value}])
    (problem,) = caught.value.problems
    assert (problem.row, problem.field) == (1, field)
    assert rule in problem.message
    assert str(value)[:20] not in problem.message or len(str(value)) < 3


def test_a_missing_and_an_unknown_field_are_both_named() -> None:
    row = {key: value for key, value in GOOD.items() if key != "text"} | {"colour": 1}
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.batch([row])
    assert {(p.field, p.message) for p in caught.value.problems} == {
        ("text", "is missing"),
        ("colour", "is not a column of this model"),
    }
    assert caught.value.problems[0].as_dict()["row"] == 0


def test_only_the_first_problems_are_listed_but_all_are_counted() -> None:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.batch([{**GOOD, "price": "x"}] * 50)
    assert len(caught.value.problems) == MAX_PROBLEMS
    assert caught.value.fields["total"] == 50


def test_a_schema_survives_its_manifest_form() -> None:
    assert schema_from_dicts(SCHEMA.as_dicts()) == SCHEMA


def test_rows_can_be_taken_from_a_batch() -> None:
    batch = Batch(3, {"a": [1, 2, 3]})
    assert batch.take([2, 0]) == Batch(2, {"a": [3, 1]})
    assert batch.row(1) == {"a": 2}
