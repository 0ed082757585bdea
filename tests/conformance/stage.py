"""The application that the exchanges are played to: the same models, tokens, clock and chances each time."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from core.app import build_app
from core.errors import Transient
from core.flatfile import FlatFile
from core.jobs import Claim, Pending, claim, job_id, reject, source_id
from core.registry import Registry
from core.store import Blob, Entry, MemoryStore
from core.telemetry import MemoryTelemetry
from core.tokens import revoke_token
from core.web import Request, Response
from tests.conformance.exchange import Exchange, Wire
from tests.core.house import House, entropy, version_id

MODELS = Path(__file__).parent / "models"
SETTINGS: Mapping[str, Any] = {
    "max_body_bytes": 4096,
    "max_upload_bytes": 8 << 20,
    "max_batch_rows": 8,
    "cors_origins": ("https://app.example",),
}
MODEL_NAMES = ("photos", "prices", "support")
SPARE, ONE, TWO = (version_id(number) for number in (3, 4, 5))  # the versions of support; TWO is in production
ROLES = ("admin", "trainer", "predictor", "metrics")


@cache
def artifact(name: str) -> bytes:
    """Return the bytes of a recorded model: support-1, support-2, prices or photos."""
    return (MODELS / f"{name}.model").read_bytes()


class FaultyStore(MemoryStore):
    """A store in memory that fails, lies or breaks down as told when keys are read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.faults: Mapping[str, str] = {}

    def get(self, key: str, token: str | None = None) -> Blob:
        """Return the object, or what the faults make of it. Raises Transient."""
        blob = super().get(key, token)
        fault = next((fault for part, fault in self.faults.items() if part in key), None)
        if fault == "unavailable":
            raise Transient("the store does not answer")
        if fault == "bug":
            raise ZeroDivisionError("a bug")
        return Blob(blob.data[:-1] + b"?", blob.token) if fault == "damaged" else blob


class _Measured(MemoryTelemetry):
    """Telemetry that does not tell how much memory this process takes."""

    def exposition(self) -> bytes:
        """Return the metrics but for the memory's value."""
        return re.sub(rb"(?m)^(process_resident_memory_bytes) .*$", rb"\1 1", super().exposition())


class _Numbered(Registry):
    """A registry whose ids do not tell the process that made them."""

    def new_id(self) -> str:
        """Return an id that this registry gives once."""
        return f"{self._rng.getrandbits(64):016x}"


class Stage(House):
    """A house whose every chance is drawn anew for each exchange, by its name alone."""

    def __init__(self, models: tuple[str, ...] = MODEL_NAMES, control: bool = True, **settings: Any) -> None:
        self.faulty = FaultyStore(lambda: self.clock())
        super().__init__(control=control, store=self.faulty, **{**SETTINGS, **settings})
        self._held: Claim | None = None
        self.telemetry = _Measured(self.lines.append, clock=self.clock)
        self.app = self.build()
        self.registry = _Numbered(
            self.store, clock=self.clock, sleep=self.clock.sleep, rng=random.Random(0), actor="tests"
        )
        for name in models:
            if name == "support":
                self.publish(name, artifact("support-1"), alias=None)  # SPARE: nothing points to it
                self.publish(name, artifact("support-1"))
            self.publish(name, artifact("support-2" if name == "support" else name))
        self.tokens = {role: self.token(role, label=role) for role in ROLES}
        self.tokens["scoped"] = self.token(label="scoped", models=["prices"])
        self.tokens["scoped_trainer"] = self.token("trainer", label="scoped trainer", models=["prices"])
        self.tokens["expired"] = self.token(label="expired", ttl_s=1.0)
        self.tokens["revoked"] = self.token(label="revoked")
        revoke_token(self.store, self.tokens["revoked"].split("_")[1], clock=self.clock)
        self.tokens["forged"] = self.tokens["admin"][:20] + self.tokens["trainer"][20:]
        self.clock.now += 10.0

    def build(self) -> Callable[[Request], Response]:
        """Return an application whose time stands still within a request."""
        return build_app(
            self.settings,
            self.reader,
            telemetry=self.telemetry,
            store=self.store if self._control else None,
            clock=self.clock,
            timer=lambda: 0.0,
            sleep=self.clock.sleep,
            random_bytes=lambda count: self._entropy(count),
        )

    def prepare(self, exchange: Exchange) -> None:
        """Bring about what the exchange starts from."""
        self.clock.now += exchange.advance_s
        self._entropy = entropy(zlib.crc32(exchange.name.encode()))
        if exchange.faults is not None:
            self.faulty.faults = exchange.faults
        if exchange.act:
            {"claim": self._claim, "publish": self._publish, "reject": self._reject}[exchange.act]()

    def filled(self, wire: Wire) -> Wire:
        """Return the request with tokens in the place of their names, and the job of the last upload."""
        values = [(name, value.format_map(self.tokens) if "{" in value else value) for name, value in wire.headers]
        path = wire.path.replace("{job}", self._job()) if "{job}" in wire.path else wire.path
        return wire._replace(path=path, headers=tuple(values))

    def _job(self) -> str:
        entry = self._upload()
        return job_id("support", source_id(entry.key, entry.token))

    def _upload(self) -> Entry:
        return max(self.store.list("uploads/support/"), key=lambda entry: int(entry.token))

    # what a worker would do with the upload that came last

    def _claim(self) -> None:
        entry = self._upload()
        src = source_id(entry.key, entry.token)
        item = Pending("support", "upload", entry.key, entry.token, src, "train", 1)
        self._held = claim(self.registry, [item], now=self.clock(), lease_s=60.0)

    def _publish(self) -> None:
        held, data = self._held, artifact("support-1")
        assert held is not None
        item = held.items[0]
        key, _ = self.registry.put_artifact("support", item.src, 1, data)
        self.registry.publish(
            "support",
            src=item.src,
            attempt=1,
            version="v-0000000000aa",
            manifest_sha256=FlatFile(data).header_sha256,
            artifact_key=key,
            size=len(data),
            metrics={"accuracy": 0.875},
            op_id=held.op_id("publish"),
        )

    def _reject(self) -> None:
        self._claim()
        assert self._held is not None
        problem = {"message": "must be text", "field": "text", "row": 3}
        reject(self.registry, self._held, "schema", problems=[problem])
