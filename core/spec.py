"""ModelSpec: what to learn from which columns, how, and what a new version must prove. Read from TOML or a dict.

The dict form (`to_dict`) is JSON-safe and keeps the order of the columns; it stands in a model's manifest.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from core.errors import ConfigError, Problem
from core.kinds import estimator_kind
from core.rules import HEAD, OPTIONS, REQUIRED, SECTIONS, SHAPES, Rule
from core.schema import KINDS, Column, Schema

MAX_SPEC_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DataSpec:
    """How files are read. `quarantine` is the share of rows with bad cells that may be set aside (0: none)."""

    extra: str = "error"  # columns that the spec does not list: error | ignore
    missing: tuple[str, ...] = ()  # cells that mean "missing" besides the empty one, in text files
    quarantine: float = 0.0


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """What classes the labels may form."""

    min_rows: int = 2  # rows that a class must have
    rare: str = "error"  # classes with fewer rows: error | drop
    new: str = "error"  # classes that the serving model does not know: error | accept


@dataclass(frozen=True, slots=True)
class EstimatorSpec:
    """The estimator: kind (file), algorithm in it, its scikit-learn parameters."""

    kind: str
    algorithm: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """A search over parameters; keys are estimator parameters or "COLUMN.option" for feature options."""

    method: str = "grid"  # grid | randomized | halving
    params: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    folds: int = 5
    iterations: int = 20
    scoring: str | None = None


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """The holdout: rows whose keyed digest falls under the fraction."""

    holdout: float = 0.2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GateSpec:
    """What a challenger must prove before it takes the production alias."""

    metric: str | None = None  # None: accuracy for classification, r2 for regression
    max_drop: float = 0.005
    minimum: Mapping[str, float] = field(default_factory=dict)
    last_n: int = 5
    allow_leakage: bool = False
    allow_suspicion: bool | None = None  # True: uploads whose labels look wrong are pointed out, not held back


@dataclass(frozen=True, slots=True)
class RetrainSpec:
    """What a retraining learns from."""

    data: str = "union"  # union | upload
    min_rows: int = 1


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its columns in order, label, estimator and rules."""

    name: str
    task: str  # classification | regression
    label: str
    columns: tuple[Column, ...]
    estimator: EstimatorSpec
    search: SearchSpec | None = None
    balance: str = "none"  # none | class_weight | oversample | undersample | smote
    data: DataSpec = DataSpec()
    labels: LabelSpec = LabelSpec()
    split: SplitSpec = SplitSpec()
    gate: GateSpec = GateSpec()
    retrain: RetrainSpec = RetrainSpec()

    def schema(self) -> Schema:
        """Return the schema of a row."""
        return Schema(self.columns)

    def metric(self) -> str:
        """Return the name of the metric that the gate compares."""
        return self.gate.metric or ("accuracy" if self.task == "classification" else "r2")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-safe form, defaults included, columns as a list in order."""
        head = {"name": self.name, "task": self.task, "label": self.label, "balance": self.balance}
        sections = {name: _section(getattr(self, name)) for name in SECTIONS}
        return {**head, "columns": [_column_dict(column) for column in self.columns], **sections}

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON of the dict form."""
        text = json.dumps(
            self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return hashlib.sha256(text.encode()).hexdigest()


def _section(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    plain = {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(value).items()}
    return {key: item for key, item in plain.items() if item is not None}


def _column_dict(column: Column) -> dict[str, Any]:
    shape: dict[str, Any] = {"width": column.width} if column.width else {}
    if column.values:
        shape["values"] = list(column.values)
    return {"name": column.name, "kind": column.kind, **shape, **column.options}


def load_spec(path: str) -> ModelSpec:
    """Return the spec of a TOML file. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SPEC_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the spec: {error.strerror}", path=path) from error
    if len(data) > MAX_SPEC_BYTES:
        raise ConfigError(f"the spec is over {MAX_SPEC_BYTES} bytes", path=path)
    try:
        return parse_toml(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError("the spec is not UTF-8", path=path) from None


def parse_toml(text: str) -> ModelSpec:
    """Return the spec of TOML text. Raises ConfigError."""
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the spec is not TOML: {error}") from error
    return from_dict(value)


def from_dict(value: Mapping[str, Any]) -> ModelSpec:
    """Return the spec of its dict form (or of parsed TOML).

    Raises ConfigError with every problem at once; each names its path, such as columns.text.ngrams.
    """
    problems: list[Problem] = []
    given = {key: item for key, item in value.items() if item is not None}
    head = _read({k: v for k, v in given.items() if k in HEAD}, HEAD, "", REQUIRED["head"], problems)
    columns = _columns(given.get("columns"), problems)
    sections = {name: _section_values(name, given.get(name), problems) for name in SECTIONS}
    known = {*HEAD, *SECTIONS, "columns"}
    problems += [Problem("is not a key of a model spec", str(key)[:64]) for key in given if key not in known]
    if not problems:
        _check_together(head, columns, sections, problems)
    if problems:
        text = "; ".join(f"{problem.field} {problem.message}" for problem in problems)
        raise ConfigError(f"the spec has {len(problems)} problem(s): {text}", problems=tuple(problems))
    return _build(head, columns, sections, searching="search" in given)


def _build(
    head: Mapping[str, Any], columns: tuple[Column, ...], sections: Mapping[str, Any], *, searching: bool
) -> ModelSpec:
    data = sections["data"]
    return ModelSpec(
        **head,
        columns=columns,
        estimator=EstimatorSpec(**sections["estimator"]),
        search=SearchSpec(**sections["search"]) if searching else None,
        data=DataSpec(**{**data, "missing": tuple(data.get("missing", ()))}),
        labels=LabelSpec(**sections["labels"]),
        split=SplitSpec(**sections["split"]),
        gate=GateSpec(**sections["gate"]),
        retrain=RetrainSpec(**sections["retrain"]),
    )


def _read(
    table: Any, rules: Mapping[str, Rule], path: str, required: Sequence[str], problems: list[Problem]
) -> dict[str, Any]:
    """Return the values of one table that pass their rules; report the rest under `path`."""
    if not isinstance(table, Mapping):
        problems.append(Problem("must be a table", path.rstrip(".")))
        return {}
    good: dict[str, Any] = {}
    for key, item in table.items():
        if key not in rules:
            problems.append(Problem(f"is not one of {', '.join(rules)}", f"{path}{key}"[:128]))
        elif not rules[key].allows(item):
            problems.append(Problem(f"must be {rules[key].words}", path + key))
        else:
            good[key] = item
    problems += [Problem("is missing", path + key) for key in required if key not in table]
    return good


def _section_values(name: str, table: Any, problems: list[Problem]) -> dict[str, Any]:
    if table is None and name != "estimator":
        return {}
    table = {} if table is None else table
    return _read(table, SECTIONS[name], f"{name}.", REQUIRED.get(name, ()), problems)


def _columns(value: Any, problems: list[Problem]) -> tuple[Column, ...]:
    """Return the columns of a table of tables (TOML) or of a list of tables with a name each (dict form)."""
    named: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        named = list(value.items())
    elif isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        named = [(item.get("name"), {k: v for k, v in item.items() if k != "name"}) for item in value]
    if not named:
        problems.append(Problem("must be a table of at least one column", "columns"))
    names = [name for name, _ in named]
    for name in {name for name in names if names.count(name) > 1}:
        problems.append(Problem("stands there twice", f"columns.{name}"))
    found = (_column(name, table, problems) for name, table in named)
    return tuple(column for column in found if column is not None)


def _column(name: Any, table: Any, problems: list[Problem]) -> Column | None:
    path = f"columns.{name}"
    if not HEAD["label"].allows(name):
        problems.append(Problem(f"must be named by {HEAD['label'].words}", path[:128]))
        return None
    kind = table.get("kind") if isinstance(table, Mapping) else None
    if kind not in KINDS:
        problems.append(Problem(f"must be one of {', '.join(KINDS)}", f"{path}.kind"))
        return None
    shape = SHAPES.get(kind, {})
    rest = {key: item for key, item in table.items() if key != "kind"}
    needed = ("width",) if kind == "vector" else ()
    values = _read(rest, {**OPTIONS[kind], **shape}, f"{path}.", needed, problems)
    options = {key: item for key, item in values.items() if key not in shape}
    return Column(name, kind, options, values.get("width", 0), tuple(values.get("values", ())))


def _check_together(
    head: Mapping[str, Any], columns: Sequence[Column], sections: Mapping[str, Any], problems: list[Problem]
) -> None:
    """Report what no single value shows: task against algorithm, label among the columns, search keys."""
    estimator, task = sections["estimator"], head["task"]
    algorithms = estimator_kind(estimator["kind"]).ALGORITHMS
    if estimator["algorithm"] not in algorithms:
        problems.append(Problem(f"must be one of {', '.join(sorted(algorithms))}", "estimator.algorithm"))
    elif task not in algorithms[estimator["algorithm"]]:
        problems.append(Problem(f"cannot do {task}", "estimator.algorithm"))
    if any(column.name == head["label"] for column in columns):
        problems.append(Problem("is also the label", f"columns.{head['label']}"))
    if task == "regression" and head.get("balance", "none") != "none":
        problems.append(Problem('must be "none" for regression', "balance"))
    kinds = {column.name: column.kind for column in columns}
    for key, candidates in sections["search"].get("params", {}).items():
        _check_search(key, candidates, kinds, problems)


def _check_search(key: str, candidates: Sequence[Any], kinds: Mapping[str, str], problems: list[Problem]) -> None:
    column, dot, option = key.rpartition(".")
    path = f"search.params.{key}"
    if not dot:
        return
    rules = OPTIONS.get(kinds.get(column, ""), {})
    if option not in rules:
        problems.append(Problem("names no option of a column (COLUMN.option)", path))
    elif not all(map(rules[option].allows, candidates)):
        problems.append(Problem(f"must be a list of values, each {rules[option].words}", path))
