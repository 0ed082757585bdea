"""Inferring a spec: kinds, task, what is left out and why, the choice of an estimator, the TOML it writes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import candidates, contest
from core.candidates import Facts
from core.dataset.reading import read_table
from core.dataset.table import Dataset
from core.errors import ConfigError, DataRejected, NotFound
from core.inspection import Inspection, holdout_share, infer, model_name
from core.profiling import MAX_DISTINCT, Profile
from core.schema import Batch
from core.spec import parse_toml
from core.specfile import to_toml
from tests.core.datafiles import CATEGORY, JPEG, NUMBER, PNG, lines, make_spec, npy, npz, packed, real_files

WORDS = ["quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "wizards", "brew", "coffee"]


def sentences(n: int, seed: int = 0) -> list[str]:
    """Return n different sentences."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=6))} {i}" for i in range(n)]


def table(folder: Path, **columns: Sequence[Any]) -> str:
    """Return the path of a CSV of the columns."""
    import csv

    path = folder / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def kinds(found: Inspection) -> dict[str, str]:
    """Return the kind of each column."""
    return {column.name: column.kind for column in found.spec.columns}


def quick(path: str, label: str = "label", **more: Any) -> Inspection:
    """Return what is inferred without trials."""
    return infer(path, label=label, compare=False, **more)


N = 60
AB = ["a", "b"] * (N // 2)
NOISE = [round(random.Random(3).random() + i, 3) for i in range(N)]


def test_columns_get_the_kind_of_their_cells(tmp_path: Path) -> None:
    path = table(
        tmp_path, price=NOISE, town=["Oslo", "New York", "Rome"] * 20, review=sentences(N), count=list(range(N)),
        flag=["True", "False", ""] * 20, label=AB,
    )  # fmt: skip
    found = quick(path)
    assert kinds(found) == {
        "price": "number", "town": "category", "review": "text", "count": "number", "flag": "category",
    }  # fmt: skip
    assert found.spec.task == "classification"
    assert found.spec.data.extra == "error"
    assert found.notes == ()


def test_what_cannot_be_learnt_from_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = table(
        tmp_path, x=NOISE, id=list(range(N)), user_id=[f"u{i}" for i in range(N)],
        code=[f"{i:032x}" for i in range(N)], empty=[""] * N, same=["v"] * N,
        day=[f"2020-01-{i % 28 + 1:02d}" for i in range(N)], photo=[f"{i}.png" for i in range(N)], label=AB,
    )  # fmt: skip
    found = quick(path)
    assert kinds(found) == {"x": "number"}
    assert found.spec.data.extra == "ignore"
    words = ["id", "user_id", "code", "empty", "same value", "dates", "not beside"]
    assert [word for note, word in zip(found.notes, words, strict=True) if word not in note] == []
    assert read_table(path, found.spec).n_rows == N


def test_columns_with_too_many_values_without_words_are_left_out(tmp_path: Path) -> None:
    n = 5000
    path = table(tmp_path, x=list(range(n)), sku=[f"s{i // 2}" for i in range(n)], label=["a", "b"] * (n // 2))
    found = quick(path)
    assert kinds(found) == {"x": "number"}
    assert "2000 different values" in found.notes[0]


def test_words_for_missing_do_not_hide_a_number(tmp_path: Path) -> None:
    path = table(tmp_path, x=[*NOISE[:-2], "NA", "?"], label=AB)
    found = quick(path)
    assert kinds(found) == {"x": "number"}
    assert found.spec.data.missing == ("?", "NA")
    assert found.spec.columns[0].options["indicator"] is True
    assert read_table(path, found.spec).n_rows == N


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (AB, "classification"),
        (["0", "1"] * 30, "classification"),
        (["1.0", "0.0"] * 30, "classification"),
        ([str(i % 7 + 3) for i in range(N)], "classification"),
        ([str(i % 25) for i in range(300)], "classification"),
        (["1.5", "2.0", "2.5"] * 20, "regression"),
        ([str(i * 37 % 59) for i in range(59)], "regression"),
        ([str(i * 1000 % 97_000) for i in range(97)], "regression"),
        ([str(i % 25 * 3) for i in range(300)], "regression"),
    ],
)
def test_the_task_follows_from_the_labels(tmp_path: Path, labels: list[str], task: str) -> None:
    path = table(tmp_path, x=list(range(len(labels))), label=labels)
    assert quick(path).spec.task == task


def test_labels_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, x=list(range(2000)), label=[f"c{i}" for i in range(2000)])
    with pytest.raises(DataRejected, match="over 1000 classes") as caught:
        quick(path)
    assert caught.value.reason == "classes"
    with pytest.raises(DataRejected, match="one value a row"):
        quick(table(tmp_path, x=[1, 2], label=["", ""]))


