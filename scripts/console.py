"""What commands share: the store option, JSON and tables on stdout, progress on stderr."""

from __future__ import annotations

import getpass
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from core.config import Settings
    from core.registry import Registry
    from core.schema import Schema
    from core.spec import ModelSpec
    from core.store import ObjectStore
    from core.versions import Loaded

Function = TypeVar("Function", bound=Callable[..., Any])
T = TypeVar("T")
Progress = Callable[[str, int, int], None]
DASH = "-"


def store_option(function: Function) -> Function:
    """Add `--store URL` to a command."""
    return click.option("--store", metavar="URL", help="Store URL or folder (default: POLYSKY_STORE).")(function)


def json_option(function: Function) -> Function:
    """Add `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def read_settings(store: str | None) -> Settings:
    """Return the settings of the environment, with the store that `--store` names."""
    from core.config import Settings
    from scripts.stores import use_login

    settings = Settings.from_env({**os.environ, **({"POLYSKY_STORE": store} if store else {})})
    use_login(settings.store)
    return settings


def find_store(store: str | None, *, note: bool = False) -> ObjectStore:
    """Return the store that `--store` or the environment names; `note` tells of no folder. Raises ConfigError."""
    from core.local_store import LocalStore
    from scripts.stores import open_store

    settings = read_settings(store)
    found = open_store(settings.store, allow_http=settings.allow_http)
    if note and isinstance(found, LocalStore) and not os.path.exists(found.root):
        click.echo(f"note: there is no store at {settings.store}; see --store and POLYSKY_STORE", err=True)
    return found


def find_registry(store: ObjectStore) -> Registry:
    """Return the registry of a store, acting as the person at this terminal."""
    from core.registry import Registry

    return Registry(store, clock=time.time, sleep=time.sleep, rng=random.Random(), actor=person())  # noqa: S311


def load_version(settings: Settings, model: str, ref: str) -> Loaded:
    """Return the version that `ref` (version or alias) names, loaded and proved. Raises NotFound, Unavailable."""
    from core.artifact import load
    from core.inference import Predictor
    from core.reader import open_reader
    from core.telemetry import MemoryTelemetry
    from core.versions import Timing

    timing = Timing(time.time, time.perf_counter, random.random)
    telemetry = MemoryTelemetry(lambda line: None, clock=time.time)
    reader = open_reader(settings.store, allow_http=settings.allow_http)
    return Predictor(reader, load=load, telemetry=telemetry, timing=timing).resolve(model, ref)


def bare_spec(name: str, task: str, schema: Schema, label: str | None) -> ModelSpec:
    """Return a spec that only tells how files of these columns are read: for models that bring none."""
    from core.spec import DataSpec, EstimatorSpec, ModelSpec

    columns = tuple(column._replace(values=()) for column in schema.columns)
    estimator = EstimatorSpec("onnx", "imported")
    return ModelSpec(name, task, label or "label", columns, estimator, data=DataSpec(extra="ignore"))


@contextmanager
def each_sound(models: Sequence[str], look: Callable[[str], T]) -> Iterator[list[T]]:
    """Yield what `look` tells of each model whose log is sound; at the end IntegrityError names the others."""
    from core.errors import IntegrityError

    found, broken = [], []
    for model in models:
        try:
            found.append(look(model))
        except IntegrityError:
            broken.append(model)
    yield found
    if broken:
        raise IntegrityError(f"the log of {', '.join(broken)} is broken; polysky models verify MODEL tells where")


def person() -> str:
    """Return who is at this terminal, for the log."""
    try:
        return f"cli:{getpass.getuser()}"[:64]
    except (KeyError, OSError):
        return "cli"


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, soft_wrap=True).print(table)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a function (stage, done, total) that draws progress on stderr, if people look at it."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    parts = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total or None)

        yield report


@contextmanager
def whole_file(out: str) -> Iterator[TextIO]:
    """Yield a text file that becomes `out` when all went well; - is stdout. A device or a pipe is written to."""
    if out == DASH:
        yield sys.stdout
        return
    if os.path.exists(out) and not os.path.isfile(out):  # /dev/null must not become a file
        with open(out, "w", encoding="utf-8", newline="") as file:
            yield file
        return
    target = os.path.realpath(out)  # a link goes on pointing where it did
    fd, temporary = _beside(target, out)
    try:
        with open(fd, "w", encoding="utf-8", newline="") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _beside(target: str, out: str) -> tuple[int, str]:
    """Return a new file in the target's folder. Raises OSError that names `out`."""
    try:
        return tempfile.mkstemp(dir=os.path.dirname(target), prefix=".polysky-")
    except OSError as error:
        raise OSError(error.errno, error.strerror, out) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
