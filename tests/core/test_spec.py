"""The model spec: TOML and dict forms, and every problem named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.rules import OPTIONS
from core.schema import KINDS, Column
from core.spec import GateSpec, ModelSpec, SearchSpec, from_dict, load_spec, parse_toml

FULL = """
name = "support-messages"
task = "classification"
label = "team"
balance = "class_weight"

[columns.text]
kind = "text"
ngrams = [1, 2]
sublinear_tf = true

[columns."unit price"]
kind = "number"
scale = "robust"

[columns.brand]
kind = "category"
values = ["acme", "umbrella"]

[columns.photo]
kind = "image"
size = [32, 32]
hog = true

[columns.embedding]
kind = "vector"
width = 300

[estimator]
kind = "linear"
algorithm = "logistic_regression"
params = { C = 2.0 }

[search]
method = "randomized"
folds = 3
iterations = 4
scoring = "f1_macro"
[search.params]
C = [1.0, 10.0]
"text.ngrams" = [[1, 1], [1, 2]]

[data]
extra = "ignore"
missing = ["NA"]
quarantine = 0.01

[labels]
rare = "drop"
min_rows = 5

[split]
holdout = 0.1
seed = 7

[gate]
metric = "f1_macro"
max_drop = 0.01
minimum = { accuracy = 0.8 }

