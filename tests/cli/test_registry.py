"""`polysky models`, `token`, `upload`, `jobs` and `worker`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from core.auth import Verifier
from core.local_store import LocalStore
from core.reader import open_reader
from core.store import Entry
from handlers_onprem.watch import sole_worker
from tests.cli.shop import Shop
from tests.mood import SPEC, rows


@pytest.fixture
def two(mood: Shop) -> Shop:
    """A store with two versions of mood, both of which have served."""
    mood.train(SPEC, mood.write("more.csv", rows(0, 200)))
    return mood


def versions(shop: Shop) -> list[str]:
    return [view["version"] for view in shop.call("models", "show", "mood", "--json").json]


def test_list_tells_what_serves(two: Shop) -> None:
    (found,) = two.call("models", "list", "--json").json
    assert (found["model"], found["versions"], found["production"]) == ("mood", 2, versions(two)[0])
    assert found["metrics"]["accuracy"] == 1.0
    assert versions(two)[0] in two.call("models", "list").out


def test_show_tells_versions_aliases_and_verdicts(two: Shop) -> None:
    new, old = two.call("models", "show", "mood", "--json").json
    assert (new["aliases"], old["aliases"]) == (["production"], ["previous"])
    assert new["gate"]["passed"]
    lines = two.call("models", "show", "mood").out.splitlines()
    assert lines[0].split() == ["version", "created", "aliases", "metrics", "size", "gate"]
    assert lines[1].startswith(new["version"])
    assert "passed" in lines[1]


def test_rollback_and_promote_move_production_and_the_history_tells_who_and_why(two: Shop) -> None:
    new, old = versions(two)
    assert two.call("models", "rollback", "mood", "--reason", "complaints", "--json").json == {
        "model": "mood",
        "alias": "production",
        "version": old,
        "rev": 3,
    }
    assert two.call("models", "promote", "mood", new).out == f"mood: production → {new}\n"
    found = two.call("models", "history", "mood", "--json").json
    assert [entry["op"] for entry in found["entries"][:2]] == ["alias", "alias"]
    assert found["entries"][1]["reason"] == "complaints"
    assert found["entries"][1]["actor"].startswith("cli")
    assert found["aliases"]["production"] == {"rev": 4, "points_to": new}
    table = two.call("models", "history", "mood", "--limit", "2").out
    assert "complaints" in table
    assert f"production → {new} (revision 4)" in table


def test_training_on_known_data_tells_where_its_version_is_now(two: Shop) -> None:
    spec, data = two.write("spec.toml", SPEC), two.write("mood.csv", rows(0, 120))
    assert two.call("train", spec, "--data", data, "--json").json["alias"] == "previous"
    two.train(SPEC, two.write("third.csv", rows(0, 250)))
    found = two.call("train", spec, "--data", data, "--json").json
    assert (found["version"], found["alias"]) == (versions(two)[-1], None)
    assert "a later version took its place" in two.call("train", spec, "--data", data).out


def test_history_at_a_time_tells_where_the_aliases_pointed_then(two: Shop) -> None:
    new, old = versions(two)
    before = two.call("models", "history", "mood", "--json").json["entries"][0]["ts"]
    two.call("models", "rollback", "mood")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before + 1))
    found = two.call("models", "history", "mood", "--at", at, "--json").json
    now = two.call("models", "history", "mood", "--json").json
    assert now["aliases"]["production"]["points_to"] == old
    assert found["aliases"]["production"]["points_to"] in {new, old}
    assert "--at must be a time" in two.refused("models", "history", "mood", "--at", "yesterday")


def test_a_version_in_use_cannot_be_retired_others_can(two: Shop) -> None:
    new, old = versions(two)
    assert "an alias points to" in two.refused("models", "retire", "mood", new, code=1)
    two.call("models", "promote", "mood", new, "--alias", "canary")
    two.train(SPEC, two.write("most.csv", rows(0, 300)))
    assert two.call("models", "retire", "mood", old).out == f"mood: {old} is retired\n"
    assert "retired" in two.call("models", "show", "mood").out


def test_verify_tells_a_sound_log_from_a_broken_one(two: Shop) -> None:
    assert "log entries are sound" in two.call("models", "verify", "mood").out
    entry = two.store / "reg" / "mood" / "log" / "000000000001.json"
    entry.write_bytes(entry.read_bytes().replace(b"publish", b"publisH"))
    assert "broken at entry" in two.refused("models", "verify", "mood", code=1)


def test_a_broken_log_is_named_and_hides_no_other_model(mood: Shop) -> None:
    mood.train(SPEC.replace('"mood"', '"other"'), mood.write("other.csv", rows(0, 120)))
    entry = mood.store / "reg" / "mood" / "log" / "000000000001.json"
    entry.write_bytes(entry.read_bytes().replace(b"publish", b"publisH"))
    for command in ("models", "jobs"):
        done = mood.run(command, "list", "--json", "--store", str(mood.store))
        assert (done.code, {item["model"] for item in done.json}) == (1, {"other"})
        assert "the log of mood is broken" in done.err
    assert mood.refused("models", "show", "mood", code=1).startswith("polysky: mood: the log is broken")


def test_waiting_files_are_listed_once_however_many_there_are(mood: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        mood.call("upload", "mood", mood.write(f"{index}.csv", rows(index, 3)))
    looks: list[str] = []
    walk = LocalStore.list

    def counted(store: LocalStore, prefix: str) -> Iterator[Entry]:
        looks.append(prefix)
        return walk(store, prefix)

    monkeypatch.setattr(LocalStore, "list", counted)
    jobs = mood.call("jobs", "list", "mood", "--json").json
    assert sorted(job["status"] for job in jobs) == ["queued"] * 5 + ["succeeded"]
    assert looks.count("uploads/mood/") == 1


def test_verify_mends_an_alias_document_that_lags(two: Shop) -> None:
    (two.store / "reg" / "mood" / "alias" / "production.json").unlink()
    assert "mended alias documents: production" in two.call("models", "verify", "mood").out


def test_collect_removes_nothing_that_is_needed(two: Shop) -> None:
    assert two.call("models", "collect", "mood").out.startswith("mood: 0 objects deleted")


@pytest.mark.parametrize("command", [["show"], ["history"], ["rollback"], ["verify"], ["collect"]])
def test_an_unknown_model_is_named_as_such(command: list[str], shop: Shop) -> None:
    assert "no such model" in shop.refused("models", *command, "nobody")


def test_a_token_is_printed_once_and_works_until_revoked(shop: Shop) -> None:
    found = shop.call("token", "create", "--role", "trainer", "--label", "ci", "--days", "2", "--json").json
    assert (found["role"], found["label"]) == ("trainer", "ci")
    assert found["expires"] - found["created"] == 2 * 86_400
    stored = b"".join(path.read_bytes() for path in shop.store.rglob("*") if path.is_file())
    assert found["token"].encode() not in stored

    def actor() -> str:
        reader = open_reader(str(shop.store))
        return Verifier(reader, clock=time.time).authenticate({"authorization": f"Bearer {found['token']}"}).label

    assert actor() == "ci"
    (listed,) = shop.call("token", "list", "--json").json
    assert listed["kid"] == found["kid"]
    assert found["kid"] in shop.call("token", "list").out
    assert shop.call("token", "revoke", found["kid"]).out == f"revoked {found['kid']}\n"
    with pytest.raises(Exception, match="not valid"):
        actor()


def test_a_plain_token_is_the_only_thing_on_stdout(shop: Shop) -> None:
    done = shop.call("token", "create", "--role", "predictor", "--model", "mood")
    assert done.out.startswith("polysky_")
    assert done.out.count("\n") == 1
    (listed,) = shop.call("token", "list", "--json").json
    assert listed["models"] == ["mood"]


def test_an_upload_becomes_one_job_and_one_version_however_often_it_is_sent(
    mood: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSKY_MIN_UPLOAD_AGE_S", "0")
    path = mood.write("new data (1).csv", rows(1000, 40))
    first = mood.call("upload", "mood", path, "--json").json
    assert first["key"].endswith("-new-data-1-.csv")
    assert mood.call("upload", "mood", path, "--json").json == first
    assert mood.call("jobs", "show", first["job_id"], "--json").json["status"] == "queued"
    (done,) = mood.call("worker", "--json").json
    assert done["status"] == "promoted"
    assert done["job_id"] == first["job_id"]
    assert mood.call("worker", "--json").json == []
    shown = mood.call("jobs", "show", done["job_id"], "--json").json
    assert (shown["status"], shown["version"], shown["gate"]["passed"]) == ("succeeded", done["version"], True)
    assert done["version"] in mood.call("jobs", "show", done["job_id"]).out
    assert done["version"] in mood.call("jobs", "list").out


def test_a_bad_upload_is_rejected_with_its_problems(mood: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSKY_MIN_UPLOAD_AGE_S", "0")
    mood.call("upload", "mood", mood.write("bad.csv", "text,label\ncake,glad\nrain\n"))
    table = mood.call("worker").out
    assert "rejected" in table
    assert "rejected" in mood.call("jobs", "list").out


def test_an_upload_to_a_misspelt_model_is_refused_and_leaves_nothing(mood: Shop) -> None:
    file = mood.write("more.csv", rows(0, 10))
    assert "there is no model moood: did you mean mood?" in mood.refused("upload", "moood", file)
    assert "there is no model prices: train it first" in mood.refused("upload", "prices", file)
    assert not (mood.store / "uploads" / "moood").exists()


def test_a_list_of_a_store_that_is_not_there_says_so(shop: Shop) -> None:
    for group in ("models", "jobs"):
        done = shop.call(group, "list", "--json")
        assert (done.json, "there is no store at" in done.err) == ([], True)
    assert not shop.store.exists()


@pytest.mark.parametrize("store", ["s3:bucket", "s3//bucket", "S3:/bucket", "file:/folder", "ftp://host/x"])
def test_a_misspelt_store_url_is_no_folder(store: str, shop: Shop) -> None:
    done = shop.run("models", "list", "--store", store)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "s3://bucket" in done.err


def test_an_upload_over_the_limit_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSKY_MAX_DATA_BYTES", "1024")
    assert "limit of 1024 bytes" in shop.refused("upload", "mood", shop.write("big.csv", "x" * 2000))


def test_an_unknown_job_is_told(mood: Shop) -> None:
    assert "no such job" in mood.refused("jobs", "show", "mood.0123456789abcdef")


def test_two_job_workers_do_not_share_a_store(mood: Shop) -> None:
    with sole_worker(str(mood.store)):
        assert "another worker" in mood.refused("worker", code=1)


def test_json_is_the_only_thing_on_stdout(two: Shop) -> None:
    for command in (["models", "list"], ["models", "history", "mood"], ["jobs", "list"], ["token", "list"]):
        json.loads(two.call(*command, "--json").out)
