"""`polysky init`: a spec that trains as it is."""

from __future__ import annotations

from core.spec import load_spec
from tests.cli.shop import Shop, prices
from tests.mood import rows


def test_the_spec_of_init_trains_as_it_is(shop: Shop) -> None:
    data = shop.write("mood.csv", rows(0, 120))
    out = shop.folder / "mood.toml"
    done = shop.run("init", data, "--label", "label", "--name", "mood", "--out", str(out))
    assert (done.code, done.out) == (0, "")
    assert "classification of label from text (text)" in done.err
    spec = load_spec(str(out))
    assert (spec.name, spec.task, [column.kind for column in spec.columns]) == ("mood", "classification", ["text"])
    assert shop.call("train", str(out), "--data", data, "--json").json["model"] == "mood"


def test_an_edited_spec_is_kept_when_another_takes_its_place(shop: Shop) -> None:
    data, out = shop.write("mood.csv", rows(0, 60)), shop.folder / "mood.toml"
    arguments = ("init", data, "--label", "label", "--no-compare", "--out", str(out))
    assert "is kept in" not in shop.run(*arguments).err + shop.run(*arguments).err
    out.write_text("# my own rules\n")
    done = shop.run(*arguments)
    assert (done.code, f"kept in {out}.bak" in done.err) == (0, True)
    assert (shop.folder / "mood.toml.bak").read_text() == "# my own rules\n"
    assert load_spec(str(out)).name == "mood"


def test_a_registered_name_in_capitals_becomes_a_legal_one(shop: Shop) -> None:
    data = shop.write("prices.csv", prices(60))
    arguments = ("init", data, "--label", "price", "--name", "CaliforniaHousingBestModel", "--no-compare")
    done = shop.run(*arguments, "--out", "-")
    assert done.code == 0
    assert 'name = "california-housing-best-model"' in done.out
    assert 'task = "regression"' in done.out


def test_a_label_that_is_not_there_is_named_and_nothing_is_written(shop: Shop) -> None:
    out = shop.folder / "spec.toml"
    done = shop.run("init", shop.write("mood.csv", rows(0, 20)), "--label", "mood", "--out", str(out))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "there is no column mood; there are: text, label" in done.err
    assert not out.exists()