[retrain]
data = "upload"
min_rows = 50
"""
SMALL: dict[str, Any] = {
    "name": "iris",
    "task": "classification",
    "label": "label",
    "columns": {"a": {"kind": "number"}},
    "estimator": {"kind": "linear", "algorithm": "logistic_regression"},
}


def small(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **changes}


def test_a_full_spec_is_read_with_its_columns_in_order() -> None:
    spec = parse_toml(FULL)
    assert [column.name for column in spec.columns] == ["text", "unit price", "brand", "photo", "embedding"]
    assert spec.columns[0] == Column("text", "text", {"ngrams": [1, 2], "sublinear_tf": True})
    assert spec.columns[2].values == ("acme", "umbrella")
    assert spec.columns[4].width == 300
    assert spec.search == SearchSpec("randomized", spec.search.params, 3, 4, "f1_macro") if spec.search else False
    assert spec.gate == GateSpec("f1_macro", 0.01, {"accuracy": 0.8})
    assert spec.schema().columns == spec.columns
    assert (spec.data.extra, spec.data.missing, spec.labels.min_rows) == ("ignore", ("NA",), 5)
    assert spec.metric() == "f1_macro"


def test_the_dict_form_survives_json_with_sorted_keys_and_keeps_the_digest() -> None:
    spec = parse_toml(FULL)
    again = from_dict(json.loads(json.dumps(spec.to_dict(), sort_keys=True)))
    assert again == spec
    assert again.digest() == spec.digest()


def test_defaults_fill_what_the_spec_leaves_out() -> None:
    spec = from_dict(SMALL)
    assert spec.search is None
    assert (spec.balance, spec.split.holdout, spec.split.seed, spec.retrain.data) == ("none", 0.2, 0, "union")
    assert (spec.data.extra, spec.labels.min_rows, spec.labels.rare) == ("error", 2, "error")
    assert spec.metric() == "accuracy"
    assert from_dict(spec.to_dict()) == spec


def test_a_changed_option_changes_the_digest() -> None:
    assert from_dict(small(balance="smote")).digest() != from_dict(SMALL).digest()


def test_regression_is_judged_by_r2() -> None:
    estimator = {"kind": "linear", "algorithm": "ridge"}
    assert from_dict(small(task="regression", estimator=estimator)).metric() == "r2"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "Iris Model"}, "name must be"),
        ({"task": "clustering"}, "task must be"),
        ({"balance": "magic"}, "balance must be"),
        ({"colums": {}}, "colums is not a key"),
        ({"columns": {}}, "columns must be"),
        ({"columns": "a"}, "columns must be"),
        ({"columns": [{"kind": "number"}]}, "columns.None must be named"),
        ({"columns": [{"name": "a", "kind": "text"}] * 2}, "columns.a stands there twice"),
        ({"columns": {"a": {"kind": "date"}}}, "columns.a.kind must be one of text, number"),
        ({"columns": {"a": 3}}, "columns.a.kind"),
        ({"columns": {"label": {"kind": "number"}}}, "columns.label is also the label"),
        ({"columns": {"a": {"kind": "number", "ngrams": [1, 2]}}}, "columns.a.ngrams is not one of"),
        ({"columns": {"a": {"kind": "text", "ngrams": [2, 1]}}}, "columns.a.ngrams must be"),
        ({"columns": {"a": {"kind": "text", "ngrams": [0, 1]}}}, "columns.a.ngrams must be"),
        ({"columns": {"a": {"kind": "text", "min_df": 0}}}, "columns.a.min_df must be"),
        ({"columns": {"a": {"kind": "text", "max_df": 1.5}}}, "columns.a.max_df must be"),
        ({"columns": {"a": {"kind": "text", "token_pattern": "("}}}, "columns.a.token_pattern must be"),
        ({"columns": {"a": {"kind": "text", "lowercase": 1}}}, "columns.a.lowercase must be true or false"),
        ({"columns": {"a": {"kind": "vector"}}}, "columns.a.width is missing"),
        ({"columns": {"a": {"kind": "vector", "width": True}}}, "columns.a.width must be"),
        ({"columns": {"a": {"kind": "image", "size": [28]}}}, "columns.a.size must be"),
        ({"columns": {"a": {"kind": "category", "values": "x"}}}, "columns.a.values must be"),
        ({"estimator": {"kind": "linear"}}, "estimator.algorithm is missing"),
        ({"estimator": None}, "estimator.kind is missing"),
        ({"estimator": "linear"}, "estimator must be a table"),
        ({"estimator": {"kind": "linear", "algorithm": "magic"}}, "estimator.algorithm must be one of"),
        ({"estimator": {"kind": "linear", "algorithm": "ridge"}}, "estimator.algorithm cannot do classification"),
        ({"estimator": {**SMALL["estimator"], "params": {"C": {"x": 1}}}}, "estimator.params must be"),
        ({"estimator": {**SMALL["estimator"], "params": {"C": float("nan")}}}, "estimator.params must be"),
        ({"search": {"method": "grid"}}, "search.params is missing"),
        ({"search": {"params": {"C": []}}}, "search.params must be"),
        ({"search": {"params": {"b.scale": ["none"]}}}, "search.params.b.scale names no option"),
        ({"search": {"params": {"a.ngrams": [[1, 1]]}}}, "search.params.a.ngrams names no option"),
        ({"search": {"params": {"a.scale": ["none", "big"]}}}, "search.params.a.scale must be"),
        ({"search": {"params": {"C": [1]}, "folds": 1}}, "search.folds must be"),
        ({"split": {"holdout": 0}}, "split.holdout must be"),
        ({"split": {"seed": -1}}, "split.seed must be"),
        ({"gate": {"minimum": {"accuracy": "high"}}}, "gate.minimum must be"),
        ({"data": {"quarantine": float("inf")}}, "data.quarantine must be"),
        ({"data": {"missing": [1]}}, "data.missing must be"),
        ({"labels": {"rare": "keep"}}, "labels.rare must be"),
        ({"retrain": {"data": "all"}}, "retrain.data must be"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        from_dict(small(**change))


def test_balancing_is_refused_for_regression() -> None:
    estimator = {"kind": "linear", "algorithm": "ridge"}
    with pytest.raises(ConfigError, match="balance must be"):
        from_dict(small(task="regression", estimator=estimator, balance="smote"))


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(
            {"name": "", "columns": {"a": {"kind": "number", "scale": "big"}}, "estimator": {"kind": "magic"}}
        )
    assert {problem.field for problem in caught.value.fields["problems"]} == {
        "name", "task", "label", "columns.a.scale", "estimator.kind", "estimator.algorithm",
    }  # fmt: skip


def test_every_column_kind_has_options() -> None:
    assert set(OPTIONS) == set(KINDS)


def test_a_spec_file_is_read_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(b"\xef\xbb\xbf" + FULL.encode())
    assert isinstance(load_spec(str(path)), ModelSpec)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"name = ", "not TOML"), (b"# \xff", "not UTF-8"), (b"#" * (1 << 20) + b"#", "over")],
)
def test_a_file_that_is_no_spec_says_why(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=reason):
        load_spec(str(path))


def test_an_absent_spec_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the spec"):
        load_spec(str(tmp_path / "no.toml"))
