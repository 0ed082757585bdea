"""Trees over columns and over real tables: the portable answers equal scikit-learn's."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine

from core.artifact import export, load
from core.estimators import trees
from core.schema import Batch, Column
from tests.core.carried import scorer
from tests.core.datafiles import real_files
from tests.core.models import draft
from tests.core.test_trees import SMALL, check


@pytest.mark.parametrize("kinds", ["table", "vector", "both"])
def test_a_model_answers_from_its_columns_without_pairs(kinds: str) -> None:
    x, y = load_iris(return_X_y=True)
    names = ["a", "b", "c", "d"]
    columns = [Column(name, "number", {"scale": "none"}) for name in names]
    batch = Batch(150, {name: x[:, i].tolist() for i, name in enumerate(names)})
    if kinds == "vector":
        columns, batch = [Column("v", "vector", {}, 4)], Batch(150, {"v": x})
    made, fitted, _ = draft(columns, batch, y, kind="trees", algorithm="random_forest", params=SMALL)
    if kinds == "both":
        wide = trees.build("random_forest", "classification", SMALL, 0).fit(np.hstack([x, x]), y)
        params, sections = trees.export(wide, "classification", 8)
        made = made._replace(blocks=made.blocks * 2, params=params, sections=sections)
        fitted, x = wide, np.hstack([x, x])
    model = load(export(made))
    expected = fitted.predict_proba(x).tolist()
    for row in range(0, 150, 7):
        assert model.predict(batch.take([row])).probabilities == [expected[row]]
    assert model.predict(batch).probabilities == expected


def test_a_block_that_only_knows_pairs_is_scored_by_pairs() -> None:
    x, y = load_iris(return_X_y=True)
    carried = scorer("trees", trees.build("decision_tree", "classification", {}, 0).fit(x, y), "classification", 4)
    assert carried.fused([object()]) is None


@pytest.mark.parametrize(
    "path", [Path("bundled/wine"), *real_files("covertype_small")], ids=lambda path: path.parent.name
)
def test_a_real_table_equals_scikit_learn(path: Path) -> None:
    x, y = load_wine(return_X_y=True) if path == Path("bundled/wine") else table_of(path)
    fitted = trees.build("random_forest", "classification", {"n_estimators": 20}, 0)
    check(fitted.fit(x, y), x[:300])


def table_of(path: Path) -> tuple[Any, Any]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        table = np.array([[float(c) for c in row] for row in list(csv.reader(file))[1:1501]])
    return table[:, :-1], table[:, -1].astype(int)
