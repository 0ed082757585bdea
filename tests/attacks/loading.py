"""Reads hostile files in every way that Polysky reads files, in a process that watches itself.

Run as `python -m tests.attacks.loading FOLDER`: prints what each file made happen, as JSON. An audit hook notes
every act that code from data could do; memory is limited by the system.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from core import artifact, inspection
from core.dataset.limits import Limits
from core.dataset.reading import read_table
from core.dataset.snapshot import read_snapshot
from core.errors import CoreError
from core.flatfile import FlatFile
from core.ledger import Backoff, digest_of
from core.shelf import Shelf
from core.state import Version
from core.store import MemoryStore
from core.worker import Event
from scripts.cli import run
from tests.attacks.forgeries import parquet
from tests.core.house import House, text_model
from tests.core.plant import Plant
from tests.core.shelf import ONE, Bench
from tests.core.toys import csv, messages, text_spec

LIMITS = Limits(bytes=64 << 20, rows=100_000, columns=1000, members=10_000)
ROOM = 512 << 20
# what code out of data would do; everything that reading alone never does
_ACTS = (
    *("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("subprocess.Popen", "ctypes.dlopen", "ctypes.call_function", "code.__new__", "os.rename", "os.putenv"),
    *("sqlite3.connect", "socket.connect", "socket.bind", "webbrowser.open", "ensurepip.bootstrap", "os.mkdir"),
)


class Watch:
    """Notes acts while it is armed. Writing below `scratch` is what reading an upload does."""

    def __init__(self, scratch: str) -> None:
        self.scratch = os.path.realpath(scratch)
        self.acts: list[str] = []
        self.armed = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Take an audit event."""
        if self.armed and (event in _ACTS or self._writes(event, args) or self._runs(event, args)):
            if event == "os.mkdir" and self._is_scratch(args[0]):
                return
            self.acts.append(f"{event} {args!r:.120}")

    def _writes(self, event: str, args: tuple[Any, ...]) -> bool:
        if event != "open" or not isinstance(args[0], str | bytes):
            return False
        flags = args[2] if isinstance(args[2], int) else 0
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and not self._is_scratch(args[0])

    def _is_scratch(self, path: Any) -> bool:
        return os.path.realpath(os.fsdecode(path)).startswith(self.scratch)

    def _runs(self, event: str, args: tuple[Any, ...]) -> bool:
        """Tell whether code runs that is in no file: what eval and exec of a text do."""
        return event == "exec" and not os.path.exists(getattr(args[0], "co_filename", ""))


