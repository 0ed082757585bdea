"""`polysky backup` and `polysky restore`, between folders and S3."""

from __future__ import annotations

import pytest

from tests.cli.shop import Shop
from tests.emulators.emulator import Emulator


def test_a_backup_in_s3_is_restored_into_another_folder_and_predicts(
    mood: Shop, moto: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    bucket, other = f"{moto.new_store_url()}/backups/monday", str(mood.folder / "other")
    told = mood.call("backup", "--to", bucket, "--json").json
    assert (told["models"], told["artifacts"], told["to"]) == (1, 3, bucket)
    assert "0 objects are new" in mood.call("backup", "--to", bucket).out
    done = mood.run("restore", "--from", bucket, "--store", other)
    assert done.code == 0, done.err
    assert mood.call("models", "history", "mood", "--json").json == (
        mood.run("models", "history", "mood", "--json", "--store", other).json
    )
    ask = mood.write("ask.csv", "text\ncake and a gift\n")
    predicted = mood.run("predict", "mood", "--file", str(ask), "--out", "-", "--store", other)
    assert "glad" in predicted.out, predicted


def test_a_store_that_is_not_there_or_is_the_target_is_refused(mood: Shop) -> None:
    assert "cannot be copied onto itself" in mood.refused("backup", "--to", f"{mood.store}/")
    assert "there is no store at /nowhere" in mood.refused("restore", "--from", "/nowhere")


def test_a_restore_over_another_registry_is_refused(mood: Shop) -> None:
    copy = str(mood.folder / "copy")
    mood.call("backup", "--to", copy)
    mood.call(
        "models", "rollback", "mood", "--to", mood.call("models", "show", "mood", "--json").json[0]["version"]
    )
    assert "a history of its own of mood" in mood.refused("restore", "--from", copy, code=1)


def test_a_store_that_refuses_is_told_with_what_tells_more(
    mood: Shop, moto: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.env().items():
        monkeypatch.setenv(name, value)
    line = mood.refused("backup", "--to", "s3://nobody-made-it", code=1)
    assert "`polysky doctor --store s3://nobody-made-it` tells why; run the same command again" in line
