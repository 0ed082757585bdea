"""`polysky predict` and `polysky evaluate`: a published version against a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from scripts.console import (
    Progress,
    bare_spec,
    json_option,
    load_version,
    print_json,
    print_table,
    progress_bar,
    read_settings,
    store_option,
    whole_file,
)

if TYPE_CHECKING:
    from core.dataset.table import Dataset
    from core.model import Model, Predictions

CHUNK_ROWS = 2048


def _ref_option(function: Any) -> Any:
    return click.option("--version", "ref", default="production", show_default=True, help="Version or alias.")(
        function
    )


@click.command("predict")
@click.argument("model")
@click.option("--file", "path", required=True, type=click.Path(exists=True), help="Rows: any format of training.")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="CSV to write; - is stdout.")
@_ref_option
@store_option
def predict_command(*, model: str, path: str, out: str, ref: str, store: str | None) -> None:
    """Predict the rows of a file, in their order.

    Columns of the answer: prediction and, for classification, p_CLASS with the probability of each class.
    A file is written whole or not at all.
    """
    settings = read_settings(store)
    loaded = load_version(settings, model, ref)
    with progress_bar() as progress:
        rows = _read(loaded.model, path, settings, progress, need_label=False)
        with whole_file(out) as file:
            _write(file, loaded.model, rows, progress)
    click.echo(f"{rows.n_rows} rows by {model} {loaded.version}", err=True)


@click.command("evaluate")
@click.argument("model")
@click.option("--file", "path", required=True, type=click.Path(exists=True), help="Labelled rows.")
@click.option("--label", help="The label's column, for an imported model that has no spec.")
@_ref_option
@store_option
@json_option
def evaluate_command(
    *, model: str, path: str, label: str | None, ref: str, store: str | None, as_json: bool
) -> None:
    """Score a version on a labelled file, with 95 % confidence intervals."""
    from core.evaluation import evaluate, headline, predict_all

    settings = read_settings(store)
    loaded = load_version(settings, model, ref)
    with progress_bar() as progress:
        rows = _read(loaded.model, path, settings, progress, need_label=True, label=label)
        progress("predicting", 0, 0)
        found = evaluate(predict_all(loaded.model, rows.batch), rows.labels or (), classes=loaded.model.classes)
    if as_json:
        print_json({"model": model, "version": loaded.version, "metrics": found})
        return
    intervals = found.get("ci", {})
    table = [(name, _figure(value), _interval(intervals.get(name))) for name, value in headline(found).items()]
    print_table(("metric", "value", "95 % interval"), table)


def _read(
    model: Model,
    path: str,
    settings: Any,
    progress: Progress,
    *,
    need_label: bool,
    label: str | None = None,
) -> Dataset:
    from core.dataset.limits import Limits
    from core.dataset.reading import read_table
    from core.shelf import spec_of

    if "spec" in model.manifest["facts"]:
        spec = spec_of(model)
    else:
        spec = bare_spec(model.name, model.task, model.schema, label)
    return read_table(
        path,
        spec,
        limits=Limits.of(settings),
        need_label=need_label,
        progress=lambda done: progress(f"reading row {done}", 0, 0),
    )


def _write(file: TextIO, model: Model, rows: Dataset, progress: Progress) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["prediction", *(f"p_{name}" for name in model.classes)])
    for low in range(0, rows.n_rows, CHUNK_ROWS):
        high = min(low + CHUNK_ROWS, rows.n_rows)
        writer.writerows(_lines(model.predict(rows.batch.take(range(low, high)))))
        progress("predicting", high, rows.n_rows)


def _lines(found: Predictions) -> Iterator[Sequence[Any]]:
    """Yield the cells of each row; floats as the shortest text that reads back equal."""
    if found.values is not None:
        yield from ((value,) for value in found.values)
        return
    for label, row in zip(found.labels or (), found.probabilities or (), strict=True):
        yield label, *row


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _interval(limits: Sequence[float] | None) -> str:
    return f"{limits[0]:.4f} to {limits[1]:.4f}" if limits else ""
