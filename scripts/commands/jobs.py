"""`polysky upload` and `polysky jobs …`."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import time
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import click

from core.errors import Exists, NotFound, TooLarge
from core.jobs import JobView, job_id, listed, parse_key, source_id, view, views
from core.keys import check_name
from core.registry import Registry
from scripts.console import (
    each_sound,
    find_registry,
    find_store,
    json_option,
    print_json,
    print_table,
    read_settings,
    store_option,
)


@click.command("upload")
@click.argument("model")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@store_option
@json_option
def upload_command(*, model: str, file: str, store: str | None, as_json: bool) -> None:
    """Drop a data file into the store: MODEL is retrained with it. The same file again has no effect."""
    check_name(model, "model")
    limit = read_settings(store).max_data_bytes
    if os.path.getsize(file) > limit:
        raise TooLarge(f"{file} is over the limit of {limit} bytes", limit=limit)
    with open(file, "rb") as stream:
        data = stream.read()
    target = find_store(store)
    _check_model(find_registry(target), model)
    key = f"uploads/{model}/{hashlib.sha256(data).hexdigest()[:16]}-{_safe(os.path.basename(file))}"
    try:
        token = target.put_if_absent(key, data)
    except Exists:
        token = target.head(key).token
    job = job_id(model, source_id(key, token))
    if as_json:
        print_json({"job_id": job, "key": key})
    else:
        click.echo(f"{key}\njob {job}")


def _check_model(registry: Registry, model: str) -> None:
    """Raise NotFound for a model that does not exist, and name the one that was probably meant."""
    known = registry.models()
    if model not in known:
        near = difflib.get_close_matches(model, known, 1)
        hint = f"did you mean {near[0]}?" if near else "train it first"
        raise NotFound(f"there is no model {model}: {hint}")


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-100:].lstrip(".-") or "data"


@click.group("jobs")
def jobs_command() -> None:
    """What became of uploads and requests."""


@jobs_command.command("list")
@click.argument("model", required=False)
@click.option("--limit", default=30, show_default=True, type=click.IntRange(1, 10_000), help="Jobs to show.")
@store_option
@json_option
def show_all(*, model: str | None, limit: int, store: str | None, as_json: bool) -> None:
    """List the jobs of a model, or of all, newest first."""
    registry = find_registry(find_store(store, note=True))
    names, now = [check_name(model, "model")] if model else _models(registry), time.time()
    with each_sound(names, lambda name: list(views(registry, name, now=now))) as found:
        jobs = sorted(chain.from_iterable(found), key=lambda job: -job.updated)[:limit]
        if as_json:
            print_json([_dict(job) for job in jobs])
            return
        rows = [
            (job.job_id, job.status, job.version or "", _time(job.updated), job.key, _why(job)) for job in jobs
        ]
        print_table(("job", "status", "version", "updated", "from", "why"), rows)


def _models(registry: Registry) -> list[str]:
    """Return the models that have jobs, known ones and those that an upload names."""
    waiting = (parse_key(entry.key) for entry in listed(registry))
    return sorted({*registry.models(), *(inbox.model for inbox in waiting if inbox)})


@jobs_command.command("show")
@click.argument("job")
@store_option
@json_option
def show(job: str, store: str | None, as_json: bool) -> None:
    """Tell how a job stands: its version, the gate's verdict, the reason."""
    found = view(find_registry(find_store(store)), job, now=time.time())
    if as_json:
        print_json(_dict(found))
        return
    gate = found.gate or {}
    rows = [
        ("job", found.job_id),
        ("status", found.status),
        ("from", found.key),
        ("attempt", found.attempt),
        ("version", found.version or ""),
        ("gate", {True: "passed", False: "not passed", None: ""}[gate.get("passed")]),
        ("why", _why(found)),
        ("updated", _time(found.updated)),
    ]
    print_table(("", ""), [row for row in rows if row[1] != ""])


def _dict(job: JobView) -> dict[str, Any]:
    return {
        **job._asdict(),
        "gate": dict(job.gate) if job.gate else None,
        "problems": list(map(dict, job.problems)),
    }


def _why(job: JobView) -> str:
    problems = [", ".join(f"{key} {value}" for key, value in problem.items()) for problem in job.problems[:3]]
    return "; ".join(filter(None, [job.reason, *problems, *(job.gate or {}).get("reasons", ())]))


def _time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
