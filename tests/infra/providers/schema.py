"""A provider's schema, from a compact file, and what it makes of values.

A file holds `provider` and, by type, `resources` and `data`, each a block: `a`, its attributes as [type, flags]
or [type, flags, possible values], where flags are "r" (required) or of "o" (optional) and "c" (computed); and `b`,
its nested blocks as [nesting, least, most, block]. They were made of the providers' published documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.infra.providers.protocol import MESSAGES

SCHEMAS = Path(__file__).parent / "schemas"
Change = Callable[[str, Any, Any], Any]
_LIST, _SET, _MAP = 2, 3, 4  # nestings of the protocol
_IDENTITIES = ("name", "account_id", "secret_id", "api_id", "gateway_id", "display_name")


def read(provider: str) -> dict[str, Any]:
    """Return the schema of a provider."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{provider}.json").read_text())
    return found


def described(block: dict[str, Any]) -> Any:
    """Return a block as the protocol's message."""
    return MESSAGES["Block"](
        attributes=[_attribute(name, *told) for name, told in block["a"].items()],
        block_types=[_nested(name, *told) for name, told in block["b"].items()],
    )


def _attribute(name: str, kind: Any, flags: str, *_: Any) -> Any:
    return MESSAGES["Attribute"](
        name=name,
        type=json.dumps(_type(kind)).encode(),
        required=flags == "r",
        optional="o" in flags,
        computed="c" in flags,
    )


def _nested(name: str, nesting: int, least: int, most: int, block: dict[str, Any]) -> Any:
    counted = least if nesting in (_LIST, _SET) else 0
    return MESSAGES["NestedBlock"](
        type_name=name, block=described(block), nesting=nesting, min_items=counted, max_items=most
    )


def _type(kind: Any) -> Any:
    if not isinstance(kind, list):
        return kind
    inner = {name: _type(one) for name, one in kind[1].items()} if kind[0] == "object" else _type(kind[1])
    return [kind[0], inner]


def fill(block: dict[str, Any], value: Any, change: Change) -> Any:
    """Return a block's value with each computed attribute changed, given its name, type and value."""
    if value is None:
        return None
    for name, (kind, flags, *_) in block["a"].items():
        if "c" in flags:
            value[name] = change(name, kind, value.get(name))
    for name, (nesting, _, _, inner) in block["b"].items():
        within = value.get(name)
        if isinstance(within, list):
            value[name] = [fill(inner, one, change) for one in within]
        elif isinstance(within, dict) and nesting == _MAP:
            value[name] = {key: fill(inner, one, change) for key, one in within.items()}
        elif isinstance(within, dict):
            value[name] = fill(inner, within, change)
    return value


def identity(kind: str, value: dict[str, Any]) -> str:
    """Return what names a resource, so that what is made up of it can be told from that of others."""
    return next((value[name] for name in _IDENTITIES if isinstance(value.get(name), str)), kind)


def made_up(owner: str, name: str, kind: Any) -> Any:
    """Return a value of a type for the attribute `name` of a resource."""
    if isinstance(kind, list):
        if kind[0] == "object":
            return {key: made_up(owner, key, one) for key, one in kind[1].items()}
        return {} if kind[0] == "map" else [made_up(owner, name, kind[1])]
    return {"string": f"{owner}.{name}", "number": 1, "bool": False}.get(kind)


def impossible(block: dict[str, Any], value: dict[str, Any], where: str) -> Iterator[str]:
    """Yield a text for each argument that is none, or has a value which the documentation does not know."""
    for name, (_, flags, *possible) in block["a"].items():
        given = value.get(name)
        if flags == "c" and given is not None:
            yield f"{where}.{name} is told by the cloud and cannot be given"
        if possible and possible[0] and isinstance(given, str) and given not in possible[0]:
            yield f"{where}.{name} is {given!r}; possible: {', '.join(possible[0])}"
    for name, (*_, inner) in block["b"].items():
        within = value.get(name)
        for one in within if isinstance(within, list) else []:
            if isinstance(one, dict):
                yield from impossible(inner, one, f"{where}.{name}")
