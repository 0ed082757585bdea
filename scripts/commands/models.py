"""`polysky models …`: the registry at the terminal."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from core.errors import ConfigError, IntegrityError
from core.registry import Registry, VersionView
from core.state import PRODUCTION, Alias
from scripts.console import (
    each_sound,
    find_registry,
    find_store,
    json_option,
    print_json,
    print_table,
    store_option,
)

Function = TypeVar("Function", bound=Callable[..., Any])
HEADLINE = ("accuracy", "macro_f1", "r2", "rmse")


def _reason_option(function: Function) -> Function:
    return click.option("--reason", default="", help="Why, for the history.")(function)


@click.group("models")
def models_command() -> None:
    """Versions, aliases, history; promote, roll back, retire."""


@models_command.command("list")
@store_option
@json_option
def show_all(store: str | None, as_json: bool) -> None:
    """List the models of the store."""
    registry = find_registry(find_store(store, note=True))
    with each_sound(registry.models(), lambda name: _summary(registry, name)) as found:
        if as_json:
            print_json(found)
            return
        headings = ("model", "production", "metrics", "versions", "since")
        rows = [
            (m["model"], m["production"] or "", _headline(m["metrics"]), m["versions"], m["since"] or "")
            for m in found
        ]
        print_table(headings, rows)


def _summary(registry: Registry, name: str) -> dict[str, Any]:
    state = registry.state(name)
    alias = state.aliases.get(PRODUCTION)
    version = alias.splits[0].version if alias else None
    return {
        "model": name,
        "production": _pointed(alias) if alias else None,
        "metrics": dict(state.versions[version].metrics) if version else {},
        "versions": len(state.versions),
        "since": _time(alias.ts) if alias else None,
    }


@models_command.command("show")
@click.argument("model")
@store_option
@json_option
def show(model: str, store: str | None, as_json: bool) -> None:
    """Show a model's versions, newest first, and who points to them."""
    found = find_registry(find_store(store)).versions(model)
    if as_json:
        print_json([_version_dict(view) for view in found])
        return
    rows = [
        (
            view.version,
            _time(view.created),
            ", ".join(view.aliases) or ("retired" if view.retired is not None else ""),
            _headline(view.metrics),
            _size(view.size),
            _verdict(view.gate),
        )
        for view in found
    ]
    print_table(("version", "created", "aliases", "metrics", "size", "gate"), rows)


@models_command.command("promote")
@click.argument("model")
@click.argument("version")
@click.option("--alias", default=PRODUCTION, show_default=True, help="The alias to move.")
@_reason_option
@store_option
@json_option
def promote(*, model: str, version: str, alias: str, reason: str, store: str | None, as_json: bool) -> None:
    """Point an alias (production) to a version. Servers follow within seconds."""
    registry = find_registry(find_store(store))
    moved = registry.move(model, alias, version, op_id=_op_id(), role="operator", reason=reason)
    _tell_move(model, alias, moved, as_json)


@models_command.command("rollback")
@click.argument("model")
@click.option("--to", metavar="VERSION", help="The version to go back to (default: the one before).")
@_reason_option
@store_option
@json_option
def rollback(*, model: str, to: str | None, reason: str, store: str | None, as_json: bool) -> None:
    """Put production back to the version before. Servers follow within seconds."""
    registry = find_registry(find_store(store))
    registry.versions(model)  # names an unknown model as such
    moved = registry.rollback(model, to=to, op_id=_op_id(), role="operator", reason=reason)
    _tell_move(model, PRODUCTION, moved, as_json)


@models_command.command("history")
@click.argument("model")
@click.option("--at", metavar="TIME", help="As of a time: 2026-01-31T12:00:00Z.")
@click.option("--limit", default=30, show_default=True, type=click.IntRange(1, 10_000), help="Entries to show.")
@store_option
@json_option
def history(*, model: str, at: str | None, limit: int, store: str | None, as_json: bool) -> None:
    """Tell who did what and why, newest first, and where each alias pointed."""
    found = find_registry(find_store(store)).history(model, at=_moment(at), limit=limit)
    if as_json:
        aliases = {name: {"rev": alias.rev, "points_to": _pointed(alias)} for name, alias in found.aliases.items()}
        print_json({"entries": found.entries, "aliases": aliases})
        return
    rows = [(e["n"], _time(e["ts"]), e["op"], _what(e), e["actor"], e["reason"]) for e in found.entries]
    print_table(("n", "time", "op", "what", "who", "why"), rows)
    for name, alias in sorted(found.aliases.items()):
        click.echo(f"{name} → {_pointed(alias)} (revision {alias.rev})")


@models_command.command("retire")
@click.argument("model")
@click.argument("version")
@_reason_option
@store_option
def retire(*, model: str, version: str, reason: str, store: str | None) -> None:
    """Retire a version: no alias may take it again, its bytes may be collected."""
    registry = find_registry(find_store(store))
    registry.retire(model, version, op_id=_op_id(), role="operator", reason=reason)
    click.echo(f"{model}: {version} is retired")


@models_command.command("verify")
@click.argument("model")
@store_option
def verify(model: str, store: str | None) -> None:
    """Check a model's log from end to end, and mend alias documents that lag behind it."""
    registry = find_registry(find_store(store))
    bad = registry.verify_log(model)
    if bad is not None:
        raise IntegrityError(f"{model}: the log is broken at entry {bad}", entry=bad)
    registry.versions(model)  # names an unknown model as such
    mended = registry.repair_aliases(model)
    click.echo(f"{model}: {registry.state(model).head + 1} log entries are sound")
    if mended:
        click.echo(f"mended alias documents: {', '.join(mended)}")


@models_command.command("collect")
@click.argument("model")
@store_option
def collect(model: str, store: str | None) -> None:
    """Delete artifact bytes that the log proves nobody can need again."""
    swept = find_registry(find_store(store)).collect_garbage(model)
    click.echo(f"{model}: {len(swept.keys)} objects deleted, {_size(swept.size_bytes)}")


def _tell_move(model: str, alias: str, moved: Alias, as_json: bool) -> None:
    if as_json:
        print_json({"model": model, "alias": alias, "version": _pointed(moved), "rev": moved.rev})
    else:
        click.echo(f"{model}: {alias} → {_pointed(moved)}")


def _op_id() -> str:
    return f"cli-{uuid.uuid4().hex}"


def _pointed(alias: Alias) -> str:
    if len(alias.splits) == 1:
        return alias.splits[0].version
    return ", ".join(f"{split.version} ({split.weight})" for split in alias.splits)


def _version_dict(view: VersionView) -> dict[str, Any]:
    return {**view._asdict(), "metrics": dict(view.metrics), "aliases": list(view.aliases)}


def _headline(metrics: Mapping[str, Any]) -> str:
    shown = [f"{name} {metrics[name]:.4f}" for name in HEADLINE if isinstance(metrics.get(name), int | float)]
    return "  ".join(shown[:2])


def _verdict(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return ""
    reasons: Sequence[str] = gate.get("reasons", ())
    return "passed" if gate.get("passed") else "not passed: " + "; ".join(reasons)


def _what(entry: Mapping[str, Any]) -> str:
    if entry["op"] == "alias":
        return f"{entry['name']} → {', '.join(split['version'] for split in entry['splits'])}"
    found = entry.get("version") or entry.get("key") or ""
    return str(found)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


def _time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("--at must be a time such as 2026-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
