"""`polysky train`, `predict` and `evaluate` on files."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import pytest

from tests.cli.shop import PRICE, Shop, prices
from tests.mood import SPEC, rows


def rows_of(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="") as file:
        header, *found = csv.reader(file)
    return header, found


def test_what_is_written_to_a_device_leaves_it_a_device(mood: Shop) -> None:
    path, pipe = mood.write("rows.csv", "text\ncake\n"), mood.folder / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mood.call("predict", "mood", "--file", path, "--out", str(pipe))
        assert pipe.is_fifo()
        assert os.read(reading, 4096).startswith(b"prediction,p_glad,p_sad\nglad,")
    finally:
        os.close(reading)


def test_a_link_goes_on_pointing_to_the_file_that_is_written(mood: Shop) -> None:
    path, link, file = mood.write("rows.csv", "text\ncake\n"), mood.folder / "link", mood.folder / "file.csv"
    link.symlink_to(file)
    mood.call("predict", "mood", "--file", path, "--out", str(link))
    assert link.is_symlink()
    assert rows_of(file)[1][0][0] == "glad"


def test_a_folder_that_is_not_there_is_named_as_it_was_given(mood: Shop) -> None:
    out = str(mood.folder / "nowhere" / "out.csv")
    path = mood.write("rows.csv", "text\ncake\n")
    line = mood.refused("predict", "mood", "--file", path, "--out", out, code=1)
    assert line == f"polysky: No such file or directory: {out}\n"


def test_train_prints_exactly_the_promised_json(shop: Shop) -> None:
    done = shop.train(SPEC, shop.write("mood.csv", rows(0, 120)), "--json")
    assert list(done.json) == ["model", "version", "alias", "metrics", "gate"]
    assert (done.json["model"], done.json["alias"], done.json["gate"]["passed"]) == ("mood", "production", True)
    assert done.json["metrics"]["accuracy"] == 1.0
    assert done.out.count("\n") == 1
    assert done.err == ""


def test_training_the_same_again_gives_the_same_version(mood: Shop) -> None:
    first = mood.call("models", "show", "mood", "--json").json
    again = mood.train(SPEC, str(mood.folder / "mood.csv"), "--json").json
    assert [view["version"] for view in first] == [again["version"]]


def test_a_version_below_its_minimum_stays_in_staging_and_says_why(shop: Shop) -> None:
    spec = SPEC + "minimum = {accuracy = 0.9}\n"
    confused = rows(0, 120).replace("sunny", "rain").replace("cake", "lost").replace("friend", "alone")
    done = shop.train(spec, shop.write("mood.csv", confused.replace("laugh", "tears").replace("gift", "late")))
    assert "mood v-" in done.out
    assert "→ staging" in done.out
    assert "gate not passed: accuracy" in done.out


def test_predict_writes_labels_and_probabilities_in_the_order_of_the_rows(mood: Shop) -> None:
    path = mood.write("rows.csv", "text\nrain and tears\na gift and cake\nlost alone\n")
    out = mood.folder / "out.csv"
    done = mood.call("predict", "mood", "--file", path, "--out", str(out))
    header, found = rows_of(out)
    assert header == ["prediction", "p_glad", "p_sad"]
    assert [row[0] for row in found] == ["sad", "glad", "sad"]
    for label, *shares in found:
        glad, sad = map(float, shares)
        assert math.isclose(glad + sad, 1.0)
        assert (glad > sad) == (label == "glad")
    assert done.out == ""
    assert done.err.startswith("3 rows by mood v-")


def test_predict_ignores_the_label_column_and_keeps_every_row_over_many_chunks(mood: Shop) -> None:
    path = mood.write("rows.csv", rows(0, 5000))
    out = mood.folder / "out.csv"
    mood.call("predict", "mood", "--file", path, "--out", str(out))
    expected = [line.rpartition(",")[2] for line in rows(0, 5000).splitlines()[1:]]
    assert [row[0] for row in rows_of(out)[1]] == expected


def test_predict_of_a_regression_writes_the_value_alone(shop: Shop) -> None:
    shop.train(PRICE, shop.write("prices.csv", prices(200)))
    out = shop.folder / "out.csv"
    shop.call(
        "predict", "price", "--file", shop.write("rows.csv", "size,town\n10,Bern\n10,Thun\n"), "--out", str(out)
    )
    header, found = rows_of(out)
    assert header == ["prediction"]
    assert [float(value) for (value,) in found] == pytest.approx([40, 50], abs=1.5)


def test_predict_to_stdout(mood: Shop) -> None:
    done = mood.call("predict", "mood", "--file", mood.write("rows.csv", "text\ncake\n"), "--out", "-")
    assert done.out.splitlines()[0] == "prediction,p_glad,p_sad"


def test_a_bad_row_is_named_and_no_file_is_left(shop: Shop) -> None:
    shop.train(PRICE, shop.write("prices.csv", prices(200)))
    out = shop.folder / "out.csv"
    out.write_text("kept")
    path = shop.write("rows.csv", "size,town\n1,Bern\nbig,Bern\n")
    line = shop.refused("predict", "price", "--file", path, "--out", str(out))
    assert "row 2" in line
    assert "size" in line
    assert "big" not in line
    assert out.read_text() == "kept"
    assert sorted(item.name for item in shop.folder.iterdir() if item.name.startswith(".")) == []


def test_a_missing_column_is_named(mood: Shop) -> None:
    line = mood.refused("predict", "mood", "--file", mood.write("r.csv", "words\ncake\n"), "--out", "-")
    assert "text: is missing" in line


def test_an_unknown_model_or_version_is_told(mood: Shop) -> None:
    path = mood.write("rows.csv", "text\ncake\n")
    assert "no such model" in mood.refused("predict", "other", "--file", path, "--out", "-")
    assert "no such" in mood.refused(
        "predict", "mood", "--file", path, "--out", "-", "--version", "v-000000000000"
    )


def test_evaluate_scores_a_labelled_file(mood: Shop) -> None:
    path = mood.write("more.csv", rows(500, 40) + "cake gift,sad\n")
    found = mood.call("evaluate", "mood", "--file", path, "--json").json
    assert found["metrics"]["n"] == 41
    assert found["metrics"]["accuracy"] == pytest.approx(40 / 41)
    table = mood.call("evaluate", "mood", "--file", path).out
    assert f"{40 / 41:.4f}" in table
    low, high = found["metrics"]["ci"]["accuracy"]
    assert f"{low:.4f} to {high:.4f}" in table


def test_a_bad_spec_tells_every_problem_in_one_line(shop: Shop) -> None:
    spec = shop.write("spec.toml", SPEC.replace('kind = "text"', 'kind = "words"').replace("logistic", "magic"))
    line = shop.refused("train", spec, "--data", shop.write("mood.csv", rows(0, 20)))
    assert "columns.text.kind" in line


def test_data_that_cannot_be_learnt_from_is_refused_and_nothing_is_published(shop: Shop) -> None:
    one_class = rows(0, 40, names=("glad", "glad"))
    line = shop.refused("train", shop.write("spec.toml", SPEC), "--data", shop.write("mood.csv", one_class))
    assert "class" in line
    assert json.loads(shop.call("models", "list", "--json").out) == []
