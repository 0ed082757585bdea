"""Hostile events: well-formed ones changed anywhere, forged keys, bad records in good batches, in any order."""

from __future__ import annotations

import copy
import json
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from core.building import Builder
from core.config import Settings
from core.errors import InvalidName, Unavailable
from core.ledger import Backoff
from core.store import MemoryStore
from core.telemetry import MemoryTelemetry
from core.worker import Outcome, Worker, build_worker
from tests.core.plant import Clock, FaultyStore, down
from tests.faults.provider_events import PROVIDERS, Provider
from tests.faults.scoreboard import record
from tests.faults.sizes import size

SEED = 11
KEYS = (
    *(
        "uploads/toy/new.csv",
        "jobs/toy/1.json",
        "reg/toy/log/0.json",
        "reg/../uploads/toy/x.csv",
        "../uploads/t/x",
    ),
    *(
        "uploads%2Ftoy%2Fx.csv",
        "uploads/toy/a+b.csv",
        "uploads/toy/%2e%2e/x.csv",
        "Uploads/toy/x.csv",
        "uploads//x",
    ),
    *(
        "/uploads/toy/x.csv",
        "uploads/toy/\u202ex.csv",
        "uploads/\u00fc/x.csv",
        "uploads/toy/",
        "",
        "\x00",
        "%",
        "\ud800",
    ),
    *(
        "uploads\\toy\\x.csv",
        "uploads/toy/" + "x" * 2000,
        "art/toy/1/model",
        "auth/tokens.json",
        "uploads/toy/.x.csv",
    ),
)
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e300,
    "",
    "\x00",
    [],
    {},
    [[]],
    {"key": {}},
    "\ud800",
    "9" * 400,
    *KEYS,
)


def _worker(store: Any) -> Worker:
    telemetry = MemoryTelemetry(lambda line: None, clock=Clock())
    rng = random.Random(0)
    return build_worker(
        Settings(), store, telemetry=telemetry, clock=Clock(), sleep=lambda s: None, rng=rng, builder=Builder()
    )


def _decoys() -> MemoryStore:
    """Return a store with an object under every forged key that it takes."""
    store = MemoryStore(Clock())
    for key in KEYS:
        if not key.startswith(("uploads/", "jobs/")):
            with suppress(InvalidName):
                store.put(key, b"text,topic\nx,y\n")
    return store


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container and key in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in list(items) for place in ((value, key), *_places(inner))]


def _mutated(event: Any, rng: random.Random) -> Any:
    """Return an event that differs somewhere: a value, a field gone, a field doubled under another name."""
    found = copy.deepcopy(event)
    for _ in range(rng.randint(1, 3)):
        places = _places(found)
        if not places:
            return rng.choice(ODD)
        home, key = rng.choice(places)
        act = rng.randrange(4)
        if act == 0:
            del home[key]
        elif act == 1 and isinstance(home[key], str) and home[key]:
            at = rng.randrange(len(home[key]))
            home[key] = home[key][:at] + rng.choice("/.%+\x00\u00fc\ud800\\") + home[key][at + rng.randint(0, 1) :]
        else:
            home[key] = copy.deepcopy(rng.choice(ODD))
    return found


def _events(provider: Provider) -> list[Any]:
    recorded = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((Path(__file__).parents[1] / "events" / provider.name).glob("*.json"))
    ]
    return [provider.event(key, "1") for key in KEYS if key.isprintable()] + [
        e for e in recorded if isinstance(e, dict)
    ]


