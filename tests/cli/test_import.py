"""`polysky import`: models fitted elsewhere answer here as they did there."""

from __future__ import annotations

import csv
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.cli.shop import Shop
from tests.mood import rows

MARK = "ran.txt"


def texts() -> tuple[list[str], list[str]]:
    pairs = [line.rpartition(",") for line in rows(0, 80).splitlines()[1:]]
    return [text for text, _, _ in pairs], [label for _, _, label in pairs]


@pytest.fixture
def pipeline(shop: Shop) -> str:
    """A text pipeline as a user has it on disk."""
    path = shop.folder / "mood.joblib"
    joblib.dump(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(*texts()), path)
    return str(path)


def test_a_pipeline_becomes_a_version_that_answers_as_it_does(shop: Shop, pipeline: str) -> None:
    found = shop.call("import", pipeline, "--trust", "--json").json
    assert (found["model"], found["alias"], found["gate"]) == ("mood", "production", None)
    assert found["parity"]["max_abs_diff"] <= found["parity"]["bound"]
    path, out = shop.write("rows.csv", "text\ncake and a gift\nrain again\n"), shop.folder / "out.csv"
    shop.call("predict", "mood", "--file", path, "--out", str(out))
    with out.open(newline="") as file:
        answers = list(csv.DictReader(file))
    expected = joblib.load(pipeline).predict_proba(["cake and a gift", "rain again"])
    assert [row["prediction"] for row in answers] == ["glad", "sad"]
    assert np.abs([[float(row["p_glad"]), float(row["p_sad"])] for row in answers] - expected).max() < 1e-6


def test_importing_again_makes_no_second_version_and_staging_is_the_default_once_something_serves(
    shop: Shop, pipeline: str
) -> None:
    first = shop.call("import", pipeline, "--trust", "--json").json
    assert shop.call("import", pipeline, "--trust", "--json").json == first
    other = shop.folder / "other.joblib"
    joblib.dump(make_pipeline(TfidfVectorizer(), LogisticRegression(C=9.0)).fit(*texts()), other)
    assert "→ staging" in shop.call("import", str(other), "--trust", "--name", "mood").out
    third = shop.call("import", str(other), "--trust", "--name", "mood", "--alias", "canary", "--json").json
    assert third["alias"] == "canary"
    assert len(shop.call("models", "show", "mood", "--json").json) == 2


def test_rows_with_labels_score_it_and_evaluate_does_so_later(shop: Shop, pipeline: str) -> None:
    path = shop.write("rows.csv", rows(500, 40) + "cake gift,sad\n")
    found = shop.call("import", pipeline, "--trust", "--file", path, "--label", "label", "--json").json
    assert found["metrics"]["accuracy"] == pytest.approx(40 / 41)
    later = shop.call("evaluate", "mood", "--file", path, "--label", "label", "--json").json
    assert later["metrics"]["accuracy"] == pytest.approx(40 / 41)


def test_answers_that_differ_from_those_expected_are_refused(shop: Shop, pipeline: str) -> None:
    path = shop.write("rows.csv", "text,answer\ncake,sad\n")
    line = shop.refused("import", pipeline, "--trust", "--file", path, "--expect", "answer", code=1)
    assert "does not give the answers expected" in line


def test_a_model_of_named_columns(shop: Shop) -> None:
    iris = load_iris()
    path = shop.folder / "iris.joblib"
    names = "sepal_length,sepal_width,petal_length,petal_width"
    labels = iris.target_names[iris.target]
    joblib.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(iris.data, labels), path)
    assert shop.call("import", str(path), "--trust", "--columns", names, "--json").json["model"] == "iris"
    out = shop.folder / "out.csv"
    rows_path = shop.write("rows.csv", f"{names}\n5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n")
    shop.call("predict", "iris", "--file", rows_path, "--out", str(out))
    assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == ["setosa", "virginica"]


def test_an_onnx_file(shop: Shop) -> None:
    from skl2onnx import to_onnx

    iris = load_iris()
    fitted = LogisticRegression(max_iter=500).fit(iris.data.astype(np.float32), iris.target)
    path = shop.folder / "iris.onnx"
    graph = to_onnx(fitted, iris.data[:1].astype(np.float32), options={"zipmap": False})
    path.write_bytes(graph.SerializeToString())
    assert "needs --task" in shop.refused("import", str(path))
    classes = ",".join(iris.target_names)
    done = shop.call("import", str(path), "--task", "classification", "--classes", classes, "--json")
    assert done.json["alias"] == "production"


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return (Path.write_text, (self.path, "code ran"))


def test_without_trust_no_code_of_the_file_runs(shop: Shop) -> None:
    mark, path = shop.folder / MARK, shop.folder / "trap.joblib"
    joblib.dump(Trap(mark), path)
    assert "--trust" in shop.refused("import", str(path))
    assert not mark.exists()


def test_what_cannot_be_carried_is_named_and_nothing_is_published(shop: Shop) -> None:
    path = shop.folder / "list.joblib"
    joblib.dump([1, 2, 3], path)
    shop.refused("import", str(path), "--trust", code=1)
    assert shop.call("models", "list", "--json").json == []
