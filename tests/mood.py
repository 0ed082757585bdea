"""A small text model that learns in a moment: its spec, and rows whose words tell the class."""

from __future__ import annotations

from collections.abc import Sequence

SPEC = """
name = "mood"
task = "classification"
label = "label"
[columns.text]
kind = "text"
[estimator]
kind = "linear"
algorithm = "logistic_regression"
[gate]
max_drop = 0.05
"""
WORDS = (("sunny", "cake", "friend", "laugh", "gift"), ("rain", "lost", "alone", "tears", "late"))


def rows(start: int, count: int, names: Sequence[str] = ("glad", "sad")) -> str:
    """Return CSV rows, each made unique by its number; `names` are the labels that the two classes get."""
    lines = ["text,label"]
    for index in range(start, start + count):
        words = WORDS[index % 2]
        text = " ".join(words[(index * step) % len(words)] for step in (1, 2, 3))
        lines.append(f"{text} number{index},{names[index % 2]}")
    return "\n".join(lines) + "\n"