def test_an_absent_label_column_or_file_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, x=[1, 2], y=["a", "b"])
    with pytest.raises(DataRejected, match="no column label; there are: x, y"):
        quick(path)
    with pytest.raises(NotFound):
        quick(str(tmp_path / "no.csv"))


def test_files_without_rows_columns_or_clear_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="no rows"):
        quick(table(tmp_path, x=[], label=[]))
    with pytest.raises(DataRejected, match="no column is left"):
        quick(table(tmp_path, x=["v"] * N, label=AB))
    (tmp_path / "data.csv").write_text("x,x,label\n1,2,a\n")
    with pytest.raises(DataRejected, match="two columns of the same name"):
        quick(str(tmp_path / "data.csv"))


def test_rare_classes_and_missing_labels_are_noted(tmp_path: Path) -> None:
    found = quick(table(tmp_path, x=NOISE, label=[*AB[:-2], "odd", ""]))
    assert found.spec.labels.rare == "drop"
    assert found.notes == ("1 row(s) have no label; training will reject them",
                           "1 class(es) have a single row; those rows are dropped")  # fmt: skip


def test_typed_files_have_typed_columns(tmp_path: Path) -> None:
    rows = [
        {"n": i + 0.5, "b": i % 3 == 0, "v": [i, 1.0], "t": text, "none": None, "label": i % 2}
        for i, text in enumerate(sentences(N))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(*rows))
    found = quick(str(path))
    assert kinds(found) == {"n": "number", "b": "category", "v": "vector", "t": "text"}
    assert found.spec.columns[2].width == 2
    pq.write_table(pa.table({"i": [PNG, JPEG] * 30, "x": NOISE, "label": AB}), tmp_path / "rows.parquet")
    assert kinds(quick(str(tmp_path / "rows.parquet"))) == {"i": "image", "x": "number"}


def test_arrays_have_the_columns_that_their_names_say(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz(images=np.zeros((8, 60, 30, 3), np.uint8), labels=np.arange(8) % 2))
    found = quick(str(tmp_path / "a.npz"), label="labels")
    assert kinds(found) == {"image": "image"}
    assert dict(found.spec.columns[0].options) == {"size": [48, 30], "hog": True, "pixels": False, "histogram": 16}
    arrays = {
        "X_train_tfidf_balanced.npy": npy(np.ones((8, 5))),
        "train_image_features_balanced.npy": npy(np.ones((8, 3))),
        "Y_train_balanced.npy": npy(np.arange(8) % 2),
    }  # fmt: skip
    (tmp_path / "set.zip").write_bytes(packed(arrays))
    found = quick(str(tmp_path / "set.zip"))
    assert [(column.name, column.width) for column in found.spec.columns] == [("tfidf", 5), ("image_features", 3)]


def test_image_files_beside_a_table_are_an_image_column(tmp_path: Path) -> None:
    table_path = table(tmp_path, photo=[f"{i}.png" for i in range(N)], text=sentences(N), label=AB)
    (tmp_path / "images.zip").write_bytes(packed({f"images/{i}.png": PNG for i in range(N)}))
    found = quick(table_path)
    assert kinds(found) == {"photo": "image", "text": "text"}
    assert found.spec.columns[1].options["norm"] == "none"


# --- the choice


def facts(n_rows: int, task: str = "classification", **columns: str) -> Facts:
    """Return the facts of columns without anything missing."""
    levels = {name: 5 for name, kind in columns.items() if kind == "category"}
    return Facts(task, n_rows, columns, frozenset(), levels, {})


def chosen(some: Facts) -> list[str]:
    """Return the algorithms of the candidates."""
    return [choice.estimator["algorithm"] for choice in candidates.of(some)]


