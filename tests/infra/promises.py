"""Promises of a stack, each with the edit that breaks it: what holds of the resources that were applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.infra.terraform import Stack

Values = Mapping[str, Any]  # of resources, by address


class Promise(NamedTuple):
    """What must hold of the resources, and an edit of one argument after which it does not."""

    holds: Callable[[Values], object]
    file: str
    old: str
    new: str


def values(stack: Stack) -> dict[str, Any]:
    """Return the values of what is applied, by address."""
    shown = json.loads(stack.run("show", "-json")).get("values", {"root_module": {"resources": []}})
    return {one["address"]: one["values"] for one in shown["root_module"]["resources"]}


def broken(promises: Mapping[str, Promise], found: Values) -> list[str]:
    """Return the promises that do not hold."""
    return [what for what, promise in promises.items() if not promise.holds(found)]


def spoil(promises: Mapping[str, Promise], stack: Stack) -> None:
    """Make every edit."""
    for promise in promises.values():
        stack.edit(promise.file, promise.old, promise.new)
