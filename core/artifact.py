"""Model ⇄ artifact: one flat file whose header is the manifest. Loading parses nothing that was not checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core import flatfile
from core.errors import IntegrityError
from core.kinds import Block, estimator_kind, feature_kind
from core.model import MISSHAPEN, Model
from core.schema import Batch, Column, Schema, schema_from_dicts
from core.tuples import NamedTuple

if TYPE_CHECKING:
    from core.kinds import Sections

FORMAT_VERSION = 1
GOLDEN_ROWS = 2
GOLDEN_CHARS = 64  # of a text: enough terms to prove a model, few enough pages to read at a cold start
MAX_WIDTH = 1 << 24  # features of one block, as many as a spec may ask for
_GOLDEN_BYTES = 256 << 10


class Draft(NamedTuple):
    """Everything an artifact is made of.

    `blocks` pairs each fitted block with its feature kind; `sections` are the estimator's; `facts` is what the
    manifest tells besides (metrics, parity, spec, data digests, seed, library versions); `golden` holds rows
    to replay at load, of which the first GOLDEN_ROWS are kept.
    """

    name: str
    task: str
    schema: Schema
    classes: tuple[str, ...]
    blocks: tuple[tuple[str, Block], ...]
    estimator: str
    params: dict[str, Any]
    sections: Sections
    facts: Mapping[str, Any]
    golden: Batch


def export(draft: Draft, signing_key: str = "") -> bytes:
    """Return the artifact, signed if there is a key. The same draft gives the same bytes."""
    sections: dict[str, Any] = {f"estimator/{name}": item for name, item in draft.sections.items()}
    for position, (_, block) in enumerate(draft.blocks):
        sections |= {f"{position}/{name}": item for name, item in block.sections().items()}
    header = _header(draft)
    rows = golden_rows(draft.schema, draft.golden)
    trial = load(flatfile.write(header, sections))
    outputs = trial.predict(trial.schema.batch(rows)).outputs()
    golden = json.dumps({"rows": rows, "outputs": outputs}, separators=(",", ":"), allow_nan=False)
    data = flatfile.write(header, {**sections, "golden": golden.encode()})
    if not signing_key:
        return data
    from core.signing import sign

    return sign(data, signing_key)


def _header(draft: Draft) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": draft.name,
        "task": draft.task,
        "classes": list(draft.classes),
        "schema": draft.schema.as_dicts(),
        "blocks": [
            {"kind": kind, "columns": list(block.columns), "params": block.params()}
            for kind, block in draft.blocks
        ],
        "estimator": {"kind": draft.estimator, "params": draft.params},
        "facts": dict(draft.facts),
    }


def golden_rows(schema: Schema, batch: Batch) -> list[dict[str, Any]]:
    """Return the first rows in JSON form: as many of GOLDEN_ROWS as fit the size cap, at least one.

    Texts are cut to GOLDEN_CHARS.
    """
    texts = {column.name for column in schema.columns if column.kind == "text"}
    rows: list[dict[str, Any]] = []
    size = 0
    for index in range(min(batch.n_rows, GOLDEN_ROWS)):
        cells = batch.row(index).items()
        row = {name: value[:GOLDEN_CHARS] if name in texts else _plain(value) for name, value in cells}
        size += len(json.dumps(row))
        if rows and size > _GOLDEN_BYTES:
            break
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    """Return one entry of a batch as JSON has it; an image becomes base64 of a PNG."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bytes):
        return _base64(value)
    if hasattr(value, "dtype"):
        return _png(value) if value.dtype.kind == "u" else value.tolist()
    return list(value) if isinstance(value, list | tuple) else value


def _base64(data: bytes) -> str:
    import binascii

    return binascii.b2a_base64(data, newline=False).decode()


def _png(pixels: Any) -> str:
    import io

    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return _base64(target.getvalue())


def load(buffer: Any, header_sha256: str | None = None, verify_key: str = "") -> Model:
    """Return the model in `buffer`; `header_sha256` is what the registry's log promises.

    With `verify_key` the header must be signed, too. Raises IntegrityError unless the header is the promised one
    and well formed. Pages are checked when read.
    """
    file = flatfile.FlatFile(buffer, header_sha256)
    if verify_key:
        from core.signing import check

        check(file, verify_key)
    header = file.header
    if header.get("format_version") != FORMAT_VERSION:
        raise IntegrityError(f"artifact format {header.get('format_version')!r} is not {FORMAT_VERSION}")
    try:
        schema = schema_from_dicts(header["schema"])
        blocks = [_block(item, schema, file, position) for position, item in enumerate(header["blocks"])]
        scorer = estimator_kind(header["estimator"]["kind"]).load(
            header["estimator"]["params"], file, "estimator/"
        )
        return _fitting(Model(file, schema, blocks, scorer))
    except MISSHAPEN as error:
        raise IntegrityError("artifact manifest is not well formed") from error


def _fitting(model: Model) -> Model:
    """Return the model if its parts claim sizes that go together. Raises ValueError."""
    widths = [block.width for block in model.blocks]
    if not all(type(width) is int and 0 <= width <= MAX_WIDTH for width in widths):
        raise ValueError("width")
    if model.scorer.n_out != (1 if model.task == "regression" else len(model.classes)):
        raise ValueError("n_out")
    facts = model.manifest["facts"]
    if not (isinstance(facts, dict) and isinstance(facts.get("metrics", {}), dict)):
        raise ValueError("facts")
    if not all(isinstance(text, str) for text in (model.name, *model.classes)):
        raise ValueError("names")
    return model


def _block(item: Mapping[str, Any], schema: Schema, file: flatfile.FlatFile, position: int) -> Block:
    columns = columns_of(schema, item["columns"])
    return feature_kind(item["kind"]).load(columns, item["params"], file, f"{position}/")


def columns_of(schema: Schema, names: Sequence[str]) -> list[Column]:
    """Return the named columns, in that order. Raises KeyError for one that is not in the schema."""
    by_name = {column.name: column for column in schema.columns}
    return [by_name[name] for name in names]