def test_texts_and_images_are_learnt_by_logistic_regression() -> None:
    assert chosen(facts(900, t="text")) == ["logistic_regression"]
    assert chosen(facts(900, i="image")) == chosen(facts(900, v="vector")) == ["logistic_regression"]
    assert chosen(facts(900, t="text", i="image")) == ["logistic_regression"] * 2
    (only,) = candidates.of(facts(900, "regression", t="text"))
    assert only.estimator["algorithm"] == "ridge"
    assert only.search is not None


def test_many_texts_keep_no_term_of_a_single_text() -> None:
    (few,), (many,) = candidates.of(facts(900, t="text")), candidates.of(facts(90_000, t="text"))
    assert "min_df" not in few.by_column["t"]
    assert many.by_column["t"]["min_df"] == 2


def test_large_tables_are_boosted_and_small_ones_compared() -> None:
    assert chosen(facts(60_000, x="number")) == ["hist_gradient_boosting"]
    forests = ["logistic_regression", "random_forest", "extra_trees"]
    assert chosen(facts(100, x="number")) == forests
    assert chosen(facts(2000, x="number", c="category")) == [*forests, "hist_gradient_boosting"]
    assert chosen(facts(2000, "regression", x="number"))[0] == "ridge"


def test_categories_with_many_levels_are_coded_and_rare_ones_joined() -> None:
    some = facts(60_000, c="category")._replace(levels={"c": 500})
    assert candidates.of(some)[0].by_column["c"] == {"encode": "ordinal", "min_frequency": 5}


def xor(n: int) -> tuple[list[float], list[float], list[str]]:
    """Return two numbers and a class that no straight line tells."""
    rng = random.Random(4)
    points = [(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(n)]
    return [a for a, _ in points], [b for _, b in points], ["ab"[a * b > 0] for a, b in points]


def test_a_small_table_gets_the_estimator_that_suits_it(tmp_path: Path) -> None:
    a, b, label = xor(120)
    seen: list[tuple[str, int, int]] = []
    found = infer(table(tmp_path, a=a, b=b, label=label), label="label", progress=lambda *step: seen.append(step))
    assert found.spec.estimator.kind == "trees"
    assert "logistic regression 0." in found.notes[-1]
    assert seen[0] == ("read", 120, 0)
    assert seen[-1] == ("compare", 30, 30)


def test_a_file_with_problems_gets_a_spec_without_a_trial(tmp_path: Path) -> None:
    path = table(tmp_path, x=NOISE, label=[*AB[:-1], ""])
    found = infer(path, label="label")
    assert found.spec.estimator.algorithm == "logistic_regression"
    assert "nothing was compared" in found.notes[-1]


def test_trials_score_unseen_rows_of_either_task() -> None:
    n = 200
    rng = np.random.default_rng(0)
    x = rng.random(n)
    spec = make_spec({"x": NUMBER}, task="regression")
    data = Dataset(spec.columns, Batch(n, {"x": x.tolist()}), (3 * x).tolist())
    scores = contest.scores([spec], data, folds=2, repeats=2)
    assert scores.shape == (1, 4)
    assert (scores > 0.99).all()
    labelled = make_spec({"x": NUMBER, "c": CATEGORY})
    columns = {"x": x.tolist(), "c": ["p", "q"] * 100}
    told = Dataset(labelled.columns, Batch(n, columns), [*("x", "y") * 99, "z", "y"])
    assert contest.scores([labelled], told, folds=2).mean() > 0.9


def test_trials_without_anything_to_learn_or_to_test_choose_nothing() -> None:
    spec = make_spec({"t": {"kind": "text"}, "c": CATEGORY})
    same = Dataset(spec.columns, Batch(40, {"t": ["a b"] * 40, "c": ["p"] * 40}), ["x", "y"] * 20)
    assert not contest.scores([spec], same, folds=3).any()
    no_terms = Dataset(
        spec.columns, Batch(40, {"t": ["?"] * 40, "c": [str(i) for i in range(40)]}), ["x", "y"] * 20
    )
    assert (contest.scores([spec], no_terms, folds=2) == -np.inf).all()


# --- names, shares, TOML


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CaliforniaHousingBestModel", "california-housing-best-model"),
        ("IrisBestModel", "iris-best-model"),
        ("my model (v2)", "my-model-v2"),
        ("--x--", "x"),
        ("HTTPServer", "http-server"),
        ("a" * 90, "a" * 63),
    ],
)
def test_any_text_becomes_a_model_name(text: str, name: str) -> None:
    assert model_name(text) == name


