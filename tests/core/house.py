"""A whole application over a store in memory, with real artifacts, a real registry and a clock that we move."""

from __future__ import annotations

import io
import itertools
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from core.app import build_app
from core.artifact import export, load
from core.config import Settings
from core.flatfile import PAGE, FlatFile
from core.jobs import Pending, claim, source_id
from core.reader import StoreReader
from core.registry import Registry
from core.schema import Batch, Column
from core.store import Blob, MemoryStore, ObjectStore
from core.telemetry import MemoryTelemetry
from core.tokens import create_token
from core.web import Request, Response
from tests.core.models import LABELS, TEXTS, draft

JSON = {"content-type": "application/json"}


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def entropy(seed: int = 0) -> Callable[[int], bytes]:
    """Return a source of bytes that gives the same ones in each run."""
    return random.Random(seed).randbytes


@cache
def text_model(flip: int = 0) -> bytes:
    """Return the artifact of a text classifier; `flip` turns its labels around, for a different model."""
    labels = LABELS[flip:] + LABELS[:flip]
    batch = Batch(len(TEXTS), {"text": list(TEXTS)})
    made, _, _ = draft([Column("text", "text", {"ngrams": [1, 2]})], batch, labels)
    return export(made._replace(facts={"metrics": {"accuracy": 0.75 + flip / 100, "macro_f1": 0.5, "n": "x"}}))


@cache
def table_model() -> bytes:
    """Return the artifact of a regression over a number and a category."""
    batch = Batch(6, {"size": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "town": ["a", "b", "a", "b", "a", "b"]})
    columns = [Column("size", "number"), Column("town", "category")]
    made, _, _ = draft(columns, batch, [1.0, 2.5, 3.0, 4.5, 5.0, 6.5], algorithm="ridge", task="regression")
    return export(made)


def picture(shade: int) -> bytes:
    """Return a small PNG of one shade with a dot."""
    pixels = np.full((16, 16), shade, np.uint8)
    pixels[3, shade % 16] = 255 - shade
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


@cache
def image_model() -> bytes:
    """Return the artifact of a classifier of dark and light pictures."""
    shades = [10, 20, 30, 40, 200, 210, 220, 230]
    batch = Batch(8, {"photo": [picture(shade) for shade in shades]})
    made, _, _ = draft([Column("photo", "image")], batch, ["dark"] * 4 + ["light"] * 4)
    return export(made)


def version_id(number: int) -> str:
    """Return the id of the version with this number."""
    return f"v-{number:012x}"


class Spy(MemoryStore):
    """A store that notes the keys it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self.delay_s = 0.0

    def get(self, key: str, token: str | None = None) -> Blob:
        self.keys.append(key)
        time.sleep(self.delay_s)
        return super().get(key, token)


class House:
    """The application, its store, and what it logged."""

    def __init__(
        self, *, control: bool = True, store: ObjectStore | None = None, seed: int = 0, **settings: Any
    ) -> None:
        self.clock = Clock()
        self.store: ObjectStore = store or MemoryStore()
        self.lines: list[str] = []
        self.telemetry = MemoryTelemetry(self.lines.append, clock=self.clock)
        self.settings = Settings(**{"refresh_s": 2.0, **settings})
        self.registry = Registry(
            self.store, clock=self.clock, sleep=self.clock.sleep, rng=random.Random(seed), actor="tests"
        )
        self._numbers = itertools.count(1)
        self._entropy = entropy(seed)
        self._control = control
        self.reader = StoreReader(self.store)
        self.app = self.build()

    def build(self) -> Callable[[Request], Response]:
        """Return another application over the same store: another process, as it were."""
        return build_app(
            self.settings,
            self.reader,
            telemetry=self.telemetry,
            store=self.store if self._control else None,
            clock=self.clock,
            sleep=self.clock.sleep,
            random_bytes=self._entropy,
        )

    def token(self, role: str = "predictor", **options: Any) -> str:
        """Return a new token."""
        token, _ = create_token(self.store, role, clock=self.clock, random_bytes=self._entropy, **options)
        return token

    def publish(self, model: str = "support", data: bytes | None = None, alias: str | None = "production") -> str:
        """Publish an artifact the way a job does, and point an alias at it; return the version."""
        data = text_model() if data is None else data
        number = next(self._numbers)
        key, version = f"uploads/{model}/{number}.csv", version_id(number)
        item = Pending(model, "upload", key, "t", source_id(key, "t"), "train", 1)
        held = claim(self.registry, [item], now=self.clock(), lease_s=60.0)
        assert held is not None
        artifact_key, _ = self.registry.put_artifact(model, item.src, 1, data)
        self.registry.publish(
            model,
            src=item.src,
            attempt=1,
            version=version,
            manifest_sha256=FlatFile(data).header_sha256,
            artifact_key=artifact_key,
            size=len(data),
            metrics={"accuracy": 0.75},
            op_id=held.op_id("publish"),
        )
        if alias:
            self.registry.move(model, alias, version, op_id=held.op_id("move"))
        return version

    def artifact_key(self, model: str, version: str) -> str:
        """Return where a version's bytes lie."""
        return self.registry.state(model).versions[version].artifact_key

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Return the application's answer. A body that is not bytes goes as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        data = b"" if body is None else body
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
            sent.setdefault("content-type", "application/json")
        return self.app(Request(method, path, query, sent, data))

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in map(json.loads, self.lines) if line["event"] == event]

    def metric(self, name: str, labels: Sequence[str] = ()) -> float:
        """Return the value of a counter or gauge, 0 if it is not there."""
        for found, values, value in self.telemetry.snapshot():
            if found == name and tuple(values) == tuple(labels):
                return float(value)
        return 0.0


def body_of(response: Response) -> Any:
    """Return the JSON of an answer."""
    return json.loads(response.body)


def header(response: Response, name: str) -> str | None:
    """Return a header of an answer."""
    return next((value for key, value in response.headers if key.lower() == name.lower()), None)


@cache
def wide_model() -> bytes:
    """Return the artifact of a text classifier that fills many pages."""
    rng = random.Random(3)
    words = [f"w{number}x" for number in range(4000)]
    texts = [" ".join(rng.sample(words, 20)) for _ in range(400)]
    made, _, _ = draft([Column("text", "text")], Batch(400, {"text": texts}), [f"c{i % 3}" for i in range(400)])
    return export(made)


def damaged(data: bytes, *, unread: bool = False) -> bytes:
    """Return an artifact with one byte changed: the last, or one that neither load nor golden replay reads."""
    changed = bytearray(data)
    position = len(data) - 1
    if unread:
        model = load(data)
        model.replay()
        position = len(data) - int(model.file.header["data_size"]) + model.file._seen.index(0) * PAGE
    changed[position] ^= 0x40
    return bytes(changed)
