"""What went through a flat file: blocks and scorers loaded again as serving loads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from core import artifact, flatfile
from core.importing import Imported
from core.kinds import Pairs, estimator_kind, feature_kind
from core.model import Model
from core.schema import Batch, Column


def stored(sections: Any, params: Any) -> tuple[flatfile.FlatFile, Any]:
    """Return the file and the params as JSON gives them back."""
    file = flatfile.FlatFile(flatfile.write({"params": params}, {f"p/{k}": v for k, v in sections.items()}))
    return file, json.loads(json.dumps(params, allow_nan=False))


def reloaded(kind: str, columns: Sequence[Column], block: Any) -> Any:
    """Return the block as loading makes it."""
    file, params = stored(block.sections(), block.params())
    return feature_kind(kind).load(columns, params, file, "p/")


def scorer(kind: str, fitted: Any, task: str, width: int, *, without: str = "-") -> Any:
    """Return the scorer of a fitted estimator, without the sections whose name starts with `without`."""
    params, sections = estimator_kind(kind).export(fitted, task, width)
    kept = {name: item for name, item in sections.items() if not name.startswith(without)}
    file, params = stored(kept, params)
    return estimator_kind(kind).load(params, file, "p/")


def pairs(row: Sequence[float], *, zeros: bool = False) -> Pairs:
    """Return one row of x as pairs, by default without its zeros."""
    return [(index, value) for index, value in enumerate(row) if zeros or value != 0]


def dense(block: Any, values: Any) -> list[float]:
    """Return one row of x with its zeros."""
    x = [0.0] * block.width
    for index, value in block.row(values):
        x[index] = value
    return x


def full(x: Any) -> Any:
    """Return x as a dense array, whatever form it has."""
    if hasattr(x, "indptr") and not hasattr(x, "toarray"):
        from core.sparse import dense as densified

        return densified(x)
    return x.toarray() if hasattr(x, "toarray") else np.asarray(x)


def served(taken: Imported, rows: Batch | None = None) -> Model:
    """Return an imported model as serving loads it, its parity proved."""
    draft = taken.draft("m", rows=rows)
    assert draft.facts["parity"]["max_abs_diff"] <= draft.facts["parity"]["bound"]
    model = artifact.load(artifact.export(draft))
    model.replay()
    return model
