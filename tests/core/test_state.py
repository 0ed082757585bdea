"""The fold: which entries are legal, whatever anybody writes, and what they add up to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Conflict
from core.fold import check, fold
from core.ledger import canonical, digest_of
from core.state import Split, State
from tests.core.ledgers import MODEL, alias, claim, publish, sha, src_of, version_of


def folded(*made: dict[str, Any], state: State | None = None) -> State:
    """Return the state after these entries."""
    state = state or State(MODEL)
    for entry in made:
        whole = enveloped(state, entry)
        fold(state, whole, digest_of(canonical(whole)))
    return state


def enveloped(state: State, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with an envelope that fits the state."""
    told = {"actor": "w", "role": "system", "reason": "", "ts": 1.0, "op_id": f"op-{state.head + 1}"}
    return {**told, "n": state.head + 1, "prev": state.hash, **entry}


def rule_of(state: State, entry: dict[str, Any]) -> Any:
    """Return which rule the entry breaks; the state must not change."""
    before = canonical(state.to_json())
    with pytest.raises(Conflict) as caught:
        fold(state, enveloped(state, entry), "0" * 64)
    assert canonical(state.to_json()) == before
    return caught.value.fields["rule"]


def part(name: str, attempt: int = 1, text: str = "data") -> dict[str, Any]:
    """Return a part under a source's own attempt."""
    return {"key": f"reg/m/art/{src_of(name)[:12]}/{attempt}/{sha(text)}", "sha256": sha(text)}


TWO = [claim("a"), publish("a"), claim("b"), publish("b")]


# --- sources


def test_a_claim_must_be_the_next_attempt_of_a_source_without_outcome() -> None:
    state = folded(claim("a"))
    assert rule_of(state, claim("a", 1)) == "attempt"
    assert rule_of(state, claim("a", 3)) == "attempt"
    folded(claim("a", 2), publish("a", 2), state=state)
    assert rule_of(state, claim("a", 3)) == "done"
    assert rule_of(State(MODEL), claim("a", 2)) == "attempt"


def test_no_clock_decides_whether_a_claim_is_legal() -> None:
    state = folded(claim("a", until=1e12))
    assert folded(claim("a", 2, until=-1e12), state=state).sources[src_of("a")].attempt == 2


@pytest.mark.parametrize("entry", [publish("a"), {"op": "park", "src": src_of("a"), "attempt": 1}])
def test_a_fenced_attempt_gives_no_outcome(entry: dict[str, Any]) -> None:
    state = folded(claim("a"), claim("a", 2))
    assert rule_of(state, entry) == "fenced"
    assert rule_of(State(MODEL), entry) == "unclaimed"


def test_a_source_has_one_outcome() -> None:
    state = folded(claim("a"), {"op": "reject", "src": src_of("a"), "attempt": 1, "reason": "schema"})
    assert rule_of(state, publish("a")) == "done"
    assert rule_of(state, {"op": "reject", "src": src_of("a"), "attempt": 1}) == "done"
    assert rule_of(state, {"op": "reject", "src": src_of("a"), "attempt": 0}) == "done"
    assert state.sources[src_of("a")].reason == "schema"
    assert not state.open


def test_an_unclaimed_source_can_be_rejected_once_and_never_claimed() -> None:
    entry = {"op": "reject", "src": src_of("a"), "attempt": 0, "reason": "gone", "key": "k", "kind": "upload"}
    state = folded(entry)
    assert rule_of(state, claim("a")) == "done"
    assert rule_of(state, entry) == "done"
    assert rule_of(State(MODEL), {**entry, "covers": {src_of("b"): 0}}) == "malformed"
    assert rule_of(State(MODEL), {**entry, "src": "short"}) == "malformed"
    assert rule_of(State(MODEL), {"op": "reject", "src": src_of("a"), "attempt": 0}) == "malformed"


def test_one_run_may_carry_many_sources() -> None:
    covers = {src_of("b"): [1, "uploads/m/b.csv"], src_of("c"): [1, "uploads/m/c.csv"]}
    state = folded(claim("a", covers=covers))
    assert state.sources[src_of("c")].key == "uploads/m/c.csv"
    folded(claim("c", 2), state=state)
    assert rule_of(state, publish("a", covers={src_of("b"): 1, src_of("c"): 1})) == "fenced"
    folded(publish("a", covers={src_of("b"): 1}), state=state)
    assert state.sources[src_of("b")].version == version_of("a")
    assert {src: source.status for src, source in state.sources.items()} == {
        src_of("a"): "published",
        src_of("b"): "published",
        src_of("c"): "claimed",
    }
    assert state.open == {src_of("a"), src_of("c")}


