"""Values made from a JSON schema, some of them a little wrong."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from core.messages import EXAMPLES

WORDS = (
    "parcel",
    "card",
    "support",
    "production",
    "staging",
    "v-000000000004",
    "v-000000000005",
    "town",
    "a",
    "b",
    "",
)
KEYS = ("text", "size", "town", "label", "photo", "price", "x", "name", "shape", "datatype", "data", "columns")
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**53,
    10**30,
    1e308,
    -0.0,
    "",
    "\0",
    "\u2028",
    "\ud83d\ude00",
    [],
    {},
    [[]],
)


class Sampler:
    """Makes values for the schemas of a document."""

    def __init__(self, document: Mapping[str, Any], rng: random.Random, canary: str) -> None:
        self._schemas, self._rng, self._canary = document["components"]["schemas"], rng, canary

    def body(self, name: str) -> Any:
        """Return a body for a message type: sound, an example, or with something wrong somewhere."""
        rng = self._rng
        if name in EXAMPLES and rng.random() < 0.3:
            return EXAMPLES[name]
        value = self.value(self._schemas[name], 4, few=rng.random() < 0.7)
        return self.nameless(self.wronged(value) if rng.random() < 0.4 else value)

    def nameless(self, value: Any, inside: str = "") -> Any:
        """Return the value without the secret where it names a column: those may come back in answers."""
        if isinstance(value, dict):
            return {name: self.nameless(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self.nameless(part, inside) for part in value]
        is_name = isinstance(value, str) and inside in ("columns", "name", "inputs")
        return value.replace(self._canary, "column") if is_name else value

    def value(self, schema: Mapping[str, Any], depth: int, *, few: bool = False) -> Any:
        """Return a value that the schema allows, as far as it tells; of an object's optional parts `few`."""
        rng = self._rng
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if "anyOf" in schema:
            return self.value(rng.choice(schema["anyOf"]), depth)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        make = getattr(self, f"_{schema.get('type', 'any')}")
        return make(schema, depth, few) if schema.get("type") == "object" else make(schema, depth)

    def wronged(self, value: Any) -> Any:
        """Return the value with one part of it replaced, added or taken away."""
        rng = self._rng
        if isinstance(value, dict) and value and rng.random() < 0.8:
            name = rng.choice(list(value))
            if rng.random() < 0.2:
                return {**value, rng.choice(KEYS): self.leaf()}  # names of keys may come back, values may not
            return {**value, name: self.wronged(value[name])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            return [*value[:at], self.wronged(value[at]), *value[at + 1 :]]
        return rng.choice(ODD) if rng.random() < 0.7 else self.leaf()

    def leaf(self) -> Any:
        """Return a text or a number."""
        return self._string({}, 0) if self._rng.random() < 0.7 else self._number({}, 0)

    def _object(self, schema: Mapping[str, Any], depth: int, few: bool) -> Any:
        rng = self._rng
        properties = schema.get("properties", {})
        required = set(schema.get("required", ()))
        more = rng.sample(list(properties), min(len(properties), rng.choice([1, 1, 2] if few else [1, 2, 4])))
        found = {name: self.value(properties[name], depth - 1) for name in required | set(more)}
        if isinstance(schema.get("additionalProperties"), dict) and depth > 0:
            names = rng.sample(KEYS, rng.randint(0, 3))
            found |= {name: self.value(schema["additionalProperties"], depth - 1) for name in names}
        return found

    def _array(self, schema: Mapping[str, Any], depth: int) -> Any:
        count = self._rng.choice([1, 1, 2, 3, 9]) if depth > 0 else schema.get("minItems", 0)
        return [self.value(schema.get("items", {}), depth - 1) for _ in range(count)]

    def _string(self, schema: Mapping[str, Any], depth: int) -> Any:
        rng = self._rng
        if "pattern" in schema and rng.random() < 0.7:
            return rng.choice(("support", "prices", "production", "staging", "v-000000000004"))
        if rng.random() < 0.5:
            return f"{self._canary} {rng.choice(WORDS)}"
        return rng.choice(WORDS)

    def _number(self, schema: Mapping[str, Any], depth: int) -> Any:
        return self._rng.choice([0, 1, 2.5, -3, 1e6, 0.1, schema.get("minimum", 7)])

    def _integer(self, schema: Mapping[str, Any], depth: int) -> Any:
        return self._rng.choice([0, 1, 2, 10, schema.get("minimum", 5)])

    def _boolean(self, schema: Mapping[str, Any], depth: int) -> Any:
        return self._rng.random() < 0.5

    def _null(self, schema: Mapping[str, Any], depth: int) -> Any:
        return None

    def _any(self, schema: Mapping[str, Any], depth: int) -> Any:
        if depth <= 0:
            return self.leaf()
        kinds: list[Any] = [
            {"type": "array", "items": {}},
            {"type": "object", "additionalProperties": {}},
            {"type": "string"},
        ]
        return self.value(self._rng.choice(kinds), depth - 1)
