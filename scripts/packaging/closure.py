"""Which of our modules a deployable needs: what its entry modules import, also inside functions."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path


def reachable(root: Path, entries: Iterable[str], stop: Collection[str] = ()) -> set[str]:
    """Return the dotted names of the modules below `root` that `entries` import, directly or not, and they.

    A module named in `stop` is neither followed nor returned.
    """
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or module in stop or (path := source_of(root, module)) is None:
            continue
        found.add(module)
        waiting += parents(module)
        waiting += imports(path.read_text())
    return found


def source_of(root: Path, module: str) -> Path | None:
    """Return the file of a module below `root`, None if it is not ours."""
    stem = root / module.replace(".", "/")
    return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)


def parents(module: str) -> list[str]:
    """Return the packages that importing a module imports."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def imports(source: str) -> set[str]:
    """Return the dotted names that a source text imports, in functions too, but not for type checking only."""
    return set(_imports(ast.parse(source)))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for other in node.orelse:
            yield from _imports(other)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports(child)
