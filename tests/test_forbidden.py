"""What no source file may do: run code from data, start a shell, or load training libraries at import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# the operator's explicit, local act; and what is measured against
MAY_UNPICKLE = ("core/importing.py", "scripts/bench/")
TRAINING_LIBRARIES = {"sklearn", "scipy", "pandas", "joblib", "imblearn", "skl2onnx"}
PROVIDERS = (
    *("boto3", "botocore", "aws_lambda_powertools", "google.cloud", "google.auth", "google.api_core"),
    *("azure", "flask", "functions_framework"),
)


def _sources() -> list[str]:
    folders = [ROOT / "core", ROOT / "scripts", *sorted(ROOT.glob("handlers_*"))]
    return [str(path.relative_to(ROOT)) for folder in folders for path in sorted(folder.rglob("*.py"))]


def _name(node: ast.expr) -> str:
    """Return the dotted name of a call's function, as far as it is one."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


FORBIDDEN_IMPORTS = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "code",
    "codeop",
    "pty",
}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "__builtins__"}
FORBIDDEN_CALLS = {
    *FORBIDDEN_NAMES,
    *(f"builtins.{name}" for name in FORBIDDEN_NAMES),
    *("joblib.load", "torch.load", "pandas.read_pickle", "numpy.lib.format.read_array"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "runpy.run_path", "types.CodeType", "types.FunctionType"),
    *("tempfile.mktemp", "ssl._create_unverified_context"),
}
_SAFE_VALUES = {"shell": False, "allow_pickle": False, "verify": True}


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Return what the names that imports bind stand for: `import os as o` and `from os import system as s`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _spelt_out(name: str, aliases: dict[str, str]) -> str:
    head, dot, rest = name.partition(".")
    return aliases.get(head, head) + dot + rest


def _is_reached_by_text(node: ast.Call) -> bool:
    """Tell whether a call looks a forbidden thing up by its name: import_module("pickle"), getattr(x, "eval")."""
    texts = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    called = _name(node.func).rpartition(".")[2]
    if called in ("import_module", "find_spec"):
        return any(text.split(".")[0] in FORBIDDEN_IMPORTS for text in texts)
    return called == "getattr" and any(text in FORBIDDEN_NAMES - {"compile"} for text in texts)


def _faults(node: ast.AST, aliases: dict[str, str]) -> Iterator[str]:
    for name in _imported(node):
        if name.split(".")[0] in FORBIDDEN_IMPORTS or name in FORBIDDEN_CALLS:
            yield f"import {name}"
    if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:  # called, or handed on
        yield f"{node.id} in line {node.lineno}"
    if not isinstance(node, ast.Call):
        return
    if _spelt_out(_name(node.func), aliases) in FORBIDDEN_CALLS:
        yield f"{_name(node.func)}() in line {node.lineno}"
    if _is_reached_by_text(node):
        yield f"{_name(node.func)}() by name in line {node.lineno}"
    for keyword in node.keywords:
        if keyword.arg in _SAFE_VALUES and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is _SAFE_VALUES[keyword.arg]
        ):
            yield f"{keyword.arg} in line {node.lineno}"


