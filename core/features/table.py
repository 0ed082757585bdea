"""Number and category columns: missing values, scaling, one-hot and ordinal codes, in one block.

The block is a list of parts, each a run of features of one column, in the order of x. A part is told by plain
values, so a row needs no numpy and the same arithmetic in numpy gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, DataRejected, Problem
from core.kinds import Csr, Pairs, RowReader
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.flatfile import FlatFile
    from core.kinds import Floats, Sections
    from core.schema import Batch, Column

Level = str | None  # a category; None: missing
Step = tuple[str, float, float]  # ("over", a, b): (v - a) / b;  ("times", a, b): v * a + b

CSR_FROM = 200  # features; a wider block with categories yields compressed rows
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "number": {"impute": "median", "indicator": False, "scale": "standard"},
    "category": {"encode": "onehot", "min_frequency": None},
}
_CHOICES = {
    "impute": ("median", "mean", "zero", "none"),
    "indicator": (True, False),
    "scale": ("standard", "minmax", "robust", "none"),
    "encode": ("onehot", "ordinal"),
}
INFREQUENT = "infrequent"
_MEMO_ROWS = 4096


class Part(NamedTuple):
    """Some features of one column.

    number: the value, or `fill` if missing (None: stays NaN), then `steps`. missing: 1 if the value is missing.
    onehot: 1 at the index of the level, none if unknown. ordinal: the index of the level, -1 if unknown.
    """

    kind: str
    column: str
    width: int = 1
    fill: float | None = None
    steps: tuple[Step, ...] = ()
    levels: Mapping[Level, int] = {}


class TableBlock:
    """Fitted number and category columns."""

    def __init__(self, columns: Sequence[str], parts: Sequence[Part], reference: Any = None) -> None:
        self.columns = tuple(columns)
        self.parts = tuple(parts)
        self.width = sum(part.width for part in parts)
        self.reference = reference  # the fitted scikit-learn transformer, if it was fitted here
        self.sparse = self.width > CSR_FROM and any(part.kind == "onehot" for part in parts)
        starts = [sum(part.width for part in self.parts[:i]) for i in range(len(self.parts))]
        self._plan = [
            (p.kind, p.column, at, p.fill, p.steps, p.levels) for p, at in zip(parts, starts, strict=True)
        ]

    def params(self) -> dict[str, Any]:
        """Return the JSON part of its state: all of it."""
        return {"parts": [_encoded(part) for part in self.parts]}

    def sections(self) -> Sections:
        """Return no arrays."""
        return {}

    def names(self) -> list[str]:
        """Return one readable name per feature, for example "age", "age missing", "city=Paris"."""
        found: list[str] = []
        for part in self.parts:
            if part.kind == "onehot":
                labels = _labels(part)
                found += [f"{part.column}={labels.get(i, INFREQUENT)}" for i in range(part.width)]
            else:
                found.append(f"{part.column} missing" if part.kind == "missing" else part.column)
        return found

    def row(self, values: Mapping[str, Any]) -> Pairs:
        """Return one row of x; zeros are left out."""
        pairs: Pairs = []
        for kind, column, at, fill, steps, levels in self._plan:
            value = values[column]
            if kind == "number":
                if fill is not None and value != value:  # noqa: PLR0124  NaN, at a third of the price of isnan
                    value = fill
                for form, a, b in steps:
                    value = (value - a) / b if form == "over" else value * a + b
                if value:
                    pairs.append((at, value))
            elif kind == "onehot":
                code = levels.get(value)
                if code is not None:
                    pairs.append((at + code, 1.0))
            elif kind == "missing":
                if value != value:  # noqa: PLR0124
                    pairs.append((at, 1.0))
            elif code := levels.get(value, -1):
                pairs.append((at, float(code)))
        return pairs

    def floats(self, values: Mapping[str, Any]) -> list[float]:
        """Return one row of x with its zeros."""
        x = [0.0] * self.width
        for index, value in self.row(values):
            x[index] = value
        return x

    def fuse(self, weights: RowReader, n_out: int) -> Callable[[Mapping[str, Any]], list[float]]:
        """Return the share of x @ w of one row; weight rows are kept once they were read."""
        memo: dict[int, tuple[float, ...]] = {}
        row = self.row

        def share(values: Mapping[str, Any]) -> list[float]:
            total = [0.0] * n_out
            for index, value in row(values):
                read = memo.get(index)
                if read is None:
                    read = weights(index)
                    if len(memo) < _MEMO_ROWS:
                        memo[index] = read
                for k, weight in enumerate(read):
                    total[k] += value * weight
            return total

        return share

    def matrix(self, batch: Batch) -> Csr | Floats:
        """Return x of shape (n_rows, width): Csr if the block is wide and has one-hot columns."""
        import numpy as np

        if self.sparse:
            return self._csr(batch)
        x = np.zeros((batch.n_rows, self.width))
        for at, part, values in self._columns(batch):
            if part.kind == "onehot":
                rows = np.flatnonzero(values >= 0)
                x[rows, at + values[rows]] = 1.0
            else:
                x[:, at] = values
        return x

    def _csr(self, batch: Batch) -> Csr:
        import numpy as np

        shape = (batch.n_rows, len(self.parts))
        indices, data = np.empty(shape, np.int32), np.empty(shape)
        for position, (at, part, values) in enumerate(self._columns(batch)):
            onehot = part.kind == "onehot"
            indices[:, position] = at + values if onehot else at
            data[:, position] = values >= 0 if onehot else values
        kept = data != 0
        indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
        return Csr(indptr, indices[kept], data[kept], self.width)

    def _columns(self, batch: Batch) -> Iterator[tuple[int, Part, Any]]:
        """Yield (first feature, part, its values): codes for one-hot parts, else floats; shape (n_rows,)."""
        read: dict[str, Any] = {}
        at = 0
        for part in self.parts:
            yield at, part, _values(part, batch.columns[part.column], read)
            at += part.width


def _values(part: Part, entries: Sequence[Any], read: dict[str, Any]) -> Any:
    import numpy as np

    if part.kind in ("onehot", "ordinal"):
        get = part.levels.get
        codes = np.fromiter((get(entry, -1) for entry in entries), np.int64, len(entries))
        return codes if part.kind == "onehot" else codes.astype(np.float64)
    if part.column not in read:
        read[part.column] = np.asarray(entries, np.float64)
    values = read[part.column]
    if part.kind == "missing":
        return np.isnan(values)
    if part.fill is not None:
        values = np.where(np.isnan(values), part.fill, values)
    with np.errstate(over="ignore", invalid="ignore"):  # Python floats overflow to inf in silence too
        for form, a, b in part.steps:
            values = (values - a) / b if form == "over" else values * a + b
    return values


def _labels(part: Part) -> dict[int, str]:
    """Return index → name of the levels that stand alone at their index."""
    found: dict[int, str] = {}
    shared = set()
    for level, index in part.levels.items():
        shared |= {index} & found.keys()
        found[index] = "missing" if level is None else level
    return {index: name for index, name in found.items() if index not in shared}


def _encoded(part: Part) -> dict[str, Any]:
    plain: dict[str, Any] = {"kind": part.kind, "column": part.column}
    if part.kind == "number":
        plain |= {"fill": part.fill, "steps": [list(step) for step in part.steps]}
    elif part.levels:
        plain |= {"width": part.width, "levels": [[level, index] for level, index in part.levels.items()]}
    return plain


def load(columns: Sequence[Column], params: Mapping[str, Any], file: FlatFile, prefix: str) -> TableBlock:
    """Return the block that `params` tells."""
    return TableBlock([column.name for column in columns], [_decoded(item) for item in params["parts"]])


def _decoded(item: Mapping[str, Any]) -> Part:
    if item["kind"] not in ("number", "missing", "onehot", "ordinal"):
        raise ValueError(item["kind"])
    return Part(
        item["kind"],
        item["column"],
        int(item.get("width", 1)),
        item.get("fill"),
        tuple((form, float(a), float(b)) for form, a, b in item.get("steps", ())),
        {level: int(index) for level, index in item.get("levels", ())},
    )


class _Group(NamedTuple):
    """Consecutive columns of one kind with the same options, and their scikit-learn transformer."""

    kind: str
    columns: tuple[str, ...]
    transformer: Any

    def read(self, batch: Batch) -> Any:
        """Return the columns as scikit-learn takes them, shape (n_rows, n_columns)."""
        import numpy as np

        dtype: Any = np.float64 if self.kind == "number" else object
        table = np.empty((batch.n_rows, len(self.columns)), dtype)
        for position, name in enumerate(self.columns):
            table[:, position] = batch.columns[name]
        return table


class Reference:
    """The fitted scikit-learn transformers side by side: Batch → x."""

    def __init__(self, groups: Sequence[_Group]) -> None:
        self.groups = groups

    def transform(self, batch: Batch) -> Any:
        """Return x of shape (n_rows, width), a scipy matrix if any group yields one."""
        import numpy as np
        from scipy import sparse

        parts = [group.transformer.transform(group.read(batch)) for group in self.groups]
        return sparse.hstack(parts, format="csr") if any(map(sparse.issparse, parts)) else np.hstack(parts)


def reference(block: TableBlock) -> Any:
    """Return the scikit-learn transformers that a block fitted here took its numbers from, else None."""
    return block.reference


def fit(columns: Sequence[Column], batch: Batch) -> TableBlock:
    """Return the block fitted with scikit-learn. Raises ConfigError for a wrong option, DataRejected for a
    column that nothing can be learnt from."""
    from core.transformers import carry, raw

    groups, parts = [], []
    for (kind, options), run in groupby(columns, lambda c: (c.kind, _options(c))):
        names = tuple(column.name for column in run)
        group = _Group(kind, names, _transformer(kind, dict(options), batch.n_rows))
        table = group.read(batch)
        if kind == "number" and dict(options)["impute"] == "none":
            _check_known(names, table)
        _learn(group, table)
        groups.append(group)
        parts += carry(group.transformer, [raw(kind, name) for name in names])
    return TableBlock([column.name for column in columns], parts, Reference(groups))


def _options(column: Column) -> tuple[tuple[str, Any], ...]:
    """Return all options of a column, defaults filled in."""
    known = DEFAULTS[column.kind]
    for name, value in column.options.items():
        if name not in known or (name in _CHOICES and value not in _CHOICES[name]):
            raise ConfigError(f"columns.{column.name}.{name} is not an option or has a wrong value")
    return tuple({**known, **column.options}.items())


def _transformer(kind: str, options: Mapping[str, Any], n_rows: int) -> Any:
    from sklearn.impute import MissingIndicator
    from sklearn.pipeline import make_pipeline, make_union

    if kind == "category":
        return _encoder(options, n_rows)
    value = make_pipeline(_imputer(options["impute"]), _scaler(options["scale"]))
    if not options["indicator"]:
        return value
    return make_union(value, MissingIndicator(features="all", error_on_new=False))


def _imputer(strategy: str) -> Any:
    from sklearn.impute import SimpleImputer

    if strategy == "none":
        return "passthrough"
    if strategy == "zero":
        return SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
    return SimpleImputer(strategy=strategy, keep_empty_features=True)


def _scaler(name: str) -> Any:
    from sklearn import preprocessing

    scalers = {"standard": "StandardScaler", "minmax": "MinMaxScaler", "robust": "RobustScaler"}
    return "passthrough" if name == "none" else getattr(preprocessing, scalers[name])()


def _encoder(options: Mapping[str, Any], n_rows: int) -> Any:
    import numpy as np
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

    rarest = options["min_frequency"] or None  # a share of 0 rows is no limit
    if isinstance(rarest, float) and rarest >= 1.0:
        rarest = max(1, n_rows)
    if options["encode"] == "onehot":
        return OneHotEncoder(handle_unknown="ignore", min_frequency=rarest, dtype=np.float64)
    return OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=-1,
        min_frequency=rarest,
        dtype=np.float64,
    )


def _check_known(names: Sequence[str], table: Any) -> None:
    import numpy as np

    for name, empty in zip(names, np.isnan(table).all(axis=0), strict=True):
        if empty:
            raise DataRejected("schema", f"column {name} has no values", (Problem("has no values", name),))


def _learn(group: _Group, table: Any) -> None:
    """Fit a group's transformer. Raises DataRejected if the numbers overflow on the way."""
    import numpy as np

    try:
        with np.errstate(over="raise"):
            group.transformer.fit(table)
    except FloatingPointError as error:
        name = group.columns[int(np.nan_to_num(np.abs(table)).max(axis=0).argmax())]
        problem = Problem("has values too large to scale", name)
        raise DataRejected("schema", f"column {name} has values too large to scale", (problem,)) from error
