"""What data must be before anything is learnt: rows, classes, leaks, duplicates, overlap."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from core.dataset.checks import check_training, constant_columns, count_duplicates
from core.dataset.leakage import leaking_columns
from core.dataset.reading import read_table
from core.dataset.table import Dataset
from core.errors import DataRejected, Problem
from core.inspection import infer
from core.schema import Batch
from core.spec import ModelSpec
from tests.core.datafiles import CATEGORY, NUMBER, TEXT, make_spec, real_files

SPEC = make_spec({"x": NUMBER, "c": CATEGORY})
REGRESSION = make_spec({"x": NUMBER, "c": CATEGORY}, task="regression")


def dataset(labels: Sequence[Any], spec: ModelSpec = SPEC, **columns: Any) -> Dataset:
    """Return rows with these labels; columns that are not given are noise."""
    n = len(labels)
    noise = random.Random(1)
    cells: dict[str, Any] = {
        "x": array("d", [noise.random() for _ in range(n)]),
        "c": [noise.choice("pqr") for _ in range(n)],
        **columns,
    }
    return Dataset(spec.columns, Batch(n, {c.name: cells[c.name] for c in spec.columns}), list(labels))


def rejected(data: Dataset, spec: ModelSpec = SPEC, **more: Any) -> DataRejected:
    """Return the error that the data is rejected with."""
    with pytest.raises(DataRejected) as caught:
        check_training(data, spec, **more)
    return caught.value


AB = ["a", "b"] * 50


def test_good_data_passes_with_its_counts() -> None:
    checked = check_training(dataset(AB), SPEC)
    assert checked.classes == {"a": 50, "b": 50}
    assert (checked.dataset.n_rows, checked.duplicates, checked.conflicts, checked.notes) == (100, 0, 0, ())


def test_too_few_rows_are_rejected() -> None:
    assert rejected(dataset(AB[:9], SPEC), SPEC).reason == "rows"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 20, "same class"),
        ([*["a"] * 20, "b"], "fewer than 2 rows"),
        ([str(i // 2) for i in range(2004)], "1002"),
    ],
)
def test_bad_classes_are_rejected(labels: list[str], words: str) -> None:
    error = rejected(dataset(labels))
    assert error.reason == "classes"
    assert words in error.message


def test_every_rare_class_is_named_and_may_be_dropped() -> None:
    labels = [*AB, "rare", "odd"]
    error = rejected(dataset(labels))
    assert [problem.message for problem in error.problems] == ["class odd has 1 row(s)", "class rare has 1 row(s)"]
    drop = make_spec({"x": NUMBER, "c": CATEGORY}, labels={"rare": "drop"})
    checked = check_training(dataset(labels), drop)
    assert (checked.dataset.n_rows, sorted(checked.classes)) == (100, ["a", "b"])
    assert "2 row(s) of 2 class(es)" in checked.notes[0]


def test_a_class_under_the_rows_that_the_spec_asks_for_is_rare() -> None:
    spec = make_spec({"x": NUMBER, "c": CATEGORY}, labels={"min_rows": 60})
    assert rejected(dataset(AB), spec).fields["total"] == 2


def test_new_and_lost_classes_are_named() -> None:
    error = rejected(dataset(AB), known_classes=["a", "c"])
    assert error.reason == "classes"
    assert [problem.message for problem in error.problems] == [
        "class b is unknown to the serving model",
        "class c of the serving model has no rows",
    ]


def test_a_new_class_may_be_let_in() -> None:
    spec = make_spec({"x": NUMBER, "c": CATEGORY}, labels={"new": "accept"})
    assert check_training(dataset(AB), spec, known_classes=["a"]).classes == {"a": 50, "b": 50}


def test_a_target_that_never_changes_is_rejected() -> None:
    assert rejected(dataset([3.0] * 60, REGRESSION), REGRESSION).reason == "classes"
    assert check_training(dataset([float(i) for i in range(60)], REGRESSION), REGRESSION).classes == {}


def test_constant_columns_are_noted() -> None:
    data = dataset(AB, x=array("d", [2.0, np.nan] * 50), c=["p"] * 100)
    assert constant_columns(data) == ["x", "c"]
    assert constant_columns(dataset(AB, x=array("d", [np.nan] * 100))) == ["x"]
    assert "column c has the same value in every row" in check_training(data, SPEC).notes


def test_rows_set_aside_are_noted() -> None:
    data = dataset(AB)
    aside = Dataset(data.columns, data.batch, data.labels, quarantined=(Problem("bad", "x", 1),), n_quarantined=1)
    assert check_training(aside, SPEC).notes == ("1 row(s) with bad cells were set aside",)


def test_duplicates_and_their_conflicts_are_counted() -> None:
    data = dataset(["a", "a", "b", "a"], x=array("d", [1, 1, 1, 2]), c=["p"] * 4)
    assert count_duplicates(data) == (2, 1)
    twice = dataset([*AB, "a"], x=array("d", [*range(100), 1]), c=["p"] * 101)
    assert "1 row(s) have the features of an earlier row and another label" in check_training(twice, SPEC).notes


def test_data_without_labels_cannot_be_checked() -> None:
    with pytest.raises(ValueError, match="no labels"):
        check_training(Dataset(SPEC.columns, dataset(AB).batch, None), SPEC)


# --- leakage


TABLES = (
    "iris", "penguins", "titanic", "wine_quality", "bank_marketing", "adult_income", "covertype_small",
    "elec2_stream", "weather_stream", "california_housing", "sms_spam", "product_multimodal", "airline_tweets",
)  # fmt: skip


def noisy(values: Sequence[Any], wrong: float) -> list[Any]:
    """Return the values, a share of them drawn anew."""
    rng = random.Random(2)
    return [rng.choice(values) if rng.random() < wrong else value for value in values]


@pytest.mark.parametrize(
    "columns",
    [
        {"c": AB},
        {"c": [f"made from {label}" for label in AB]},
        {"x": array("d", [label == "a" for label in AB])},
        {"x": array("d", [500 - (label == "a") * 300 + i for i, label in enumerate(AB)])},
    ],
    ids=["copy", "renamed", "flag", "threshold"],
)
def test_a_column_that_gives_the_label_away_is_rejected_by_name(columns: dict[str, Any]) -> None:
    error = rejected(dataset(AB, **columns))
    assert error.reason == "leakage"
    assert [problem.field for problem in error.problems] == list(columns)


def test_sorted_ids_leak_sorted_labels() -> None:
    labels = ["a"] * 600 + ["b"] * 600
    assert leaking_columns(dataset(labels, x=array("d", range(1200))), "classification") == ["x"]


def test_an_operator_may_let_a_leak_pass() -> None:
    spec = make_spec({"x": NUMBER, "c": CATEGORY}, gate={"allow_leakage": True})
    assert check_training(dataset(AB, c=list(AB)), spec).duplicates == 0


def test_a_strong_column_is_no_leak() -> None:
    labels = AB * 20
    assert leaking_columns(dataset(labels, c=noisy(labels, 0.06)), "classification") == []
    assert (
        leaking_columns(dataset(labels, x=array("d", [ord(v) for v in noisy(labels, 0.06)])), "classification")
        == []
    )


def test_one_large_class_makes_no_leak() -> None:
    labels = ["a"] * 1990 + ["b"] * 10
    assert leaking_columns(dataset(labels), "classification") == []


def test_unique_ids_few_rows_and_a_lone_column_are_not_judged() -> None:
    assert leaking_columns(dataset(AB, c=[str(i) for i in range(100)]), "classification") == []
    assert leaking_columns(dataset(AB[:40], c=AB[:40]), "classification") == []
    lone = make_spec({"c": CATEGORY})
    assert leaking_columns(dataset(AB, lone, c=AB), "classification") == []
    same = dataset(AB, x=array("d", [1.0] * 100), c=["p"] * 100)
    assert leaking_columns(same, "classification") == []


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"x": array("d", [3 * i + 1 for i in range(200)])}, ["x"]),
        ({"x": array("d", [np.exp(i / 20) for i in range(200)])}, ["x"]),
        ({"x": array("d", [np.nan, *range(1, 200)])}, ["x"]),
        ({"c": [str(i // 2) for i in range(200)]}, []),
        ({"x": array("d", [i + 10 * (i % 7) for i in range(200)])}, []),
        ({"x": array("d", [np.nan] * 190 + [1.0] * 10)}, []),
    ],
)
def test_a_column_made_from_a_target_is_found(columns: dict[str, Any], found: list[str]) -> None:
    assert leaking_columns(dataset([float(i) for i in range(200)], REGRESSION, **columns), "regression") == found


def test_a_category_that_holds_the_target_is_found() -> None:
    target = [float(i % 9) for i in range(300)]
    assert leaking_columns(dataset(target, REGRESSION, c=[f"={v}" for v in target]), "regression") == ["c"]


@pytest.mark.parametrize(
    "path",
    ["generated", *map(str, real_files(*TABLES))],
    ids=lambda path: path.split("/")[-2] if "/" in path else path,
)
def test_real_data_is_not_taken_for_a_leak(path: str) -> None:
    if path == "generated":
        assert leaking_columns(dataset(AB), "classification") == []
        return
    label = "target" if "california" in path else "label"
    spec = infer(path, label=label, compare=False).spec
    assert leaking_columns(read_table(path, spec), spec.task) == []


def test_texts_are_never_taken_for_a_leak() -> None:
    spec = make_spec({"t": TEXT, "c": CATEGORY})
    assert leaking_columns(dataset(AB, spec, t=list(AB)), "classification") == []
