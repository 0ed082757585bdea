"""The soak at its smallest, and its judges with planted faults."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.local_store import LocalStore
from core.state import Move, Split
from scripts.demo.stage import environment
from scripts.soak.clients import PREVIOUS, PRODUCTION, Reply, Tally
from scripts.soak.disk import BadDisk, Switch
from scripts.soak.field import MODEL, open_registry, truth
from scripts.soak.machine import Machine
from scripts.soak.operations import Pace
from scripts.soak.run import Plan, machine_goals, soak, table
from scripts.soak.verdict import Goal, Outage, goals, growth, stale
from tests.core.house import House, text_model

NEVER = Outage(0.0, 0.0, 0.0)
PLAN = Plan(duration_s=6, down_at_s=3, down_s=1, pace=Pace(0.2, 1.5))
ASK_DISK = """
import sys
from core.local_store import LocalStore
from core.errors import Transient
store, failed = LocalStore(sys.argv[1]), 0
for number in range(200):
    try:
        store.put(f"a/{number}", b"1")
    except Transient:
        failed += 1
print(failed)
"""


def test_a_busy_server_on_a_bad_disk_answers_all_and_loses_nothing(tmp_path: Path) -> None:
    found, story = soak(PLAN, tmp_path)
    assert [goal for goal in found if goal.violations] == [], (table(found), story)
    sizes = {goal.name: goal.size for goal in found}
    assert sizes["warm predictions answered"] > 200
    assert min(sizes["accepted uploads with an outcome"], sizes["acknowledged moves in the log"]) > 0


def test_a_plan_of_thirty_minutes_has_two_minutes_of_outage() -> None:
    plan = Plan.of(1800)
    assert (plan.down_at_s, plan.down_s) == (900, 120)


# --- the disk


@pytest.fixture
def disk(tmp_path: Path) -> BadDisk:
    (tmp_path / "control").mkdir()
    return BadDisk(str(tmp_path / "store"), str(tmp_path / "control"), 1.0, 0)


@pytest.mark.parametrize(
    ("event", "path"),
    [("open", "store"), ("open", "name"), ("os.link", "a"), ("os.rename", "a"), ("os.remove", "a")],
)
def test_a_bad_disk_fails_what_the_store_does(disk: BadDisk, tmp_path: Path, event: str, path: str) -> None:
    path = str(tmp_path / path) if path == "store" else path
    with pytest.raises(OSError, match="the disk failed") as caught:
        disk.hear(event, (path, None, os.O_RDONLY))
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("name", "r", 0)),
        ("open", ("/etc/hosts", None, 0)),
        ("import", ("name", None)),
        ("open", (3, None, 0)),
    ],
)
def test_a_bad_disk_leaves_everything_else_alone(disk: BadDisk, event: str, arguments: tuple[object, ...]) -> None:
    disk.hear(event, arguments)


def test_a_process_started_with_the_switch_meets_its_disk(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "control", tmp_path / "store", rate=0.01, seed=3)
    line = [sys.executable, "-c", ASK_DISK, str(tmp_path / "store")]

    def failed() -> int:
        env = switch.env(environment(tmp_path / "store"))
        return int(subprocess.run(line, env=env, check=True, capture_output=True, text=True).stdout)

    assert 0 < failed() < 100
    switch.take_down()
    assert failed() == 200
    switch.bring_up()
    by_chance, by_outage = switch.faults()
    assert (0 < by_chance < 150, by_outage) == (True, 200)
    # what was refused may be there: some acknowledgements are lost
    assert 0 < sum(1 for _ in LocalStore(str(tmp_path / "store")).list("a/")) <= 200


# --- the judges


def move(at: float, *versions: str) -> Move:
    return Move(0, at, PRODUCTION, tuple(Split(version, 50) for version in versions))


def test_a_version_that_answers_long_after_its_time_is_found() -> None:
    moves = [move(0, "a"), move(1000, "b")]
    assert stale({("a", 1010)}, moves, NEVER) == (10, [])
    assert stale({("a", 1100)}, moves, NEVER)[1] == ["a answered 100 s after it had lost production"]


def test_a_version_that_answers_before_its_time_or_without_one_is_found() -> None:
    moves = [move(0, "a"), move(1000, "b")]
    assert stale({("b", 990)}, moves, NEVER)[1]
    assert stale({("c", 990)}, moves, NEVER)[1]


def test_both_versions_of_a_canary_may_answer() -> None:
    assert stale({("a", 1100), ("b", 1100)}, [move(0, "a"), move(1000, "a", "b")], NEVER) == (0, [])


def test_nobody_can_follow_a_move_while_the_disk_is_down() -> None:
    moves = [move(0, "a"), move(1000, "b")]
    assert stale({("a", 1110)}, moves, Outage(1000, 1100, 0))[1] == []
    assert stale({("a", 1160)}, moves, Outage(1000, 1100, 0))[1]


def test_memory_that_grows_by_a_twentieth_is_a_violation_in_a_long_run_only() -> None:
    assert growth(100_000, 104_900, 1800).violations == 0
    assert growth(100_000, 105_000, 1800).violations == 1
    assert growth(100_000, 150_000, 60).violations == 0


def test_an_answer_under_two_names_and_one_that_is_none_are_counted() -> None:
    tally = Tally()
    body = b'{"model":"soak","version":"v-1","request_id":"x","predictions":[{"label":"glad"}]}'
    tally.note(PRODUCTION, 0, Reply(200, {"x-model-version": "v-2"}, body))
    tally.note(PREVIOUS, 0, Reply(503, {}, b"{}"))
    assert (tally.mislabelled, len(tally.errors)) == (1, 1)
    assert tally.answers == {("v-1", 0, b'[{"label":"glad"}]}'): 1}


class Told:
    """What clients and operators of a store with two versions were told: all of it true, until a test lies."""

    def __init__(self, folder: Path) -> None:
        self.store, self.house = folder, House(store=LocalStore(str(folder), fsync=False))
        self.versions = [self.house.publish(MODEL, text_model(flip)) for flip in (0, 4)]
        second = int(self.house.clock.now)
        self.tally = Tally()
        self.tally.seen = {(version, second) for version in self.versions}
        self.tally.answers = Counter(
            (version, question, numbers)
            for version in self.versions
            for question, numbers in enumerate(truth(folder, version))
        )
        self.tally.statuses[PRODUCTION, 200] = sum(self.tally.answers.values())
        moves = open_registry(folder).state(MODEL).moves
        moved = {rev: tuple(move.splits) for rev, move in enumerate((m for m in moves if m.name == PRODUCTION), 1)}
        self.done: Any = SimpleNamespace(moved=moved, answers=Counter({("promote", 200): 2}), wrong=[])

    def violated(self) -> list[str]:
        found = goals(self.tally, self.done, self.store, NEVER)
        return [goal.name for goal in found if goal.violations]


def swapped(told: Told) -> None:
    """Let one version answer in the other's name."""
    one, other = told.versions
    count = told.tally.answers.pop((one, 0, truth(told.store, one)[0]))
    told.tally.answers[one, 0, truth(told.store, other)[0]] = count


