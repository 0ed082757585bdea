"""`polysky doctor` on real stores: a folder, the emulators, an emulator that lies, and stores that are none."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from core.doctor import PREFIX
from core.local_store import LocalStore
from tests.cli.shop import Shop
from tests.emulators.emulator import Emulator
from tests.emulators.gcs import lying

SECRET = "aHVudGVyMg=="
CLOUDS = ["moto", "gcs", "azurite"]


@pytest.fixture
def enter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Emulator]:
    """Return a function that leads the command to the emulator of this name."""

    def lead(name: str) -> Emulator:
        emulator: Emulator = request.getfixturevalue(name)
        for variable, value in emulator.env().items():
            monkeypatch.setenv(variable, value)
        return emulator

    return lead


def test_a_folder_is_examined_and_left_as_it_was(shop: Shop) -> None:
    LocalStore(str(shop.store)).put("uploads/m/mine.csv", b"mine")
    lines = shop.call("doctor").out.splitlines()
    assert lines[0].split() == ["check", "result", "what", "was", "seen"]
    assert len(lines) == 14
    assert all(" ok " in line for line in lines[1:])
    assert sorted(os.listdir(shop.store)) == [".tmp", "uploads"]


def test_json_tells_the_same(shop: Shop) -> None:
    told = shop.call("doctor", "--json", "--keys", "3").json
    assert (told["ok"], told["verdict"]) == (True, "the store is sound")
    assert {"name": "list", "ok": True, "detail": "3 keys, in order and up to date"} in told["findings"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_clouds_store_is_sound(shop: Shop, enter: Callable[[str], Emulator], cloud: str) -> None:
    emulator = enter(cloud)
    url = emulator.new_store_url() + "/team/a"
    emulator.upload(url, "uploads/m/mine.csv", b"mine")
    done = shop.run("doctor", "--store", url, "--json")
    assert (done.code, done.err) == (0, "")
    assert [found for found in done.json["findings"] if not found["ok"]] == []
    assert [entry.key for entry in emulator.open(url).list("")] == ["uploads/m/mine.csv"]


def test_an_emulator_that_ignores_conditions_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with lying() as emulator:
        for variable, value in emulator.env().items():
            monkeypatch.setenv(variable, value)
        url = emulator.new_store_url()
        done = shop.run("doctor", "--store", url)
        assert done.code == 1
        assert done.err == "polysky: the store does not honour conditional writes\n"
        assert "create once" in done.out
        assert "a second create is accepted" in done.out
        assert [entry.key for entry in emulator.open(url).list(PREFIX)] == []


@pytest.mark.parametrize(
    ("cloud", "url", "setting"),
    [
        ("moto", "s3://nobodys-bucket", "AWS_ACCESS_KEY_ID"),
        ("gcs", "gs://nobodys-bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("azurite", "az://nobodys-container", "AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_a_bucket_that_is_not_there_is_told_by_the_settings_to_check(
    shop: Shop, enter: Callable[[str], Emulator], cloud: str, url: str, setting: str
) -> None:
    enter(cloud)
    told = refused(shop, url)
    assert "does not exist" in told
    assert "POLYSKY_STORE" in told
    assert setting in told
    assert "nobodys" not in told


def test_wrong_credentials_are_told_by_their_settings(
    shop: Shop, enter: Callable[[str], Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = enter("azurite").new_store_url()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
    told = refused(shop, url)
    assert "the store refused" in told
    assert "AZURE_STORAGE_ACCOUNT_KEY" in told


def test_absent_credentials_are_told_by_their_settings(
    shop: Shop, enter: Callable[[str], Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = enter("moto").new_store_url()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    told = refused(shop, url)
    assert "there are no credentials" in told
    assert "AWS_ACCESS_KEY_ID" in told


def test_a_store_out_of_reach_is_told_by_the_settings_of_its_address(
    shop: Shop, enter: Callable[[str], Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("moto")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    told = refused(shop, "s3://bucket")
    assert "AWS_ENDPOINT_URL" in told
    assert "127.0.0.1" not in told


@pytest.mark.parametrize(
    ("url", "variables", "setting"),
    [
        ("ftp://x", {}, "POLYSKY_STORE"),
        ("s3://", {}, "POLYSKY_STORE"),
        (
            "gs://bucket",
            {"GOOGLE_APPLICATION_CREDENTIALS": f"/nowhere/{SECRET}"},
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        ("az://container", {}, "AZURE_STORAGE_ACCOUNT_NAME"),
        (
            "az://container",
            {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": SECRET + "!"},
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], setting: str
) -> None:
    for name in (*os.environ,):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = refused(shop, url, code=2)
    assert setting in told


def refused(shop: Shop, url: str, code: int = 1) -> str:
    """Return the one line that the doctor fails with; it holds no secret."""
    done = shop.run("doctor", "--store", url)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("polysky: ")
    assert done.err.count("\n") == 1
    assert SECRET not in done.err
    return done.err
