"""Bugs planted in memory: a line of a module is replaced, and every function made from it runs the new code."""

from __future__ import annotations

import gc
import importlib
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug: in `module`, `old` (which stands there once) is replaced by `new`."""

    name: str
    module: str
    old: str
    new: str


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Run the block with the bug. Raises ValueError if the patch does not fit, or changes nothing."""
    codes = changed_codes(mutant)
    found = [item for item in gc.get_objects() if type(item) is types.FunctionType and item.__code__ in codes]
    if not found:
        raise ValueError(f"{mutant.name}: no function runs the changed code")
    former = [(function, function.__code__) for function in found]
    try:
        for function, code in former:
            function.__code__ = codes[code]
        yield
    finally:
        for function, code in former:
            function.__code__ = code


def changed_codes(mutant: Mutant) -> dict[types.CodeType, types.CodeType]:
    """Return the code objects that the patch changes, each with what it becomes."""
    path = importlib.import_module(mutant.module).__file__
    assert path is not None
    source = Path(path).read_text()
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {source.count(mutant.old)} times in {mutant.module}")
    before = list(_codes(compile(source, path, "exec")))
    after = list(_codes(compile(source.replace(mutant.old, mutant.new), path, "exec")))
    if [code.co_qualname for code in before] != [code.co_qualname for code in after]:
        raise ValueError(f"{mutant.name}: it adds or removes functions")
    return {old: new for old, new in zip(before, after, strict=True) if old != new}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)
