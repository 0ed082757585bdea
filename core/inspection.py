"""A working ModelSpec for a data file: what its columns are, and what has proved to suit such data."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core import candidates, contest
from core.candidates import Candidate, Facts
from core.dataset.limits import Limits
from core.dataset.opening import open_source
from core.dataset.reading import read_table
from core.dataset.table import Dataset
from core.errors import ConfigError, DataRejected, Problem
from core.profiling import Profile
from core.spec import ModelSpec, from_dict
from core.specfile import to_toml

MAX_CLASSES = 1000
CODES = 20  # whole numbers with at most so many values are classes
ROWS_A_CODE = 10  # more of them are classes if they count from 0 or 1 and each has so many rows
MAX_CATEGORIES = 2000
CONTEST_ROWS = 4000  # rows that candidates are compared on
_ID = re.compile(r"(.*[_\s-])?(id|uuid|guid|key|index|row|rownum|row_?number|unnamed: ?\d+)", re.IGNORECASE)
_STEMS = {"data", "labels", "train", "training", "images"}

Progress = Callable[[str, int, int], None]  # stage, done, total (0: unknown)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A spec, and what a reader should know of how it came about."""

    spec: ModelSpec
    notes: tuple[str, ...] = ()

    def toml(self) -> str:
        """Return the spec as commented TOML, the notes at its head."""
        return to_toml(self.spec, self.notes)


