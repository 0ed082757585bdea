"""`polysky import`: a model from elsewhere becomes a version, by an operator's explicit act."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import click

from scripts.console import (
    bare_spec,
    find_registry,
    find_store,
    json_option,
    print_json,
    progress_bar,
    read_settings,
    store_option,
)

if TYPE_CHECKING:
    from core.artifact import Draft
    from core.dataset.table import Dataset
    from core.importing import Imported
    from core.model import Model
    from core.registry import Registry
    from core.state import State

LEASE_S = 900.0
PROOF_ROWS = 1000


def _words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",")) if value else ()


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--trust", is_flag=True, help="Run the code in a .joblib or .pkl file: loading it means that.")
@click.option("--name", help="The model's name (default: from the file's).")
@click.option("--columns", callback=_words, metavar="A,B,…", help="Columns of a model fitted on a plain array.")
@click.option("--text-column", default="text", show_default=True, help="The column of a bare text pipeline.")
@click.option("--task", type=click.Choice(["classification", "regression"]), help="What an ONNX file does.")
@click.option("--classes", callback=_words, metavar="A,B,…", help="Classes of an ONNX file, in its order.")
@click.option(
    "--file", "rows", type=click.Path(exists=True), help="Rows to prove it on, and to score it with --label."
)
@click.option("--label", metavar="COLUMN", help="The column of true labels in --file: score it.")
@click.option(
    "--expect", metavar="COLUMN", help="The column of the answers that the model gave where it was made."
)
@click.option("--alias", help="The alias to give it (default: production if that is free, else staging).")
@store_option
@json_option
def import_command(*, file: str, store: str | None, as_json: bool, **options: Any) -> None:
    """Turn a fitted scikit-learn pipeline (.joblib, .pkl) or an ONNX file into a portable version.

    The portable model must answer as the original does, or the file is refused, saying which step is to blame.
    No gate is asked: the alias is yours to choose.
    """
    from core.inspection import model_name

    name = model_name(options["name"] or os.path.basename(file).split(".")[0])
    with progress_bar() as progress:
        progress("opening", 0, 0)
        imported = _open(file, options)
        progress("proving", 0, 0)
        draft = _proved(imported, name, options, read_settings(store))
    registry = find_registry(find_store(store))
    version = _publish(registry, draft, _sha256(file))
    alias = _point(registry, name, version, options["alias"], file)
    answer = {
        "model": name,
        "version": version,
        "alias": alias,
        "metrics": dict(draft.facts.get("metrics", {})),
        "gate": None,
        "parity": draft.facts["parity"],
    }
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{name} {version} → {alias}; it answers as the original on {draft.golden.n_rows} rows")


def _open(file: str, options: dict[str, Any]) -> Imported:
    from core.importing import open_graph, open_pipeline

    if file.lower().endswith(".onnx"):
        if options["task"] is None:
            raise click.UsageError("an ONNX file needs --task")
        return open_graph(file, task=options["task"], classes=options["classes"], names=options["columns"])
    return open_pipeline(
        file, trust=options["trust"], text_column=options["text_column"], names=options["columns"]
    )


def _proved(imported: Imported, name: str, options: dict[str, Any], settings: Any) -> Draft:
    """Return the draft, proved on the rows given or on generated ones; scored if the rows have labels."""
    from core.building import package_version

    if options["rows"] is None:
        if options["label"] or options["expect"]:
            raise click.UsageError("--label and --expect name columns of --file")
        draft = imported.draft(name)
        return draft._replace(facts={**draft.facts, "polysky": package_version()})
    rows = _read(imported, name, options["rows"], options["expect"], settings)
    few = rows.take(range(min(PROOF_ROWS, rows.n_rows)))
    draft = imported.draft(name, rows=few.batch, expected=few.labels or ())
    facts = {**draft.facts, "polysky": package_version()}
    if options["label"]:
        facts |= _scored(draft, _read(imported, name, options["rows"], options["label"], settings))
    return draft._replace(facts=facts)


def _read(imported: Imported, name: str, path: str, label: str | None, settings: Any) -> Dataset:
    from core.dataset.limits import Limits
    from core.dataset.reading import read_table

    spec = bare_spec(name, imported.task, imported.schema, label)
    return read_table(path, spec, limits=Limits.of(settings), need_label=label is not None)


def _scored(draft: Draft, dataset: Dataset) -> dict[str, Any]:
    from core import artifact
    from core.evaluation import evaluate_on, headline

    model: Model = artifact.load(artifact.export(draft))
    found = evaluate_on(model, dataset)
    return {"metrics": headline(found), "evaluation": found}


def _sha256(file: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _publish(registry: Registry, draft: Draft, sha256: str) -> str:
    """Return the version of this file, published now or by an earlier import of the same."""
    from core import artifact

    data = artifact.export(draft)
    model = artifact.load(data)
    model.replay()
    digest = hashlib.sha256(f"import|{sha256}|{hashlib.sha256(data).hexdigest()}".encode()).hexdigest()
    src, version = digest[:32], f"v-{digest[-12:]}"
    if version in registry.state(draft.name).versions:
        return version
    attempt = _claim(registry, draft.name, src)
    key, _ = registry.put_artifact(draft.name, src, attempt, data)
    registry.publish(
        draft.name,
        src=src,
        attempt=attempt,
        version=version,
        manifest_sha256=model.file.header_sha256,
        artifact_key=key,
        size=len(data),
        metrics=draft.facts.get("metrics", {}),
        op_id=f"{src}.{attempt}.publish",
        role="operator",
    )
    return version


def _claim(registry: Registry, name: str, src: str) -> int:
    """Return the attempt under which the artifact may be published."""
    until = time.time() + LEASE_S

    def make(state: State) -> dict[str, Any]:
        attempt = state.sources[src].attempt + 1 if src in state.sources else 1
        return {
            "op": "claim",
            "src": src,
            "attempt": attempt,
            "until": until,
            "key": f"file/{src}",
            "kind": "file",
        }

    entry = registry.append(name, make, op_id=f"{src}.claim.{uuid.uuid4().hex}")
    return int(entry["attempt"])


def _point(registry: Registry, name: str, version: str, alias: str | None, file: str) -> str:
    from core.promotion import STAGING
    from core.state import PRODUCTION

    state = registry.state(name)
    held = [found for found, to in state.aliases.items() if to.splits[0].version == version]
    if alias is None and held:
        return held[0]
    chosen = alias or (STAGING if PRODUCTION in state.aliases else PRODUCTION)
    reason = f"imported from {os.path.basename(file)}"[:200]
    registry.move(name, chosen, version, op_id=f"cli-{uuid.uuid4().hex}", role="operator", reason=reason)
    return chosen