def twin(told: Told) -> None:
    """Publish the first version again, and let it answer too."""
    version = told.house.publish(MODEL, text_model())
    told.tally.answers[version, 0, truth(told.store, version)[0]] = 1


LIES: dict[str, Callable[[Told], object]] = {
    "warm predictions answered": lambda told: told.tally.errors.append("503"),
    "answers exactly those of the version they name": swapped,
    "versions that can be told apart": twin,
    "versions after they lost production": lambda told: told.tally.seen.add(("v-0", 1)),
    "acknowledged moves in the log": lambda told: told.done.moved.update({1: told.done.moved[2]}),
    "operators' calls": lambda told: told.done.answers.update({("read", 500): 1}),
}


@pytest.mark.parametrize("goal", LIES)
def test_each_goal_is_missed_when_its_promise_is_broken(goal: str, tmp_path: Path) -> None:
    told = Told(tmp_path)
    assert told.violated() == []
    LIES[goal](told)
    assert goal in told.violated()


def test_a_machine_that_loses_a_process_or_tells_its_token_is_noticed(tmp_path: Path) -> None:
    log, token = tmp_path / "server.log", "polysky_kid_secret_check"
    faults = [(1, 1)]
    server: Any = SimpleNamespace(token=token)
    disk: Any = SimpleNamespace(faults=lambda: faults[-1])

    def violated(*lines: str) -> list[str]:
        log.write_text("".join(f"{line}\n" for line in lines))
        on = Machine(server, tmp_path, log, disk)
        return [goal.name for goal in machine_goals(on) if goal.violations]

    sound = json.dumps({"event": "request", "actor": "kid"})
    assert violated(sound) == []
    assert violated(sound, json.dumps({"event": "child_ended"})) == ["processes that ended by themselves"]
    assert violated(json.dumps({"event": "request", "path": token})) == ["log lines with the token"]
    faults.append((1, 0))
    assert violated(sound) == ["the disk did fail"]


def test_the_table_tells_size_and_violations() -> None:
    lines = table([Goal("a", 10, 0), Goal("longer", 2, 1, "why")]).splitlines()
    assert [line.split() for line in lines] == [
        ["goal", "size", "violations"],
        ["a", "10", "0"],
        ["longer", "2", "1", "why"],
    ]