def _parsed(provider: Provider, event: Any) -> list[tuple[str, str | None]]:
    """Return the hints of what can be sent; of an Event Grid event that its runtime itself refuses, none."""
    try:
        return provider.parse(event)
    except (KeyError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        trace = error.__traceback__
        names = []
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
        if provider.name == "azure" and not any("handlers_azure" in name for name in names):
            return []
        raise


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_no_changed_event_raises_or_has_an_effect_outside_the_inbox(provider: Provider) -> None:
    n, started, rng = size(500, 50_000), time.perf_counter(), random.Random(SEED)
    store = _decoys()
    worker, events, before = _worker(store), _events(provider), sorted(e.key for e in store.list(""))
    wrong: list[str] = []
    for turn in range(n):
        event = _mutated(rng.choice(events), rng)
        try:
            provider.deliver(worker, _parsed(provider, event))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
            wrong.append(f"seed {SEED}, turn {turn}: {type(error).__name__}: {event!r}"[:500])
    written = {entry.key for entry in store.list("")} - set(before)
    wrong += [f"{key} was written" for key in sorted(written) if not key.startswith("reg/")]
    wrong += [f"{key} claims a training" for key in sorted(written) if b"claim" in store.get(key).data]
    record(f"events: changed events of {provider.name}, none raises", n, len(wrong), time.perf_counter() - started)
    assert wrong == []


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_a_store_that_is_down_has_every_event_delivered_again(provider: Provider) -> None:
    store = FaultyStore(MemoryStore(Clock()))
    worker = _worker(store)
    worker.shop.shelf.backoff = Backoff(lambda s: None, random.Random(0))
    store._call = _down  # type: ignore[method-assign]
    hints = _parsed(provider, provider.event("uploads/toy/new.csv", "1"))
    assert len(hints) == 1
    try:
        answer = provider.deliver(worker, hints)
    except Unavailable:
        answer = 503  # the function fails, and both services deliver again what failed
    assert answer == 503


def _down(name: str, *args: Any) -> Any:
    raise down()


class Told:
    """A worker that notes what it is told."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def handle(self, event: Any, **options: Any) -> Outcome:
        """Return that it is done."""
        self.keys.append(event.key)
        return Outcome("done", event.key)


class Deliveries(RuleBasedStateMachine):
    """Events of one provider in any order: each good one arrives under its own key, whatever comes beside it."""

    provider = PROVIDERS[0]

    def __init__(self) -> None:
        super().__init__()
        self.worker, self.sent = Told(), list[str]()

    @rule(
        name=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12),
        again=st.integers(1, 3),
    )
    def upload(self, name: str, again: int) -> None:
        """A good event, delivered up to three times."""
        key = f"uploads/toy/{name}"
        for _ in range(again):
            self.provider.deliver(self.worker, _parsed(self.provider, self.provider.event(key, "7")))  # type: ignore[arg-type]
            self.sent.append(key)

    @rule(seed=st.integers(0, 1 << 30))
    def changed(self, seed: int) -> None:
        """An event of another bucket, changed on its way: nothing comes of it."""
        rng = random.Random(seed)
        text = json.dumps(self.provider.event("uploads/toy/x.csv", "7"))
        event = json.loads(text.replace('"store"', '"other"').replace("/store/", "/other/"))
        self.provider.deliver(self.worker, _parsed(self.provider, _mutated(event, rng)))  # type: ignore[arg-type]

    @rule(seed=st.integers(0, 1 << 30))
    def batch(self, seed: int) -> None:
        """A bad record in a batch: the good ones beside it count (AWS alone sends batches)."""
        if self.provider.name != "aws":
            return
        good = self.provider.event("uploads/toy/b.csv", "7")["Records"][0]
        bad = random.Random(seed).choice(ODD)
        self.provider.deliver(self.worker, self.provider.parse({"Records": [good, bad, good]}))  # type: ignore[arg-type]
        self.sent += ["uploads/toy/b.csv"] * 2

    @invariant()
    def each_arrived(self) -> None:
        """What was sent is what was heard."""
        assert self.worker.keys == self.sent


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_good_events_arrive_whatever_comes_between_them(provider: Provider) -> None:
    machine = type("Machine", (Deliveries,), {"provider": provider})
    quick = settings(
        max_examples=size(15, 300), stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=quick)