@pytest.mark.parametrize(
    "covers",
    [
        [],
        {src_of("a"): [1, "k"]},
        {src_of("b"): 1},
        {src_of("b"): [1]},
        {src_of("b"): [1, 2]},
        {"short": [1, "k"]},
        {f"{n:032x}": [1, "k"] for n in range(501)},
    ],
)
def test_a_malformed_cover_is_refused(covers: Any) -> None:
    assert rule_of(State(MODEL), claim("a", covers=covers)) == "malformed"


def test_true_is_no_attempt_number() -> None:
    assert rule_of(State(MODEL), claim("a", covers={src_of("b"): [True, "k"]})) == "attempt"
    assert rule_of(State(MODEL), claim("a", True)) == "malformed"


def test_a_note_can_give_up_a_lease_for_the_latest_attempt_only() -> None:
    note = {"op": "note", "src": src_of("a"), "attempt": 1, "until": 5.0, "reason": "timeout"}
    state = folded(claim("a", until=900.0), note)
    assert (state.sources[src_of("a")].until, state.sources[src_of("a")].reason) == (5.0, "timeout")
    folded(claim("a", 2), state=state)
    assert rule_of(state, note) == "fenced"
    assert rule_of(state, {"op": "note", "src": src_of("a"), "attempt": 2}) == "malformed"


# --- versions


def test_a_version_is_published_once_and_under_its_own_attempt() -> None:
    state = folded(claim("a"), claim("b"))
    other = publish("b")["artifact_key"]
    assert rule_of(state, publish("a", artifact_key=other)) == "malformed"
    assert rule_of(state, publish("a", version="latest")) == "malformed"
    assert rule_of(state, publish("a", manifest_sha256="abc")) == "malformed"
    assert rule_of(state, publish("a", parts=["x"])) == "malformed"
    assert rule_of(state, publish("a", parts=[{"key": "x"}])) == "malformed"
    folded(publish("a"), state=state)
    assert rule_of(state, publish("b", version=version_of("a"))) == "exists"


def test_a_part_must_be_its_own_or_of_an_unretired_version() -> None:
    state = folded(claim("a"), publish("a", parts=[part("a")]), claim("b"), claim("c"))
    assert rule_of(state, publish("b", parts=[part("c")])) == "part"
    folded(publish("b", parts=[part("a"), part("b")]), state=state)
    folded({"op": "retire", "version": version_of("a")}, state=state)
    check(state, enveloped(state, publish("c", parts=[part("a")])))
    folded({"op": "retire", "version": version_of("b")}, state=state)
    assert rule_of(state, publish("c", parts=[part("a")])) == "part"
    assert state.live_parts == {}


def test_a_version_in_use_is_not_retired() -> None:
    state = folded(*TWO, alias("production", "a", 0), alias("production", "b", 1))
    for name in ("a", "b"):
        assert rule_of(state, {"op": "retire", "version": version_of(name)}) == "in_use"
    assert rule_of(state, {"op": "retire", "version": "v-000000000000"}) == "version"


def test_a_retired_version_takes_no_alias_and_is_not_retired_again() -> None:
    state = folded(*TWO, {"op": "retire", "version": version_of("a")})
    assert rule_of(state, alias("staging", "a", 0)) == "version"
    assert rule_of(state, {"op": "retire", "version": version_of("a")}) == "version"
    assert state.open == {src_of("b")}


# --- aliases


def test_an_alias_moves_from_the_revision_that_it_has() -> None:
    state = folded(*TWO, alias("production", "a", 0))
    assert rule_of(state, alias("production", "b", 0)) == "stale_rev"
    assert rule_of(state, alias("production", "b", 2)) == "stale_rev"
    assert rule_of(state, alias("staging", "b", 1)) == "stale_rev"
    assert folded(alias("production", "b", 1), state=state).aliases["production"].rev == 2


def test_previous_follows_production_in_the_same_entry() -> None:
    state = folded(*TWO, alias("production", "a", 0))
    assert "previous" not in state.aliases
    folded(alias("production", "b", 1), state=state)
    assert state.aliases["previous"].splits == (Split(version_of("a"), 100),)
    assert state.aliases["previous"].n == state.aliases["production"].n
    folded(alias("production", "b", 2), alias("staging", "a", 0), state=state)
    assert state.aliases["previous"].rev == 1
    assert rule_of(state, alias("previous", "a", 1)) == "previous"


