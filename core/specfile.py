"""A spec as TOML that people read: a line of comment before each section, notes at the head."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from core.spec import ModelSpec

COMMENTS: Mapping[str, str] = {
    "data": 'Columns not listed below: "ignore" or "error". Optional: missing = ["NA"], quarantine = 0.01.',
    "labels": 'rare: "error" or "drop" for classes under min_rows. new: "error" or "accept" for unknown ones.',
    "columns": "One table a column; kind: text, number, category, image or vector. All options have defaults.",
    "estimator": "kind: linear, naive_bayes, trees or onnx; params go to scikit-learn as they are.",
    "search": 'Parameters to try; "COLUMN.option" names an option of a column.',
    "split": "Share of the rows, chosen by their digest, that no model ever learns from.",
    "gate": "A new version takes over unless it is worse by more than max_drop or below a minimum.",
    "retrain": 'Learn from known and new rows together ("union") or from the new ones alone ("upload").',
}
_ORDER = ("data", "labels", "columns", "estimator", "search", "split", "gate", "retrain")
WIDTH = 110
_SHORT_LIST = re.compile(r"\[\n((?:    [^\n]*,\n)+)\]")


def to_toml(spec: ModelSpec, notes: Sequence[str] = ()) -> str:
    """Return TOML text that `core.spec.parse_toml` reads back as the same spec."""
    form = spec.to_dict()
    form["columns"] = {column.pop("name"): column for column in form["columns"]}
    lines = ["# A model spec of Polysky. Every value may be changed; `polysky train` reads it."]
    lines += [f"# - {line}" for note in notes for line in _wrapped(note)]
    head = {key: form[key] for key in ("name", "task", "label", "balance")}
    parts = ["\n".join(lines) + "\n" + tomli_w.dumps(head)]
    for section in _ORDER:
        if form.get(section) is not None:
            parts.append(f"# {COMMENTS[section]}\n{tomli_w.dumps({section: _tidy(form[section])})}")
    return _SHORT_LIST.sub(_on_one_line, "\n".join(parts))


def _on_one_line(match: re.Match[str]) -> str:
    items = " ".join(line.strip() for line in match[1].strip("\n").split("\n"))
    return f"[{items.rstrip(',')}]" if len(items) < WIDTH else match[0]


def _tidy(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section without empty tables and lists, which say no more than the defaults."""
    return {key: value for key, value in section.items() if value not in ({}, [])}


def _wrapped(note: str) -> list[str]:
    """Return the note as lines of comment; nothing in it can end the comment early."""
    clean = "".join(char if char.isprintable() else "?" for char in note)
    return textwrap.wrap(clean, WIDTH)
