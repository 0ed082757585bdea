"""The judge of histories against logs that are wrong in one way each: every rule is seen to be broken."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.store import MemoryStore
from tests.faults.auditor import Violation, audit

MODEL = "m"
Entry = dict[str, Any]


class Story:
    """What a store holds: a sound log, until a test spoils it, bytes, and documents as they were written."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.acked, self.claimed = ["op-1", "op-9"], [("a", 1), ("c", 2)]
        self.log: list[Entry] = [
            self.claim("a", 1),
            self.publish("a", 1),
            self.alias("production", 0, "v-a"),
            self.claim("b", 1, covers={"d": [1, "uploads/m/d"]}),
            self.publish("b", 1, covers={"d": 1}),
            self.alias("production", 1, "v-b"),
            self.claim("c", 1),
            {"op": "note", "src": "c", "attempt": 1},
            self.claim("c", 2),
            {"op": "reject", "src": "c", "attempt": 2},
            self.claim("e", 1),
            self.publish("e", 1),
            {"op": "retire", "version": "v-e"},
        ]
        self.documents: list[Entry] = [
            self.document("v-a", 1, "v-a"),
            self.document("production", 1, "v-a"),
            self.document("production", 2, "v-b"),
            self.document("v-e", 2),
        ]

    def claim(self, src: str, attempt: int, **more: Any) -> Entry:
        return {"op": "claim", "src": src, "attempt": attempt, "key": f"uploads/m/{src}", **more}

    def publish(self, src: str, attempt: int, **more: Any) -> Entry:
        """Return the entry, its bytes being in the store."""
        keys = []
        for data in (f"model {src}", f"rows {src}"):
            sha256 = hashlib.sha256(data.encode()).hexdigest()
            keys.append((f"reg/m/art/{src}/{attempt}/{sha256}", sha256))
            self.store.put(keys[-1][0], data.encode())
        parts = [{"key": keys[1][0], "sha256": keys[1][1]}]
        told = {"op": "publish", "src": src, "attempt": attempt, "version": f"v-{src}"}
        return {**told, "artifact_key": keys[0][0], "parts": parts, **more}

    def alias(self, name: str, rev: int, *versions: str, weight: int = 100) -> Entry:
        splits = [{"version": version, "weight": weight} for version in versions]
        return {"op": "alias", "name": name, "expect_rev": rev, "splits": splits}

    def document(self, ref: str, rev: int, *versions: str, weight: int = 100) -> Entry:
        splits = [{"version": version, "weight": weight} for version in versions]
        return {"ref": ref, "rev": rev, "splits": splits}

    def judge(self, spoil: Callable[[], object] = lambda: None) -> Entry:
        """Write it all down and have it judged; `spoil` acts on the store just before."""
        previous = "0" * 64
        for n, entry in enumerate(self.log):
            body = json.dumps({"op_id": f"op-{n}", "n": n, "prev": previous} | entry).encode()
            self.store.put(f"reg/m/log/{n:012d}.json", body)
            previous = hashlib.sha256(body).hexdigest()
        spoil()
        written = [
            (f"reg/m/alias/{document['ref']}.json", json.dumps(document).encode()) for document in self.documents
        ]
        return audit(self.store, MODEL, acked=self.acked, claimed=self.claimed, documents=written)


def lose(story: Story, *, part: bool = False) -> None:
    entry = story.log[1]
    story.store.delete(entry["parts"][0]["key"] if part else entry["artifact_key"])


def rot(story: Story, *, part: bool = False) -> None:
    entry = story.log[1]
    story.store.put(entry["parts"][0]["key"] if part else entry["artifact_key"], b"other bytes")


def say(index: int, **fields: Any) -> Callable[[Story], object]:
    return lambda story: story.log[index].update(fields)


def add(make: Callable[[Story], Entry]) -> Callable[[Story], object]:
    return lambda story: story.log.append(make(story))


def write(make: Callable[[Story], Entry]) -> Callable[[Story], object]:
    return lambda story: story.documents.append(make(story))


def retire_in_use(story: Story) -> None:
    story.log.append({"op": "retire", "version": "v-b"})


