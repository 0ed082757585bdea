"""Every regular expression of the product, and hostile texts to try on it: `python -m tests.attacks.patterns`."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("core", "handlers_aws", "handlers_azure", "handlers_gcp", "handlers_onprem")
FUNCTIONS = {"compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer", "subn"}
LENGTH = 20_000
PIECES = (
    "a",
    "A",
    "0",
    " ",
    "\t",
    "\n",
    "_",
    "-",
    ".",
    "/",
    "%",
    "%4",
    "%2F",
    ",",
    '"',
    "\\",
    "'",
    "=",
    "(",
    "[",
    "{",
    "a.",
    "a-",
    "a ",
    "a,",
    "0.",
    "1e",
    "0 ",
    '",',
    '\\"',
    "aA0",
    "é",
    "\u0301",
    "a/",
    "@a",
    "&a",
    "<a",
    ":",
    "+",
)
PREFIXES = ("", "a", "a/b", "https://", "0")
ENDS = ("!", "\n")


class Pattern(NamedTuple):
    """A compiled expression and where it stands; None if it is made while running.

    `searched`: it is looked for anywhere in a text, not only matched from the start.
    """

    place: str
    expression: re.Pattern[str] | None
    searched: bool = False


def patterns() -> Iterator[Pattern]:
    """Yield what every call of `re` in the product compiles."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from _of(path)


def _of(path: Path) -> Iterator[Pattern]:
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    source = path.read_text()
    names = set(re.findall(r"(\w+)\.(?:search|sub|subn|split|findall|finditer)\(", source))
    tree = ast.parse(source)
    owners = {
        id(node.value): ast.unparse(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign)
    }
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in {f"re.{function}" for function in FUNCTIONS}:
            anywhere = ast.unparse(call.func).removeprefix("re.") not in ("compile", "match", "fullmatch")
            searched = anywhere or owners.get(id(call), "") in names
            yield Pattern(f"{name}:{call.lineno}", _compiled(call, name.replace("/", ".")), searched)


def _compiled(call: ast.Call, module: str) -> re.Pattern[str] | None:
    space = vars(importlib.import_module(module))
    is_compile = ast.unparse(call.func) == "re.compile"
    given = [keyword.value for keyword in call.keywords if keyword.arg == "flags"] + (
        call.args[1:2] if is_compile else []
    )
    given += [arg for arg in call.args[1:] if ast.unparse(arg).startswith("re.") and not is_compile]
    try:
        source, flags = _value(call.args[0], space), _value(given[0], space) if given else 0
    except NameError:
        return None  # of names that only exist while running
    found: Any = re.compile(source, flags)
    return found if isinstance(found.pattern, str) else re.compile(found.pattern.decode("latin-1"), flags)


def _value(node: ast.expr, space: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<pattern>", "eval"), space)


def attack(expression: re.Pattern[str], *, searched: bool = False, length: int = LENGTH) -> int:
    """Return how many hostile texts were tried; a pattern that is not linear does not come back in time."""
    count = 0
    for piece in PIECES:
        for prefix in PREFIXES:
            for end in ENDS:
                text = prefix + piece * (length // len(piece)) + end
                expression.fullmatch(text)
                expression.match(text)
                if searched:
                    expression.search(text)
                count += 1
    return count


def main() -> None:
    """Attack every pattern, or those given; print each place once it is done."""
    given = [Pattern(text, re.compile(text)) for text in sys.argv[1:]]
    for place, expression, searched in given or patterns():
        if expression is not None:
            print(place, attack(expression, searched=searched), flush=True)


if __name__ == "__main__":
    main()
