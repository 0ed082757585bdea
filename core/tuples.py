"""NamedTuple, as typing has it, but made without compiling anything.

typing and collections compile source text for each class and each annotation, and that at each cold start: 8 of
the 30 ms that our modules took to import. Type checkers see typing's. A module that makes such classes begins with
`from __future__ import annotations`: newer Pythons give a class no annotations while it is made, otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    # what namedtuple itself reads a field by: an itemgetter takes twice as long
    from _collections import _tuplegetter

    def _unfitting(cls):
        return TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)}")

    class _Maker(type):
        """Makes the annotations of a class its fields."""

        def __new__(mcs, name, bases, space):
            space.setdefault("__slots__", ())
            fields = tuple(space.get("__annotations__", ()))
            if fields:
                defaults = {field: space[field] for field in fields if field in space}
                space |= {field: _tuplegetter(index, None) for index, field in enumerate(fields)}
                space |= {"_fields": fields, "__match_args__": fields, "_field_defaults": defaults}
                space |= {"_size": len(fields), "_last": tuple(defaults.values())}
            return super().__new__(mcs, name, bases, space)

    class NamedTuple(tuple, metaclass=_Maker):
        """A tuple whose fields have names, types and defaults: those of the subclass's annotations."""

        def __new__(cls, /, *values, **named):
            """Return one of these values. Raises TypeError unless each field gets one."""
            if named:
                values = cls._placed(values, named)
            elif len(values) < cls._size:
                values += cls._last[len(values) - cls._size :]
            if len(values) != cls._size:
                raise _unfitting(cls)
            return tuple.__new__(cls, values)

        @classmethod
        def _placed(cls, values, named):
            last = cls._field_defaults
            rest = cls._fields[len(values) :]
            try:
                values += tuple([named.pop(field) if field in named else last[field] for field in rest])
            except KeyError:
                raise _unfitting(cls) from None
            if named:
                raise _unfitting(cls)
            return values

        @classmethod
        def _make(cls, values):
            made = tuple.__new__(cls, values)
            if len(made) != cls._size:
                raise _unfitting(cls)
            return made

        def _replace(self, /, **named):
            made = [named.pop(field) if field in named else value for field, value in self._asdict().items()]
            if named:
                raise _unfitting(type(self))
            return tuple.__new__(type(self), made)

        __replace__ = _replace

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            inner = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({inner})"

        def __getnewargs__(self):
            return tuple(self)