BAD: list[tuple[str, Callable[[Story], object]]] = [
    ("I3 an operation stands twice", say(3, op_id="op-2")),
    ("I3 acknowledged operation", lambda story: story.acked.append("op-99")),
    ("I3 acknowledged claim", lambda story: story.claimed.append(("a", 2))),
    ("I2 the chain breaks at", say(4, prev="f" * 64)),
    ("I2 the chain breaks at", say(4, n=5)),
    ("I5 a finished source was claimed", add(lambda story: story.claim("a", 2))),
    ("I5 a finished source was claimed", add(lambda story: story.claim("f", 1, covers={"d": [2, "k"]}))),
    ("I6 an attempt is not the count of claims", say(8, attempt=3)),
    ("I6 an attempt is not the count of claims", say(3, covers={"d": [2, "k"]})),
    ("I5 a source has two outcomes", add(lambda story: {"op": "reject", "src": "a", "attempt": 1})),
    ("I5 a source has two outcomes", add(lambda story: {"op": "park", "src": "d", "attempt": 1})),
    ("I6 a fenced attempt gave an outcome", say(9, attempt=1)),
    ("I6 a fenced attempt gave an outcome", say(4, covers={"d": 2})),
    ("I5 a finished source is worked on", add(lambda story: {"op": "note", "src": "d", "attempt": 1})),
    ("I6 a fenced attempt gave up a lease", say(7, attempt=0)),
    ("I5 a version was published twice", say(4, version="v-a")),
    ("I4 previous was moved by hand", add(lambda story: story.alias("previous", 1, "v-a"))),
    ("I4 an alias points nowhere, or twice", add(lambda story: story.alias("staging", 0))),
    ("I4 an alias points nowhere, or twice", add(lambda story: story.alias("staging", 0, "v-a", "v-a"))),
    ("I4 a weight is not positive", add(lambda story: story.alias("staging", 0, "v-a", weight=0))),
    ("I7 a move was made from an old revision", say(5, expect_rev=0)),
    ("I7 a move was made from an old revision", say(5, expect_rev=2)),
    ("I4 an alias to nowhere", add(lambda story: story.alias("staging", 0, "v-x"))),
    ("I4 an alias to nowhere", add(lambda story: story.alias("staging", 0, "v-e"))),
    ("points to a retired version", retire_in_use),
    ("points to a retired version", add(lambda story: {"op": "retire", "version": "v-a"})),  # previous has it
    ("I4 an unknown version was retired", add(lambda story: {"op": "retire", "version": "v-x"})),
    ("I4 a version was retired twice", add(lambda story: {"op": "retire", "version": "v-e"})),
    ("went back", write(lambda story: story.document("production", 1, "v-a"))),
    ("is ahead of the log", write(lambda story: story.document("production", 3, "v-a"))),
    ("tells another story", write(lambda story: story.document("production", 2, "v-a"))),
    ("tells another story", write(lambda story: story.document("production", 2, "v-b", weight=50))),
    ("which the log does not know", write(lambda story: story.document("v-x", 1, "v-x"))),
    ("tells another story", write(lambda story: story.document("v-b", 1, "v-a"))),
]
SPOILT: list[tuple[str, Callable[[Story], object]]] = [
    ("I1 the numbers have a gap", lambda story: story.store.delete("reg/m/log/000000000004.json")),
    ("I1 the numbers have a gap", lambda story: story.store.delete("reg/m/log/000000000000.json")),
    ("are gone", lose),
    ("are gone", lambda story: lose(story, part=True)),
    ("are wrong", rot),
    ("are wrong", lambda story: rot(story, part=True)),
]


def test_a_sound_log_is_accepted_and_added_up() -> None:
    facts = Story().judge()
    assert facts["outcome"] == {"a": "publish", "b": "publish", "d": "publish", "c": "reject", "e": "publish"}
    assert facts["aliases"] == {"production": [("v-b", 100)], "previous": [("v-a", 100)]}
    assert (facts["retired"], facts["claims"]["c"], facts["covered"]) == ({"v-e"}, 2, 1)


@pytest.mark.parametrize(("said", "break_it"), BAD)
def test_a_log_that_breaks_one_rule_is_refused(said: str, break_it: Callable[[Story], object]) -> None:
    story = Story()
    break_it(story)
    with pytest.raises(Violation, match=said):
        story.judge()


@pytest.mark.parametrize(("said", "spoil"), SPOILT)
def test_a_store_that_lost_or_changed_something_is_refused(said: str, spoil: Callable[[Story], object]) -> None:
    story = Story()
    with pytest.raises(Violation, match=said):
        story.judge(lambda: spoil(story))


def test_bytes_of_retired_versions_may_be_gone() -> None:
    story = Story()
    story.judge(lambda: story.store.delete(story.log[11]["artifact_key"]))


def test_no_rule_of_the_judge_is_without_a_log_that_breaks_it() -> None:
    tree = ast.parse(Path(__file__).with_name("auditor.py").read_text())
    rules = [
        "".join(str(part.value) for part in ast.walk(call.args[1]) if isinstance(part, ast.Constant))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "_rule"
    ]
    assert len(rules) > 20
    broken = [said for said, _ in BAD + SPOILT]
    assert [rule for rule in rules if not any(said in rule for said in broken)] == []
