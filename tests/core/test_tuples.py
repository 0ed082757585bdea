"""core.tuples.NamedTuple does what typing's does; it only compiles nothing."""

from __future__ import annotations

import copy
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest

from core.tuples import NamedTuple


class Ours(NamedTuple):
    """A point."""

    x: int
    y: int = 2
    names: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.x + self.y

    def moved(self, by: int) -> Ours:
        """Return the point further right."""
        return self._replace(x=self.x + by)


class Theirs(typing.NamedTuple):
    """A point."""

    x: int
    y: int = 2
    names: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.x + self.y

    def moved(self, by: int) -> Theirs:
        """Return the point further right."""
        return self._replace(x=self.x + by)


def _matched(point: Any, kind: Any) -> Any:
    match point:
        case kind(x, y):
            return x, y


USES: dict[str, Callable[[Any], Any]] = {
    "by position": lambda kind: kind(1, 3, ("a",)),
    "with defaults": lambda kind: kind(1),
    "by name": lambda kind: kind(names=("b",), x=5),
    "by both": lambda kind: kind(1, names=("b",)),
    "fields": lambda kind: (kind(1, 3).x, kind(1, 3).y, kind(1).names, kind._fields, kind._field_defaults),
    "methods": lambda kind: (kind(1).total, kind(1).moved(4)),
    "as a dict": lambda kind: kind(1)._asdict(),
    "of an iterable": lambda kind: kind._make(iter((1, 2, ()))),
    "with one replaced": lambda kind: kind(1)._replace(names=("c",)),
    "unpacked": lambda kind: [*kind(1)],
    "compared": lambda kind: (kind(1) == kind(1, 2), kind(1) == (1, 2, ()), kind(1) < kind(2)),
    "hashed": lambda kind: hash(kind(1)),
    "written": lambda kind: repr(kind(1)).replace(kind.__name__, ""),
    "matched": lambda kind: _matched(kind(7), kind),
    "copied": lambda kind: (copy.copy(kind(1)), copy.deepcopy(kind(1))),
    "pickled": lambda kind: pickle.loads(pickle.dumps(kind(1))),
    "described": lambda kind: (kind.__doc__, kind.total.__doc__, typing.get_type_hints(kind)),
    "is a tuple": lambda kind: (isinstance(kind(1), tuple), len(kind(1)), kind(1)[0], kind(1)[1:]),
}
MISUSES: dict[str, Callable[[Any], Any]] = {
    "too few": lambda kind: kind(),
    "too many": lambda kind: kind(1, 2, (), 4),
    "unknown": lambda kind: kind(1, z=3),
    "twice": lambda kind: kind(1, x=3),
    "none by name": lambda kind: kind(y=3),
    "too few of an iterable": lambda kind: kind._make((1,)),
    "changed": lambda kind: setattr(kind(1), "x", 3),
    "new attribute": lambda kind: setattr(kind(1), "other", 3),
    "unknown replaced": lambda kind: kind(1)._replace(z=3),
}


@pytest.mark.parametrize("use", USES)
def test_a_tuple_does_what_typings_does(use: str) -> None:
    assert USES[use](Ours) == USES[use](Theirs)


@pytest.mark.parametrize("misuse", MISUSES)
def test_what_typings_refuses_is_refused(misuse: str) -> None:
    for kind in (Ours, Theirs):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            MISUSES[misuse](kind)


def test_a_refusal_names_the_fields() -> None:
    made: Any = Ours
    with pytest.raises(TypeError, match="Ours has the fields x, y, names"):
        made(1, z=3)