def violations(source: str) -> list[str]:
    """Return the forbidden things that a source text does, one text each."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    return [fault for node in ast.walk(tree) for fault in _faults(node, aliases)]


def module_level_imports(source: str) -> set[str]:
    """Return the dotted names that importing this source imports (not what its functions import)."""

    def walk(nodes: Iterable[ast.AST]) -> Iterator[str]:
        for node in nodes:
            yield from _imported(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.If) and _name(node.test).endswith("TYPE_CHECKING"):
                continue
            yield from walk(ast.iter_child_nodes(node))

    return set(walk(ast.parse(source).body))


def loaded_by(roots: Iterable[str]) -> dict[str, set[str]]:
    """Return the top-level packages that each module loads, for all of our modules that `roots` load."""
    found: dict[str, set[str]] = {}
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        names = module_level_imports((ROOT / path).read_text())
        found[path] = {name.split(".")[0] for name in names}
        ours = (part.replace(".", "/") + ".py" for name in names for part in (name, name.rpartition(".")[0]))
        waiting += [path for path in ours if (ROOT / path).is_file()]
    return found


def all_imports(source: str) -> set[str]:
    """Return the dotted names that a source imports anywhere."""
    return {name for node in ast.walk(ast.parse(source)) for name in _imported(node)}


def within(names: Iterable[str], packages: Iterable[str]) -> set[str]:
    """Return those of the dotted names that lie in one of the packages."""
    return {name for name in names for package in packages if f"{name}.".startswith(f"{package}.")}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib\njoblib.load(f)",
        "from joblib import load",
        "eval('1')",
        "exec(text)",
        "import yaml\nyaml.load(f)",
        "run('ls', shell=True)",
        "run('ls', shell=flag)",
        "numpy.load(f, allow_pickle=True)",
        "def f():\n    from yaml import load",
        "os.system('ls')",
        "import os as o\no.system('ls')",
        "from os import popen as p\np('ls')",
        "import pickle as p",
        "from _pickle import loads",
        "import yaml\nyaml.unsafe_load(f)",
        "run = eval",
        "map(exec, lines)",
        "getattr(builtins, 'eval')('1')",
        "__builtins__['eval']('1')",
        "import builtins as b\nb.exec(text)",
        "importlib.import_module('pickle')",
        "from importlib import import_module\nimport_module('marshal')",
        "import pandas as pd\npd.read_pickle(f)",
        "subprocess.getoutput('ls')",
        "asyncio.create_subprocess_shell('ls')",
        "tempfile.mktemp()",
        "requests.get(url, verify=False)",
        "Popen('ls', shell=1)",
    ],
)
def test_the_rule_sees_a_planted_violation(line: str) -> None:
    assert violations(line)


@pytest.mark.parametrize(
    "line",
    [
        "numpy.load(f, allow_pickle=False)",
        "run(['ls'], shell=False)",
        "re.compile('x')",
        "joblib.Parallel()",
        "import_module('json')",
        "yaml.safe_load(f)",
        "get(url, verify=True)",
        "evaluate(x)",
    ],
)
def test_the_rule_lets_harmless_code_pass(line: str) -> None:
    assert violations(line) == []


def test_only_the_importer_runs_code_from_data() -> None:
    found = {
        path: violations((ROOT / path).read_text()) for path in _sources() if not path.startswith(MAY_UNPICKLE)
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_what_the_importer_and_the_benchmarks_do_is_what_they_may() -> None:
    """An exception that is needed no more must go."""
    found = {path for path in _sources() if violations((ROOT / path).read_text())}
    assert {name: any(path.startswith(name) for path in found) for name in MAY_UNPICKLE} == dict.fromkeys(
        MAY_UNPICKLE, True
    )


def test_importing_what_serves_and_what_starts_loads_no_training_library() -> None:
    kinds = [path for path in _sources() if path.startswith(("core/features/", "core/estimators/"))]
    commands = [path for path in _sources() if path.startswith(("scripts/cli", "scripts/commands/"))]
    loaded = loaded_by(["core/app.py", "core/reader.py", "handlers_onprem/server.py", *kinds, *commands])
    assert {path: names & TRAINING_LIBRARIES for path, names in loaded.items() if names & TRAINING_LIBRARIES} == {}


def test_core_names_no_provider() -> None:
    paths = [path for path in _sources() if path.startswith("core/")]
    found = {path: within(all_imports((ROOT / path).read_text()), PROVIDERS) for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


def test_handlers_are_independent_of_each_other() -> None:
    handlers = {path.name for path in ROOT.glob("handlers_*")}
    paths = [path for path in _sources() if path.startswith("handlers_")]
    found = {}
    for path in paths:
        others = handlers - {path.split("/")[0]} | {"scripts", "tests"}
        found[path] = within(all_imports((ROOT / path).read_text()), others)
    assert {path: names for path, names in found.items() if names} == {}


def test_the_entry_points_of_a_platform_are_short() -> None:
    lengths = {
        path: len((ROOT / path).read_text().splitlines()) for path in _sources() if path.endswith("/main.py")
    }
    assert set(lengths) == {f"handlers_{name}/main.py" for name in ("aws", "azure", "gcp", "onprem")}
    assert {path: lines for path, lines in lengths.items() if lines >= 80} == {}


def test_a_provider_is_seen_inside_a_function_and_protobuf_is_none() -> None:
    source = (
        "def f():\n    from google.cloud import storage\n    import boto3\nfrom google.protobuf import message\n"
    )
    assert within(all_imports(source), PROVIDERS) == {"google.cloud.storage", "boto3"}


def test_module_level_imports_sees_classes_and_branches_but_no_functions() -> None:
    source = (
        "import a\nif x:\n    import b\ntry:\n    import c\nexcept E:\n    import d\n"
        "class K:\n    import e\n    def f(self):\n        import g\n"
        "if TYPE_CHECKING:\n    import h\n"
    )
    assert module_level_imports(source) == {"a", "b", "c", "d", "e"}
