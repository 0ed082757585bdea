"""Parquet through pyarrow, in batches. Texts stay in their dictionaries, so repeats cost no memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.dataset.limits import Limits, too_large
from core.dataset.source import CHUNK_ROWS, Chunk, Run, Source
from core.errors import DataRejected

_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError)


def open_parquet(stream: IO[bytes], limits: Limits) -> Source:
    """Return the source of a Parquet file. Raises DataRejected if it is cut, damaged or over the limits."""
    try:
        texts = [field.name for field in pq.read_schema(stream) if _is_text(field.type)]
        stream.seek(0)
        file = pq.ParquetFile(stream, read_dictionary=texts, page_checksum_verification=True)
        names = tuple(file.schema_arrow.names)
    except _DAMAGE as error:
        raise DataRejected("truncated", "the Parquet file is cut or damaged") from error
    _check(file.metadata, names, limits)
    return Source(names, _chunks(file, names, limits))


def _is_text(kind: Any) -> bool:
    return kind in {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}


def _check(metadata: Any, names: Sequence[str], limits: Limits) -> None:
    if metadata.num_rows > limits.rows:
        raise too_large("the number of rows", limits.rows)
    if len(names) > limits.columns:
        raise too_large(f"the number of columns ({len(names)})", limits.columns)
    if metadata.num_rows * len(names) * 8 > limits.bytes:
        raise too_large("the table, unpacked,", limits.bytes, "bytes")
    unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if unpacked > limits.bytes:
        raise too_large("the table, unpacked,", limits.bytes, "bytes")


def _chunks(file: Any, names: tuple[str, ...], limits: Limits) -> Iterator[Chunk]:
    total = 0
    try:
        for batch in file.iter_batches(CHUNK_ROWS, use_threads=False):
            columns = [_cells(column) for column in batch.columns]
            total += sum(size for _, size in columns)
            if total > limits.bytes:
                raise too_large("the table, unpacked,", limits.bytes, "bytes")
            cells = [cell for cell, _ in columns]
            yield Chunk(batch.num_rows, dict(zip(names, cells, strict=True)))
    except UnicodeDecodeError:
        raise DataRejected("encoding", "a text of the Parquet file is not UTF-8") from None
    except _DAMAGE as error:
        raise DataRejected("truncated", "the Parquet file is cut or damaged") from error


def _cells(column: Any) -> tuple[Run, int]:
    """Return the cells of a column and about how many bytes they take."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _of_dictionary(column)
    if (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and not column.null_count:
        numbers: Run = column.to_numpy(zero_copy_only=False)
        return numbers, len(column) * 8
    if pa.types.is_fixed_size_list(kind) and not column.null_count and not column.values.null_count:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), kind.list_size), flat.nbytes
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_pylist(), len(column) * 8
    if pa.types.is_temporal(kind):
        return [None if cell is None else str(cell) for cell in column.to_pylist()], len(column) * 32
    return column.to_pylist(), column.nbytes


def _of_dictionary(column: Any) -> tuple[Run, int]:
    values = column.dictionary.to_pylist()
    cells = [None if i is None else values[i] for i in column.indices.to_pylist()]
    return cells, sum(len(cell) for cell in cells if isinstance(cell, str | bytes))