class Paths:
    """Every way in which bytes from outside are read, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = text_spec(label="label")
        self.house = House(control=True)
        self.house.publish()
        self.token = self.house.token("admin")
        self.plant = Plant()
        self.plant.train(folder)
        self.ways: dict[str, Callable[[str, bytes], Any]] = {
            "artifact.load": self.load,
            "predictor": self.predict,
            "registry": self.shelve,
            "dataset": self.read,
            "inspection": self.infer,
            "snapshot": self.snapshot,
            "upload": self.retrain,
            "import": self.take_in,
            "http": self.post,
        }

    def load(self, name: str, data: bytes) -> None:
        """Load an artifact, check all of it and replay."""
        model = artifact.load(data)
        model.file.verify_all()
        model.replay()

    def predict(self, name: str, data: bytes) -> None:
        """Serve it: the alias document promises just these bytes."""
        bench = Bench()
        bench.point("production", 1, bench.put(ONE, data, sha256=_promise(data)))
        bench.predictor.resolve("m")

    def shelve(self, name: str, data: bytes) -> None:
        """Load it as a job loads the champion."""
        store = MemoryStore()
        store.put("reg/m/art/x", data)
        version = Version("x", 1, _promise(data), "reg/m/art/x", len(data), {}, (), 0.0, 0)
        Shelf(store, Backoff(lambda _: None, None)).model(version)  # type: ignore[arg-type]

    def read(self, name: str, data: bytes) -> None:
        """Read it as rows to learn from."""
        read_table(self._file(name, data), self.spec, limits=LIMITS)

    def infer(self, name: str, data: bytes) -> None:
        """Look at it as `polysky init` does."""
        inspection.infer(self._file(name, data), label="label", limits=LIMITS, compare=False)

    def snapshot(self, name: str, data: bytes) -> None:
        """Read it as rows that a version was made of."""
        read_snapshot(data, self.spec)

    def retrain(self, name: str, data: bytes) -> None:
        """Drop it into the inbox."""
        key = f"uploads/toy/{digest_of(name.encode())[:12]}.{name.rpartition('.')[2]}"
        self.plant.upload(data, key)
        outcome = self.plant.worker(max_data_bytes=LIMITS.bytes).handle(Event(key))
        if outcome.status in ("promoted", "staged"):
            raise AssertionError("it was learnt from")

    def take_in(self, name: str, data: bytes) -> None:
        """Import it without trusting it."""
        path, store = self._file(name, data), str(self.folder / "store")
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = run(["import", path, "--store", store, "--task", "classification"])
        if code == 0:
            raise AssertionError("it was imported")

    def post(self, name: str, data: bytes) -> None:
        """Send it as a body of every type."""
        for media in ("application/json", "text/csv", "image/png", "application/octet-stream"):
            answer = self.house.send(
                "POST", "/predict/support", data, token=self.token, headers={"content-type": media}
            )
            if answer.status >= 500:
                raise AssertionError(f"answered with {answer.status}")

    def _file(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


def _promise(data: bytes) -> str:
    """Return the sha256 that somebody who rewrote the whole store would promise."""
    try:
        return FlatFile(data).header_sha256
    except CoreError:
        return digest_of(data)


def examine(folder: Path) -> dict[str, Any]:
    """Return what the files of `folder` made happen."""
    watch = Watch(str(folder))
    sys.addaudithook(watch)
    scratch = folder / "scratch"
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    paths = Paths(scratch)
    _warm(paths)
    _limit_memory(ROOM)
    peak, found = _peak(), dict[str, Any](cases=0, acts=[], escapes=[], grown=[])
    watch.armed = True
    for path in sorted((folder / "cases").iterdir()):
        name = path.name.partition("~")[2]
        data = path.read_bytes()
        found["cases"] += 1
        for way, action in paths.ways.items():
            what = f"{path.name} by {way}"
            _try(watch, found, what, lambda: action(name, data))  # noqa: B023 - called at once
            if _peak() - peak > 64 << 20:
                found["grown"].append((what, (_peak() - peak) >> 20))
                peak = _peak()
    watch.armed = False
    found["markers"] = [path.name for path in folder.iterdir() if path.name.startswith("marker")]
    return found


def _try(watch: Watch, found: dict[str, Any], what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except CoreError:
        pass
    except BaseException as error:  # noqa: BLE001 - whatever escapes is what is looked for
        found["escapes"].append(f"{what}: {type(error).__name__} {error!s:.200}")
    if watch.acts:
        found["acts"] += [f"{what}: {act}" for act in watch.acts]
        watch.acts.clear()


def _warm(paths: Paths) -> None:
    """Take every way once with something sound and something odd, so that all modules are loaded."""
    sound = csv(messages(60))
    samples = (("a.model", text_model()), ("a.csv", sound), ("a.zip", b"PK\x03\x04"), ("a.npy", b"\x93NUMPY"))
    odd = (
        ("a.parquet", parquet({"text": [b"a"] * 12, "label": list("ab") * 6})),
        ("a.gz", b"\x1f\x8b\x08"),
        ("a.onnx", b"\x08"),
    )
    for name, data in (*samples, *odd, ("a.jsonl", b'{"text": "a", "label": "b"}\n'), ("a.pkl", b".")):
        for action in paths.ways.values():
            try:
                action(name, data)
            except (CoreError, AssertionError):
                continue


def _limit_memory(room: int) -> None:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, hard))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    print(json.dumps(examine(Path(sys.argv[1]))))