def test_a_name_without_letters_is_refused() -> None:
    with pytest.raises(ConfigError, match="letter or a digit"):
        model_name("--")


def test_the_name_comes_from_the_file_or_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Sms_Spam"
    folder.mkdir()
    path = table(folder, x=NOISE, label=AB)
    assert quick(path).spec.name == quick(str(folder)).spec.name == "sms-spam"
    (folder / "orders.2024.csv").write_bytes(Path(path).read_bytes())
    assert quick(str(folder / "orders.2024.csv")).spec.name == "orders"
    assert quick(path, name="BestModel", seed=7).spec.name == "best-model"
    assert quick(path, seed=7).spec.split.seed == 7


def test_the_holdout_shrinks_as_the_data_grows() -> None:
    assert [holdout_share(n) for n in (999, 1000, 4999, 5000)] == [0.2, 0.15, 0.15, 0.1]


def test_the_toml_reads_back_as_the_spec_and_explains_itself(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"a b": NOISE, 'quo"te': sentences(N), "ü": ["p", "q"] * 30, "label": AB}
    found = quick(table(tmp_path, **columns))
    text = found.toml()
    assert parse_toml(text) == found.spec
    assert "ngrams = [1, 2]" in text
    for section in ("data", "labels", "estimator", "split", "gate", "retrain"):
        before, _, _ = text.partition(f"\n[{section}]")
        assert before.splitlines()[-1].startswith("# ")


def test_a_note_cannot_leave_its_comment() -> None:
    spec = make_spec({"x": NUMBER}, search={"params": {"C": [1.0, 2.0]}})
    text = to_toml(spec, ["left out: evil\nname = 'x'\r\x85\u2028[gate]", "long " * 60])
    assert parse_toml(text) == spec
    assert "# Parameters to try" in text


@given(st.text(min_size=1, max_size=40).filter(str.isprintable), st.lists(st.text(max_size=9), max_size=5))
def test_any_column_name_and_value_survive_the_toml(name: str, values: list[str]) -> None:
    if name == "label":
        name = "other"
    spec = make_spec({name: {"kind": "category", "values": values}}, data={"missing": values})
    assert parse_toml(to_toml(spec)) == spec
    assert json.loads(json.dumps(spec.to_dict())) == spec.to_dict()


# --- profiles


def test_a_profile_stays_small_and_right_with_many_values() -> None:
    profile = Profile("x")
    for low in range(0, 3 * MAX_DISTINCT, 4096):
        profile.add([str(i) for i in range(low, low + 4096)])
    assert profile.many
    assert profile.is_number()
    assert len(profile.distinct) < MAX_DISTINCT + 4097
    profile.add(["word"])
    assert not profile.is_number()


REAL = {
    "sms_spam": {"text": "text"},
    "iris": dict.fromkeys(["sepal_length", "sepal_width", "petal_length", "petal_width"], "number"),
    "airline_tweets": {"text": "text", "airline": "category"},
    "product_multimodal": {
        "text": "text", "brand": "text", "retail_price": "number", "discounted_price": "number", "image": "image",
    },
    "titanic": {
        "pclass": "number", "sex": "category", "age": "number", "sibsp": "number", "parch": "number",
        "fare": "number", "embarked": "category", "deck": "category",
    },
    "california_housing": {
        **dict.fromkeys(["longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms",
                         "population", "households", "median_income"], "number"), "ocean_proximity": "category",
    },
    "mnist": {"image": "image"},
}  # fmt: skip


@pytest.mark.parametrize(
    "path", ["generated", *map(str, real_files(*REAL))], ids=lambda path: path.split("/")[-2:][0]
)
def test_real_data_has_the_kinds_that_people_see(path: str, tmp_path: Path) -> None:
    name = Path(path).parent.name if path != "generated" else ""
    if not name:
        path = table(tmp_path, text=sentences(N), label=AB)
    found = quick(path, label="target" if name == "california_housing" else "label")
    assert kinds(found) == REAL.get(name, {"text": "text"})
    assert parse_toml(found.toml()) == found.spec
    assert read_table(path, found.spec).n_rows > 50
