"""The native dialect: every form of body means the same rows, and two forms at once mean nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from csv import field_size_limit
from typing import Any

import pytest

from core.dialects.native import FORMS, MAX_AXES, decode, encode
from core.errors import CoreError, InvalidInput, MalformedBody, TooLarge, UnsupportedMedia
from core.model import Predictions
from core.schema import Column, Schema

IRIS = Schema((Column("length", "number"), Column("width", "number"), Column("town", "category")))
TEXT = Schema((Column("text", "text"),))
MESSAGE = Schema((Column("message", "text"),))
SHOP = Schema((Column("title", "text"), Column("photo", "image"), Column("price", "number")))
VECTOR = Schema((Column("v", "vector", width=3),))
BOTH = Schema((Column("v", "vector", width=2), Column("n", "number")))
TWO_TEXTS = Schema((Column("title", "text"), Column("body", "text")))
ROW = {"length": 5.1, "width": 3, "town": "a"}
ROWS = [ROW, {"length": 4, "width": None, "town": "b"}]


def rows(body: Any, schema: Schema, limit: int = 10) -> list[dict[str, Any]]:
    data = json.dumps(body).encode()
    return [dict(row) for row in decode("application/json", data).rows(schema, limit)]


def tensor(name: str, data: Any, shape: Sequence[int], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data, **more}


LISTS = [[5.1, 3, "a"], [4, None, "b"]]
COLUMNS = {"length": [5.1, 4], "width": [3, None], "town": ["a", "b"]}
FORMS_OF_TWO_ROWS: dict[str, dict[str, Any]] = {
    "rows": {"rows": ROWS},
    "rows as lists": {"rows": LISTS},
    "rows of features": {"rows": [{"features": ROW}, {"features": LISTS[1]}]},
    "instances": {"instances": ROWS},
    "instances as lists": {"instances": LISTS},
    "instances mixed": {"instances": [ROW, LISTS[1]]},
    "data": {"data": LISTS},
    "features": {"features": LISTS},
    "records": {"dataframe_records": ROWS},
    "split": {"dataframe_split": {"columns": ["town", "width", "length"], "index": [0, 1],
                                  "data": [["a", 3, 5.1], ["b", None, 4]]}},
    "split without columns": {"dataframe_split": {"data": LISTS}},
    "input_data": {"input_data": {"columns": ["length", "width", "town"], "data": LISTS}, "params": {}},
    "input_data as lists": {"input_data": LISTS},
    "input_data as columns": {"input_data": COLUMNS},
    "inputs as columns": {"inputs": COLUMNS},
    "inputs as lists": {"inputs": LISTS},
    "inputs as rows": {"inputs": ROWS},
    "tensors": {"id": "7", "inputs": [tensor("length", [5.1, 4], [2]), tensor("width", [[3], [None]], [2, 1]),
                                      tensor("town", ["a", "b"], [2], "BYTES", parameters={"content_type": "s"})]},
    "one tensor": {"inputs": [tensor("input-0", [5.1, 3, "a", 4, None, "b"], [2, 3])]},
    "one nested tensor": {"inputs": [tensor("input-0", LISTS, [2, 3])]},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS_OF_TWO_ROWS)
def test_every_form_of_body_means_the_same_rows(name: str) -> None:
    assert rows(FORMS_OF_TWO_ROWS[name], IRIS) == ROWS


@pytest.mark.parametrize(
    ("body", "schema", "expected"),
    [
        ({"text": "a"}, TEXT, [{"text": "a"}]),
        ({"text": "a"}, MESSAGE, [{"message": "a"}]),
        ({"texts": ["a", "b"]}, MESSAGE, [{"message": "a"}, {"message": "b"}]),
        ({"instances": ["a", {"text": "b"}, ["c"]]}, TEXT, [{"text": "a"}, {"text": "b"}, {"text": "c"}]),
        ({"inputs": "a"}, MESSAGE, [{"message": "a"}]),
        ({"data": ["a"]}, TEXT, [{"text": "a"}]),
        ({"features": ROW}, IRIS, [ROW]),
        ({"features": [5.1, 3, "a"]}, IRIS, [ROW]),
        ({"inputs": ROW}, IRIS, [ROW]),
        ({"image": "QUJD"}, SHOP, [{"photo": "QUJD"}]),
        ({"images": ["QUJD"]}, SHOP, [{"photo": "QUJD"}]),
        ({"text": "t", "image": "i", "features": {"price": 2}}, SHOP, [{"price": 2, "title": "t", "photo": "i"}]),
        ({"texts": ["a", "b"], "images": ["x", "y"]}, SHOP,
         [{"title": "a", "photo": "x"}, {"title": "b", "photo": "y"}]),
        ({"instances": [[1, 2, 3], [[4, 5, 6]], {"v": [7, 8, 9]}]}, VECTOR,
         [{"v": [1, 2, 3]}, {"v": [4, 5, 6]}, {"v": [7, 8, 9]}]),
        ({"inputs": [tensor("v", [1, 2, 3, 4], [2, 2]), tensor("n", [5, 6], [2, 1])]}, BOTH,
         [{"v": [1, 2], "n": 5}, {"v": [3, 4], "n": 6}]),
        ({"inputs": {"v": [[1, 2], [3, 4]], "n": [5, 6]}}, BOTH, [{"v": [1, 2], "n": 5}, {"v": [3, 4], "n": 6}]),
        ({"inputs": [tensor("length", 5, [1])]}, IRIS, [{"length": 5}]),
        ({"inputs": [{"name": "x", "odd": 1}]}, IRIS, [{"name": "x", "odd": 1}]),
        ({"instances": [{"features": 1}]}, Schema((Column("features", "number"),)), [{"features": 1}]),
    ],
)  # fmt: skip
def test_short_forms_find_the_column_that_they_mean(body: Any, schema: Schema, expected: Any) -> None:
    assert rows(body, schema) == expected


def test_model_and_version_are_read_beside_the_rows() -> None:
    asked = decode("application/json", b'{"model": "iris", "version": "staging", "text": "a"}')
    assert (asked.model, asked.version) == ("iris", "staging")
    assert decode("application/json", b'{"text": "a"}')[:2] == (None, None)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([{"text": "a"}], "object"),
        ("text", "object"),
        ({}, "one of"),
        ({"model": "m"}, "one of"),
        ({"sentence": "a"}, "'sentence'"),
        ({"text": "a", "verison": "1"}, "'verison'"),
        ({"text": "a", "model": 7}, "model"),
        ({"text": "a", "version": ["v"]}, "version"),
        ({"dataframe_split": {}}, "split"),
        ({"dataframe_split": [1]}, "split"),
        ({"dataframe_split": {"data": [], "rows": []}}, "split"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "different"),
        ({"dataframe_split": {"columns": "ab", "data": [[1, 2]]}}, "different"),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, "different"),
        ({"inputs": [tensor("a", [1], [1]), {"name": "b"}]}, "each of inputs"),
        ({"inputs": [tensor("a", [1], [1]), 5]}, "each of inputs"),
        ({"inputs": [tensor("a", [1], [1]), tensor("a", [1], [1])]}, "same name"),
        ({"inputs": [tensor("a", [1], []) ]}, "shape"),
        ({"inputs": [tensor("a", [1], [1] * (MAX_AXES + 1))]}, "shape"),
        ({"inputs": [tensor("a", [1], [1, 10**40])]}, "shape"),
        ({"inputs": [{**tensor("a", [1], [1]), "shape": [True]}]}, "shape"),
        ({"inputs": [{**tensor("a", [1], [1]), "shape": "1"}]}, "shape"),
        ({"text": "a", "features": {"title": "b"}}, "twice"),
    ],
)  # fmt: skip
def test_a_body_of_another_form_is_malformed_naming_why(body: Any, told: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        rows(body, SHOP)
    assert told in caught.value.message


@pytest.mark.parametrize("one", FORMS)
def test_two_forms_at_once_are_malformed_naming_both(one: str) -> None:
    for other in FORMS:
        pair = {one, other}
        if one == other or pair <= {"text", "image", "features"} or pair == {"texts", "images"}:
            continue
        with pytest.raises(MalformedBody) as caught:
            rows({one: [1], other: [1]}, SHOP)
        assert one in caught.value.message
        assert other in caught.value.message


def test_columns_beside_each_other_are_refused_telling_where_they_go() -> None:
    with pytest.raises(MalformedBody, match="unknown key 'width': a row by column names goes under features"):
        rows({"text": "a", "width": 3}, IRIS)
    assert rows({"features": ROW}, IRIS) == [ROW]


def test_a_list_of_features_does_not_go_with_a_text() -> None:
    with pytest.raises(MalformedBody, match="twice"):
        rows({"text": "a", "features": [1]}, SHOP)


@pytest.mark.parametrize(
    ("body", "schema", "row", "field"),
    [
        ({"rows": []}, IRIS, None, None),
        ({"texts": []}, TEXT, None, None),
        ({"inputs": {}}, IRIS, None, None),
        ({"inputs": {"length": []}}, IRIS, None, None),
        ({"inputs": [tensor("length", [], [0])]}, IRIS, None, None),
        ({"rows": "abc"}, IRIS, None, "rows"),
        ({"texts": "abc"}, TEXT, None, "texts"),
        ({"texts": "abc", "images": []}, SHOP, None, "texts"),
        ({"rows": [ROW, [1, 2]]}, IRIS, 1, None),
        ({"rows": [ROW, 5]}, IRIS, 1, None),
        ({"rows": [[1, 2, 3, 4]]}, IRIS, 0, None),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1]]}}, IRIS, 0, None),
        ({"inputs": {"length": [1, 2], "width": [1]}}, IRIS, None, None),
        ({"inputs": {"length": [1, 2], "width": 1}}, IRIS, None, None),
        ({"inputs": [tensor("length", [1, 2, 3], [2])]}, IRIS, None, "length"),
        ({"inputs": [tensor("length", [1, 2], [2, 2])]}, IRIS, None, "length"),
        ({"inputs": [tensor("length", [], [2, 0])]}, IRIS, None, "length"),
        ({"inputs": [tensor("length", [], [2, 0, 3])]}, IRIS, None, "length"),
        ({"inputs": [tensor("length", [1, 2], [2]), tensor("width", [1], [1])]}, IRIS, None, None),
        ({"text": "a"}, IRIS, None, "text"),
        ({"text": "a"}, TWO_TEXTS, None, "text"),
        ({"image": "a"}, TEXT, None, "image"),
    ],
)
def test_rows_that_do_not_fit_are_invalid_naming_row_or_field(
    body: Any, schema: Schema, row: int | None, field: str | None
) -> None:
    with pytest.raises(InvalidInput) as caught:
        rows(body, schema)
    assert [(problem.row, problem.field) for problem in caught.value.problems] == [(row, field)]


@pytest.mark.parametrize(
    "body",
    [{"rows": [ROW] * 11}, {"texts": ["a"] * 11}, {"inputs": {"length": [1] * 11}},
     {"inputs": [tensor("length", [1] * 11, [11])]}, {"dataframe_split": {"data": [[1]] * 11}}],
)  # fmt: skip
def test_one_row_over_the_limit_is_too_large_and_the_limit_itself_is_not(body: Any) -> None:
    with pytest.raises(TooLarge) as caught:
        rows(body, MESSAGE if "texts" in body else IRIS, 10)
    assert caught.value.fields["limit"] == 10
    assert len(rows({"rows": [ROW] * 10}, IRIS, 10)) == 10


def test_only_the_first_bad_rows_are_told_but_all_are_counted() -> None:
    with pytest.raises(InvalidInput) as caught:
        rows({"rows": [[1]] * 50}, IRIS, 100)
    assert len(caught.value.problems) == 10
    assert caught.value.fields["total"] == 50


# -- other media types


def csv(text: str | bytes, schema: Schema = IRIS, limit: int = 10) -> list[dict[str, Any]]:
    data = text.encode() if isinstance(text, str) else text
    return [dict(row) for row in decode("text/csv", data).rows(schema, limit)]


def test_csv_cells_are_read_as_their_columns_kind() -> None:
    expected = [{"town": "a", "length": 5.1, "width": None}, {"town": None, "length": -0.5, "width": "1_0"}]
    assert csv('town,length,width\na,5.1,\n,"-.5",1_0\n\n') == expected
    assert csv('\ufeffv,n\r\n"[1,2]",3\r\n', BOTH) == [{"v": [1, 2], "n": 3.0}]
    assert csv('title,other\n"a ""b""\nc",x\n', SHOP) == [{"title": 'a "b"\nc', "other": "x"}]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", InvalidInput),
        ("town,length\n", InvalidInput),
        ("town,length\na\n", InvalidInput),
        ("town,length\na,1,2\n", InvalidInput),
        ("town,town\na,b\n", MalformedBody),
        ('town\n"a\n', MalformedBody),
        ('town\n"a"b\n', MalformedBody),
        ("town\n" + "x" * 200_000, MalformedBody),
        (b"town\n\xff\n", MalformedBody),
        ("town\na\0b\n", MalformedBody),
        ("town\n" + "a\n" * 11, TooLarge),
    ],
)
@pytest.mark.parametrize("field_limit", [131_072, 1 << 30])  # what else runs in this process may have set it
def test_csv_that_is_not_whole_and_rectangular_is_refused(
    text: str | bytes, kind: type[CoreError], field_limit: int
) -> None:
    before = field_size_limit(field_limit)
    try:
        with pytest.raises(kind):
            csv(text)
    finally:
        field_size_limit(before)


def test_a_vector_cell_is_strict_json() -> None:
    with pytest.raises(MalformedBody):
        csv('v\n"[NaN]"\n', VECTOR)


def test_an_image_body_is_the_one_image_column() -> None:
    assert decode("image/png", b"\x89PNG").rows(SHOP, 10) == [{"photo": b"\x89PNG"}]
    with pytest.raises(InvalidInput):
        decode("image/jpeg", b"x").rows(TEXT, 10)


def test_other_media_types_are_not_supported() -> None:
    for media in ("text/plain", "application/xml", "image/gif", "multipart/form-data"):
        with pytest.raises(UnsupportedMedia):
            decode(media, b"{}")


# -- answers


def test_answers_hold_labels_probabilities_and_values() -> None:
    found = Predictions(["b", "a"], [[0.25, 0.75], [0.5, 0.5]], None)
    body = json.loads(encode("m", "v-1", "id", ("a", "b"), found))
    assert body == {
        "model": "m",
        "version": "v-1",
        "request_id": "id",
        "predictions": [
            {"label": "b", "probability": 0.75, "probabilities": {"a": 0.25, "b": 0.75}},
            {"label": "a", "probability": 0.5, "probabilities": {"a": 0.5, "b": 0.5}},
        ],
    }
    assert json.loads(encode("m", "v", "i", ("a",), Predictions(["a"], None, None)))["predictions"] == [
        {"label": "a"}
    ]
    assert json.loads(encode("m", "v", "i", (), Predictions(None, None, [1.5])))["predictions"] == [{"value": 1.5}]


def test_numbers_that_json_does_not_know_are_answered_as_null() -> None:
    values = Predictions(None, None, [float("nan"), float("inf"), 2.0])
    assert json.loads(encode("m", "v", "i", (), values))["predictions"] == [
        {"value": None}, {"value": None}, {"value": 2.0},
    ]  # fmt: skip
    found = Predictions(["a"], [[float("nan")]], None)
    assert b"NaN" not in encode("m", "v", "i", ("a",), found)
