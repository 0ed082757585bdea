"""A small store with everything in it that can rot, and the ways in which bytes rot."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from core.audit import Anchor
from core.keys import alias_key, checkpoint_key, log_key
from core.ledger import CHECKPOINT_EVERY, digest_of
from core.registry import Registry
from core.store import MemoryStore
from core.web import Response
from tests.core.house import House, body_of, header, text_model

MODEL, OTHER = "support", "billing"
ENTRIES = 2 * CHECKPOINT_EVERY + 20
TEXT = {"text": "where is my parcel"}


class Sound(NamedTuple):
    """What is in the store while it is whole, by key; `answers` are the right ones by version."""

    objects: Mapping[str, bytes]
    logs: tuple[str, ...]
    checkpoints: tuple[str, ...]
    aliases: tuple[str, ...]
    artifacts: Mapping[str, str]
    promised: Mapping[str, str]
    answers: Mapping[str, Any]
    anchor: Anchor


class Shop:
    """One store with two models: of `support` the first version is `previous`, the second `production`."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.house = House(store=self.store)
        self.versions = [self.house.publish(MODEL, text_model(flip)) for flip in (0, 4)]
        self.house.publish(OTHER, text_model(8))
        registry = self.house.registry
        for number in range(ENTRIES - registry.state(MODEL).head - 1):
            registry.append(MODEL, lambda _: {"op": "note"}, op_id=f"note {number}")
        self.token = self.house.token()
        self.sound = self._sound(registry)

    def _sound(self, registry: Registry) -> Sound:
        state = registry.state(MODEL)
        logs = tuple(log_key(MODEL, n) for n in range(ENTRIES))
        checkpoints = tuple(checkpoint_key(MODEL, n) for n in (CHECKPOINT_EVERY - 1, 2 * CHECKPOINT_EVERY - 1))
        aliases = tuple(alias_key(MODEL, ref) for ref in (*state.aliases, *state.versions))
        artifacts = {name: version.artifact_key for name, version in state.versions.items()}
        promised = {v.artifact_key: v.manifest_sha256 for v in state.versions.values()}
        objects = {entry.key: self.store.get(entry.key).data for entry in self.store.list("reg/")}
        answers = {name: _answer(self.ask(version=name)) for name in self.versions}
        anchor = Anchor(ENTRIES - 1, digest_of(objects[logs[-1]]))
        return Sound(objects, logs, checkpoints, aliases, artifacts, promised, answers, anchor)

    def ask(self, app: Callable[..., Response] | None = None, **query: str) -> Response:
        """Return an answer of a fresh process, or of `app`."""
        self.house.app = app or self.house.build()
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return self.house.send("POST", f"/predict/{MODEL}", TEXT, token=self.token, query=text)

    def is_right(self, response: Response) -> bool:
        """Tell whether an answer is the one of the version that it names."""
        version = header(response, "x-model-version") or ""
        return response.status == 200 and _answer(response) == self.sound.answers.get(version)

    def fresh(self) -> Registry:
        """Return a registry that has read nothing yet."""
        house = self.house
        return Registry(
            self.store, clock=house.clock, sleep=house.clock.sleep, rng=random.Random(0), actor="tests"
        )

    def mend(self, key: str) -> None:
        """Put an object back as it was."""
        self.store.put(key, self.sound.objects[key])


def _answer(response: Response) -> Any:
    assert response.status == 200, response.body
    return body_of(response)["predictions"]


# --- the ways to rot


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.choice((0, len(data) - 1, rng.randrange(len(data)))) :]


def _drop(rng: random.Random, data: bytearray) -> None:
    low = rng.randrange(len(data))
    del data[low : low + rng.randint(1, 64)]


def _zero(rng: random.Random, data: bytearray) -> None:
    low = rng.randrange(len(data))
    high = min(len(data), low + rng.choice((1, 16, 512, 4096)))
    data[low:high] = bytes(high - low)


def _double(rng: random.Random, data: bytearray) -> None:
    low = rng.randrange(len(data))
    data[low:low] = data[low : low + rng.randint(1, 64)]


def _exchange(rng: random.Random, data: bytearray) -> None:
    """Two runs of bytes change places."""
    size = rng.randint(1, max(1, min(64, len(data) // 3)))
    low, high = sorted(rng.sample(range(0, len(data) - size + 1, size), 2))
    data[low : low + size], data[high : high + size] = data[high : high + size], data[low : low + size]


def _digit(rng: random.Random, data: bytearray) -> None:
    """One digit becomes another: what was well formed stays so."""
    places = [index for index, byte in enumerate(data) if chr(byte) in "0123456789"]
    if places:
        data[rng.choice(places)] = ord(rng.choice("0123456789"))


WAYS = (_flip, _flip, _flip, _cut, _drop, _zero, _double, _exchange, _digit)


def rotten(rng: random.Random, sound: Mapping[str, bytes], key: str, high: int | None = None) -> bytes:
    """Return other bytes for `key`: its own, damaged before `high`, or those of another object."""
    own = sound[key]
    found = own
    while found == own:
        if rng.random() < 0.1:
            found = sound[rng.choice(list(sound))]
        else:
            part = bytearray(own[:high])
            rng.choice(WAYS)(rng, part)
            found = bytes(part) + (own[high:] if high is not None else b"")
    return found
