"""The recorded models: trees, so that their answers are the same bits on every machine."""

from __future__ import annotations

from typing import Any

from core.artifact import Draft, export
from core.schema import Batch, Column
from tests.core.house import picture
from tests.core.models import LABELS, TEXTS, draft


def tree(columns: list[Column], batch: Batch, y: list[Any], name: str, *, task: str = "classification") -> Draft:
    """Return the draft of a small decision tree."""
    params = {"max_depth": 3}
    made, _, _ = draft(
        columns, batch, y, kind="trees", algorithm="decision_tree", task=task, params=params, name=name
    )
    return made


def texts(turn: int) -> bytes:
    """Return the artifact of a text classifier; `turn` shifts its labels, for a different model."""
    labels = LABELS[turn:] + LABELS[:turn]
    made = tree([Column("text", "text")], Batch(len(TEXTS), {"text": list(TEXTS)}), labels, "support")
    return export(made._replace(facts={"metrics": {"accuracy": 0.75 + turn / 8}}))


def prices() -> bytes:
    """Return the artifact of a regression over a number and a category."""
    batch = Batch(6, {"size": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "town": ["a", "b", "a", "b", "a", "Zürich"]})
    columns = [Column("size", "number"), Column("town", "category")]
    return export(tree(columns, batch, [1.0, 2.5, 3.0, 4.5, 5.0, 6.5], "prices", task="regression"))


def photos() -> bytes:
    """Return the artifact of a classifier of dark and light pictures."""
    shades = [10, 20, 30, 40, 200, 210, 220, 230]
    batch = Batch(8, {"photo": [picture(shade) for shade in shades]})
    return export(tree([Column("photo", "image")], batch, ["dark"] * 4 + ["light"] * 4, "photos"))


def trained() -> dict[str, bytes]:
    """Return the models by name, trained now."""
    return {"support-1": texts(0), "support-2": texts(1), "prices": prices(), "photos": photos()}
