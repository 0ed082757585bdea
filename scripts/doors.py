"""Which model and which deployment a command means that names neither fully: MODEL:N is move N of production."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from core.errors import Conflict, NotFound
from core.registry import Registry
from core.state import PRODUCTION, Split, State


def find_model(registry: Registry, model: str | None, has: Callable[[State], bool], what: str) -> str:
    """Return `model`, or the only one that has what is looked for. Raises NotFound, UsageError."""
    names = [model] if model else registry.models()
    found = [name for name in names if has(registry.state(name))]
    if not found:
        raise NotFound(f"{model} has no {what}" if model else f"no model has {what}")
    if len(found) > 1:
        raise click.UsageError(f"{', '.join(found)} have {what}: say --model")
    return found[0]


def deployment_id(registry: Registry, model: str) -> str:
    """Return the id of the deployment that serves: the entry of the log that moved production last."""
    return f"{model}:{registry.state(model).aliases[PRODUCTION].n}"


def before(registry: Registry, told: str) -> tuple[str, tuple[Split, ...]]:
    """Return the model of a deployment, and where production pointed before it.

    Raises UsageError, NotFound; Conflict if a later deployment stands, or there was none before.
    """
    model, colon, number = told.rpartition(":")
    if not colon or not (number.isascii() and number.isdigit()):
        raise click.UsageError(f"--deployment-id {told}: must be MODEL:N, as deploy tells it")
    moves = [move for move in registry.state(model).moves if move.name == PRODUCTION]
    at = next((place for place, move in enumerate(moves) if move.n == int(number)), None)
    if at is None:
        raise NotFound(f"{told} is no deployment: entry {number} of {model} did not move production")
    if at != len(moves) - 1:
        raise Conflict(f"{told} serves no more: {model}:{moves[-1].n} does")
    if at == 0:
        raise Conflict(f"{told} was the first deployment: there is nothing to go back to")
    return model, moves[at - 1].splits


def told(splits: Sequence[Split]) -> str:
    """Return where traffic goes, for people."""
    return ", ".join(f"{split.version} {split.weight} %" for split in splits)
