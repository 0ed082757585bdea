"""A predictor over a shelf of objects that counts, waits and fails as told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from core import artifact
from core.errors import Missing
from core.flatfile import FlatFile
from core.inference import CACHE_BYTES, Predictor
from core.model import Model
from core.telemetry import MemoryTelemetry
from core.versions import Timing
from tests.core.house import Clock, text_model, version_id

ONE, TWO, THREE = (version_id(number) for number in (1, 2, 3))


class Shelf:
    """A reader over a dict that counts, waits and fails as told."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.keys: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.delay_s = 0.0

    def get(self, key: str) -> bytes:
        self.keys.append(key)
        time.sleep(self.delay_s)
        for part, error in self.errors.items():
            if part in key:
                raise error
        if key not in self.objects:
            raise Missing("no object")
        return self.objects[key]

    buffer = get


class Bench:
    """A predictor over a shelf."""

    def __init__(
        self,
        *,
        load: Callable[[Any, str], Model] = artifact.load,
        draws: Sequence[float] = (0.5,),
        cache_bytes: int = CACHE_BYTES,
        refresh_s: float = 2.0,
    ) -> None:
        self.clock, self.shelf = Clock(), Shelf()
        self.lines: list[str] = []
        self.telemetry = MemoryTelemetry(self.lines.append, clock=self.clock)
        self.draws = list(draws)
        self._next = 0
        self.predictor = Predictor(
            self.shelf,
            load=load,
            telemetry=self.telemetry,
            timing=Timing(self.clock, time.perf_counter, self._draw),
            refresh_s=refresh_s,
            cache_bytes=cache_bytes,
        )

    def _draw(self) -> float:
        self._next += 1
        return self.draws[self._next % len(self.draws)]

    def put(
        self, version: str, data: bytes, *, sha256: str | None = None, key: str | None = None
    ) -> dict[str, Any]:
        """Lay down an artifact; return its entry for an alias document."""
        key = key or f"reg/m/art/{version}"
        self.shelf.objects[key] = data
        digest = sha256 or FlatFile(data).header_sha256
        return {"version": version, "weight": 100, "artifact_key": key, "manifest_sha256": digest}

    def point(self, ref: str, rev: int, *splits: dict[str, Any], model: str = "m") -> None:
        """Write an alias document."""
        document = {"rev": rev, "splits": splits, "log_n": rev, "write_id": "x"}
        self.shelf.objects[f"reg/{model}/alias/{ref}.json"] = json.dumps(document).encode()

    def later(self, seconds: float = 3.0) -> None:
        self.clock.now += seconds

    def version(self, ref: str = "production", model: str = "m") -> str:
        return self.predictor.resolve(model, ref).version

    def alerts(self) -> list[str]:
        lines = map(json.loads, self.lines)
        return [line["alert"] for line in lines if line["event"] == "alert"]

    def failures(self) -> float:
        return sum(
            float(value) for name, _, value in self.telemetry.snapshot() if name == "integrity_failures_count"
        )


def first() -> Bench:
    """Return a predictor with version ONE in production."""
    made = Bench()
    made.point("production", 1, made.put(ONE, text_model()))
    return made