def infer(
    path: str,
    *,
    label: str,
    name: str | None = None,
    seed: int = 0,
    limits: Limits | None = None,
    compare: bool = True,
    n_jobs: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> Inspection:
    """Return a spec for a data file or folder; with `compare`, small tables choose their estimator by trial.

    Raises NotFound, DataRejected (unreadable, no such label, nothing to learn from), ConfigError for a bad name.
    """
    limits = limits or Limits()
    profiles, images = _profile(path, label, limits, progress)
    target = profiles.pop(label)
    task = task_of(target)
    found = _Findings()
    columns = {p.name: column for p in profiles.values() if (column := _column(p, images, found))}
    if not columns:
        raise DataRejected("schema", "no column is left to learn from; " + "; ".join(found.notes))
    head = {"name": model_name(name or _stem(path)), "task": task, "label": label, "columns": columns}
    head["data"] = _data_section(found, all_kept=len(columns) == len(profiles))
    head["labels"] = _labels_section(target, task, found)
    facts = Facts.of(task, target.count, {n: c["kind"] for n, c in columns.items()}, profiles)
    choices = candidates.of(facts)
    specs = [_spec(head, choice, facts, seed) for choice in choices]
    best = 0
    if compare and len(specs) > 1 and facts.n_rows <= candidates.SMALL_ROWS:
        try:
            dataset = read_table(path, specs[0], limits=limits)
        except DataRejected as error:
            found.notes.append(f"nothing was compared, for the file has problems: {error.message[:200]}")
        else:
            best = _contest(list(zip(specs, choices, strict=True)), dataset, found, n_jobs, progress)
    return Inspection(specs[best], tuple(found.notes))


@dataclass(slots=True)
class _Findings:
    """What comes up on the way: notes for the reader, and words that stand for "missing"."""

    notes: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def _profile(
    path: str, label: str, limits: Limits, progress: Progress
) -> tuple[dict[str, Profile], Callable[[str], bytes | None]]:
    """Return a profile of each column by name, and how to find an image that a cell names."""
    with open_source(path, label=label, limits=limits) as source:
        profiles = {name: Profile(name) for name in source.names}
        if len(profiles) < len(source.names):
            raise DataRejected("schema", "the file has two columns of the same name")
        if label not in profiles:
            shown = ", ".join(name[:64] for name in source.names[:20])
            problem = Problem("is missing", label)
            raise DataRejected("schema", f"there is no column {label}; there are: {shown}", (problem,))
        done = 0
        for chunk in source.chunks:
            for name, profile in profiles.items():
                profile.add(chunk.columns[name])
            done += chunk.n_rows
            progress("read", done, 0)
        if not done:
            raise DataRejected("rows", "the file has no rows of data")
        found = {p.name: _first_image(p, source.images) for p in profiles.values() if p.names_images()}
    return profiles, found.get


def _first_image(profile: Profile, images: Any) -> bytes | None:
    return images.find(profile.sample[0]) if images is not None else None


def task_of(target: Profile) -> str:
    """Return the task that the labels are for: regression for many or broken numbers, else classification.

    Raises DataRejected if there are too many classes.
    """
    if target.shape is not None or not target.present:
        raise DataRejected("schema", "the label must be one value a row", (Problem("has no values", target.name),))
    numeric = target.is_number() and not target.words_for_missing()
    if numeric and _is_quantity(target):
        return "regression"
    if target.many or target.n_distinct() > MAX_CLASSES:
        message = f"the label has over {MAX_CLASSES} classes; is {target.name[:64]} the right column?"
        raise DataRejected("classes", message, limit=MAX_CLASSES)
    return "classification"


def _is_quantity(target: Profile) -> bool:
    values = target.numbers()
    if target.many or bool((values % 1 != 0).any()):
        return True
    if len(values) <= CODES:
        return False
    codes = values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1
    return not (codes and target.present >= ROWS_A_CODE * len(values) and len(values) <= MAX_CLASSES)


# --- columns


def _column(profile: Profile, image: Callable[[str], bytes | None], found: _Findings) -> dict[str, Any] | None:
    """Return the kind (and shape) of a column, None if it is left out; a note says why."""
    shaped = _shaped(profile)
    if shaped is not None:
        return shaped
    why = _useless(profile)
    if why is None and profile.names_images():
        if image(profile.name) is not None:
            return {"kind": "image"}
        why = "names image files that are not beside it"
    if why is not None:
        found.notes.append(f"column {_shown(profile)} was left out: it {why}")
        return None
    if profile.is_number():
        found.missing |= profile.words_for_missing()
        return {"kind": "number"}
    return {"kind": "text" if _is_text(profile) else "category"}


def _shaped(profile: Profile) -> dict[str, Any] | None:
    """Return the column of an array or of lists or files, None for single values."""
    if profile.shape is not None:
        is_image = len(profile.shape) >= 2
        return {"kind": "image"} if is_image else {"kind": "vector", "width": profile.shape[0]}
    if profile.lists:
        return {"kind": "vector", "width": max(profile.lists)}
    return {"kind": "image"} if profile.files else None


def _useless(profile: Profile) -> str | None:
    """Return why nothing can be learnt from a column of single values, None if something can."""
    unique = profile.is_unique() and profile.present > CODES
    words = _has_spaces(profile)
    plain = not words and not profile.is_number()
    levels = profile.n_distinct()
    reasons = {
        "is empty": not profile.present,
        "has the same value in every row": levels == 1 and not profile.missing,
        "names the rows (an id)": unique and not words and _ID.fullmatch(profile.name) is not None,
        "holds dates; turn them into numbers or categories": plain and profile.looks_like_dates(),
        "has another value in every row (an id)": plain and unique and not profile.names_images(),
        f"has over {MAX_CATEGORIES} different values without words": plain
        and profile.n_distinct() > MAX_CATEGORIES,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _has_spaces(profile: Profile) -> bool:
    return profile.mean_words() > 1.2


def _is_text(profile: Profile) -> bool:
    """Whether cells are sentences: several words, or rarely the same twice."""
    words = profile.mean_words()
    differ = profile.n_distinct() / profile.present
    return (words > 3 and differ > 0.1) or (words > 1.2 and differ > 0.5)


def _shown(profile: Profile) -> str:
    return "".join(char if char.isprintable() else "?" for char in profile.name[:64])


# --- the rest of the spec


def _data_section(found: _Findings, *, all_kept: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"extra": "error" if all_kept else "ignore"}
    if found.missing:
        data["missing"] = sorted(found.missing)
        found.notes.append("read as missing: " + ", ".join(sorted(found.missing)))
    return data


def _labels_section(target: Profile, task: str, found: _Findings) -> dict[str, Any]:
    if target.missing:
        found.notes.append(f"{target.missing} row(s) have no label; training will reject them")
    rare = sum(count < 2 for count in target.distinct.values()) if task == "classification" else 0
    if rare:
        found.notes.append(f"{rare} class(es) have a single row; those rows are dropped")
    return {"rare": "drop"} if rare else {}


def _spec(head: Mapping[str, Any], choice: Candidate, facts: Facts, seed: int) -> ModelSpec:
    columns = {name: {**column, **choice.by_column[name]} for name, column in head["columns"].items()}
    split = {"holdout": holdout_share(facts.n_rows), "seed": seed}
    more = {"columns": columns, "estimator": choice.estimator, "search": choice.search, "split": split}
    return from_dict({**head, **more})


def holdout_share(n_rows: int) -> float:
    """Return the share of the rows that is kept for evaluation."""
    return 0.2 if n_rows < 1000 else 0.15 if n_rows < 5000 else 0.1


def _contest(
    entries: Sequence[tuple[ModelSpec, Candidate]],
    dataset: Dataset,
    found: _Findings,
    n_jobs: int,
    progress: Progress,
) -> int:
    """Return the place of the spec that does best on the rows outside the holdout."""
    first = entries[0][0]
    rows = np.flatnonzero(~np.asarray(dataset.holdout_mask(first.split.holdout)))[:CONTEST_ROWS]
    is_table = not any(column.kind in ("text", "image") for column in first.columns)
    folds, repeats = (5, 2) if len(rows) < 1000 and is_table else (3, 1)
    table = contest.scores(
        [spec for spec, _ in entries],
        dataset.take(rows),
        folds=folds,
        repeats=repeats,
        n_jobs=n_jobs,
        step=lambda done, total: progress("compare", done, total),
    )
    means = table.mean(axis=1)
    metric = "accuracy" if first.task == "classification" else "R²"
    shown = ", ".join(f"{choice.title} {mean:.4f}" for (_, choice), mean in zip(entries, means, strict=True))
    found.notes.append(f"mean {metric} in {folds}-fold cross-validation: {shown}")
    return int(means.argmax())


def model_name(text: str) -> str:
    """Return a model name of any text, such as iris-best-model of IrisBestModel. Raises ConfigError if none is."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", text)
    name = re.sub(r"[^a-z0-9]+", "-", split.lower()).strip("-")[:63].strip("-")
    if not name:
        raise ConfigError("the name must hold a letter or a digit; give one with --name")
    return name


def _stem(path: str) -> str:
    """Return what a data set is called: its file, or its folder if the file is called data or so."""
    full = os.path.abspath(path)
    stem = os.path.basename(full).split(".")[0]
    return os.path.basename(os.path.dirname(full)) if stem.lower() in _STEMS else stem
