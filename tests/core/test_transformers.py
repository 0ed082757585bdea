"""Fitted scikit-learn transformers carried to parts of a table block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from core.errors import FitFailed
from core.features.table import TableBlock
from core.schema import Batch
from core.transformers import carry, level, raw
from tests.core.carried import full

NUMBERS = np.array([[1.0, math.nan], [4.0, 2.0], [math.nan, 8.0], [2.5, -3.0], [9.0, 0.5]])
LEVELS = np.array([["a", "x"], ["b", "y"], ["a", None], ["c", "x"], ["a", "y"]], dtype=object)

NUMERIC = [
    make_pipeline(SimpleImputer(), StandardScaler()),
    make_pipeline(SimpleImputer(strategy="most_frequent"), StandardScaler(with_mean=False)),
    make_pipeline(SimpleImputer(strategy="constant", fill_value=7.0), StandardScaler(with_std=False)),
    make_pipeline(SimpleImputer(add_indicator=True)),
    make_pipeline(StandardScaler(), MinMaxScaler(), MaxAbsScaler()),
    make_pipeline(RobustScaler(with_scaling=False), RobustScaler(with_centering=False)),
    make_union(SimpleImputer(strategy="median"), MissingIndicator()),
    FeatureUnion([("kept", "passthrough"), ("gone", "drop"), ("same", FunctionTransformer())]),
]


def block_of(transformer: Any, kind: str, names: str = "pq") -> TableBlock:
    parts = carry(transformer, [raw(kind, name) for name in names])
    return TableBlock(list(names), parts)


def batch_of(table: Any) -> Batch:
    return Batch(len(table), {"p": table[:, 0].tolist(), "q": table[:, 1].tolist()})


@pytest.mark.parametrize("transformer", NUMERIC, ids=str)
def test_number_transformers_are_carried_bit_for_bit(transformer: Any) -> None:
    transformer.fit(NUMBERS)
    x = block_of(transformer, "number").matrix(batch_of(NUMBERS))
    assert np.array_equal(full(x), transformer.transform(NUMBERS), equal_nan=True)


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(),
        OneHotEncoder(drop="first", sparse_output=False),
        OneHotEncoder(drop="if_binary"),
        OneHotEncoder(min_frequency=2, handle_unknown="ignore"),
        OneHotEncoder(max_categories=2, handle_unknown="ignore", drop="first"),
        OrdinalEncoder(),
        OrdinalEncoder(min_frequency=2),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ],
    ids=str,
)
def test_encoders_are_carried_with_their_dropped_and_rare_levels(encoder: Any) -> None:
    encoder.fit(LEVELS)
    x = block_of(encoder, "category").matrix(batch_of(LEVELS))
    assert np.array_equal(full(x), full(encoder.transform(LEVELS)))


def test_a_filled_category_counts_as_the_level_it_is_filled_with() -> None:
    table = np.where(LEVELS == None, np.nan, LEVELS)  # noqa: E711
    for fill in (SimpleImputer(strategy="most_frequent"), SimpleImputer(strategy="constant", fill_value="none")):
        pipeline = make_pipeline(fill, OneHotEncoder(handle_unknown="ignore")).fit(table)
        x = block_of(pipeline, "category").matrix(batch_of(LEVELS))
        assert np.array_equal(full(x), pipeline.transform(table).toarray())


def test_a_level_that_fills_but_was_never_seen_is_unknown() -> None:
    imputer = SimpleImputer(strategy="constant", fill_value="none").fit(LEVELS[:2])
    encoder = OneHotEncoder(handle_unknown="ignore").fit(LEVELS[:2])
    parts = carry(encoder, carry(imputer, [raw("category", "p"), raw("category", "q")]))
    assert None not in parts[1].levels


def test_numbers_and_flags_as_levels_are_found_as_rows_spell_them() -> None:
    ages = OneHotEncoder().fit(np.array([[1.0], [2.5]]))
    assert carry(ages, [raw("category", "p")])[0].levels == {"1.0": 0, "1": 0, "2.5": 1}
    counts = OrdinalEncoder().fit(np.array([[1], [20]]))
    assert carry(counts, [raw("category", "p")])[0].levels == {"1": 0, "20": 1}
    assert [level(np.True_), level(False), level(math.nan), level(None)] == ["true", "false", None, None]


def test_a_column_without_values_vanishes_as_the_imputer_lets_it() -> None:
    table = np.array([[1.0, math.nan], [2.0, math.nan]])
    imputer = SimpleImputer().fit(table)
    with pytest.warns(UserWarning, match="Skipping features"):
        expected = imputer.transform(table)
    assert np.array_equal(full(block_of(imputer, "number").matrix(batch_of(table))), expected)
    kept = SimpleImputer(keep_empty_features=True).fit(table)
    assert np.array_equal(full(block_of(kept, "number").matrix(batch_of(table))), kept.transform(table))


REFUSED: list[tuple[Any, str, Any, str]] = [
    (PolynomialFeatures(), "number", NUMBERS[1:2], "PolynomialFeatures has no portable form"),
    (MinMaxScaler(clip=True), "number", NUMBERS, "clip=True"),
    (FunctionTransformer(np.abs), "number", NUMBERS, "Python function"),
    (SimpleImputer(missing_values=-3.0), "number", NUMBERS[[1, 3]], "missing_values"),
    (
        make_pipeline(StandardScaler(), SimpleImputer()),
        "number",
        NUMBERS,
        "simpleimputer: SimpleImputer is carried",
    ),
    (
        make_pipeline(SimpleImputer(), MissingIndicator(features="all")),
        "number",
        NUMBERS,
        "missingindicator: MissingIndicator",
    ),
    (make_pipeline(OrdinalEncoder(), StandardScaler()), "category", LEVELS[:2], "not after an encoder"),
    (OneHotEncoder(), "number", NUMBERS[1:2], "category columns only"),
    (
        FeatureUnion([("a", "passthrough")], transformer_weights={"a": 2.0}),
        "number",
        NUMBERS,
        "transformer_weights",
    ),
    (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-5),
        "category",
        LEVELS[:2],
        "unknown_value=-1",
    ),
]


@pytest.mark.parametrize(("transformer", "kind", "table", "why"), REFUSED, ids=str)
def test_what_cannot_be_carried_says_which_step_and_why(transformer: Any, kind: str, table: Any, why: str) -> None:
    transformer.fit(table)
    with pytest.raises(FitFailed, match=why):
        block_of(transformer, kind)


def test_an_ordinal_code_that_is_no_whole_number_is_refused() -> None:
    table = np.array([["a"], [np.nan]], dtype=object)
    encoder = OrdinalEncoder().fit(table)
    with pytest.raises(FitFailed, match="encoded_missing_value"):
        carry(encoder, [raw("category", "p")])