@pytest.mark.parametrize(
    ("splits", "rule"),
    [
        ([], "malformed"),
        (["v"], "malformed"),
        ([{"version": version_of("a")}], "malformed"),
        ([{"version": version_of("a"), "weight": 0}], "malformed"),
        ([{"version": version_of("a"), "weight": 0.5}], "malformed"),
        ([{"version": version_of("a"), "weight": 1}] * 2, "malformed"),
        ([{"version": f"v-{n:012d}", "weight": 1} for n in range(11)], "malformed"),
        ([{"version": "v-000000000000", "weight": 1}], "version"),
    ],
)
def test_malformed_splits_are_refused(splits: list[Any], rule: str) -> None:
    assert rule_of(folded(*TWO), {"op": "alias", "name": "x", "expect_rev": 0, "splits": splits}) == rule


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "..", "production\n", "a" * 64, "v-0123456789ab"])
def test_an_alias_has_a_legal_name_that_is_no_version_id(name: str) -> None:
    assert rule_of(folded(*TWO), alias(name, "a", 0)) == "malformed"


def test_a_verdict_is_kept_with_its_version_and_closes_its_source() -> None:
    state = folded(*TWO)
    assert state.open == {src_of("a"), src_of("b")}
    folded(alias("production", "a", 0, gate={"passed": True}), state=state)
    folded({"op": "note", "version": version_of("b"), "gate": {"passed": False}}, state=state)
    assert state.versions[version_of("a")].gate == {"passed": True}
    assert state.versions[version_of("b")].gate == {"passed": False}
    assert not state.open
    assert rule_of(state, {"op": "note", "gate": {"passed": True}}) == "version"
    assert rule_of(state, {"op": "note", "gate": {"version": ["x"]}}) == "version"
    assert rule_of(state, alias("staging", "a", 0, gate="yes")) == "malformed"


def test_an_alias_that_points_to_a_version_closes_its_source_without_a_verdict() -> None:
    assert folded(*TWO, alias("staging", "a", 0)).open == {src_of("b")}


# --- envelope, totality, checkpoints


def test_the_envelope_must_fit_the_head() -> None:
    state = folded(claim("a"))
    assert rule_of(state, {**claim("b"), "n": 5}) == "chain"
    assert rule_of(state, {**claim("b"), "prev": "1" * 64}) == "chain"
    assert rule_of(state, {**claim("b"), "op_id": "op-0"}) == "op_id"
    assert rule_of(state, {"op": "explode"}) == "malformed"
    assert rule_of(state, {**claim("b"), "actor": None}) == "malformed"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([src_of("a")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = [
    "op",
    "op_id",
    "src",
    "attempt",
    "until",
    "key",
    "kind",
    "covers",
    "version",
    "manifest_sha256",
    "parts",
]
_FIELDS += ["artifact_key", "size", "metrics", "name", "expect_rev", "splits", "gate", "reason", "n", "prev", "ts"]


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from([claim("c"), publish("a"), alias("production", "b", 0), {"op": "note"}, {"op": "park"}]),
    change=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=3),
)
def test_the_fold_is_total(base: dict[str, Any], change: dict[str, Any]) -> None:
    """Whatever stands in the log: it is legal, or it is refused with Conflict and nothing has changed."""
    state = folded(claim("a"), claim("b"), publish("b"))
    entry, before = enveloped(state, {**base, **change}), canonical(state.to_json())
    try:
        fold(state, entry, "0" * 64)
    except Conflict:
        assert canonical(state.to_json()) == before


def test_a_state_survives_its_checkpoint() -> None:
    state = folded(
        claim("a", covers={src_of("z"): [1, "uploads/m/z.csv"]}),
        publish("a", parts=[part("a")], covers={src_of("z"): 1}),
        claim("b"),
        publish("b", parts=[part("a"), part("b")]),
        claim("c"),
        publish("c"),
        claim("d"),
        publish("d"),
        alias("production", "a", 0, gate={"passed": True}),
        alias("production", "b", 1),
        {"op": "note", "version": version_of("c"), "gate": {"passed": False}},
        {"op": "retire", "version": version_of("c")},
        claim("e"),
        {"op": "park", "src": src_of("e"), "attempt": 1, "reason": "3 attempts"},
        claim("f"),
    )
    body = json.loads(canonical(state.to_json()))
    again = State.from_json(MODEL, state.head, state.hash, body)
    for name in State.__slots__:
        assert getattr(again, name) == getattr(state, name), name
    assert state.open == {src_of("d"), src_of("f")}


def test_a_remembered_op_costs_sixteen_characters() -> None:
    state = folded(*TWO)
    assert len(state.to_json()["ops"]) == 16 * 4
    assert state.seen("op-2") == 2
    assert state.seen("lone\ud800surrogate") is None
