"""Parquet and Arrow IPC files, one or several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from unisono.core.errors import TableError
from unisono.table.hints import metadata_features
from unisono.table.plain import plain_schema
from unisono.table.source import Raw

_BATCH_BYTES = 16 << 20


def open_parts(name: str, parts: Sequence[tuple[str, Any, dict[str, str]]], kind: str) -> Raw:
    """Open the parts of one table.

    Args:
        name: the table's name, for messages.
        parts: for each part its name, a path or the bytes (memory-mapped), and columns that its folder names (``key=value``).
        kind: ``parquet`` or ``arrow``.

    Raises:
        TableError: a part that cannot be read, or whose columns are not those of the first part.
    """
    head, stream = (_parquet_head, _parquet_stream) if kind == "parquet" else (_arrow_head, _arrow_stream)
    schema: pa.Schema | None = None
    plain: pa.Schema | None = None
    rows: int | None = 0
    for label, part, extra in parts:
        found, count = _guard(label, partial(head, part))
        found = _with_extra(found, extra)
        if schema is None or plain is None:
            schema, plain = found, plain_schema(found, label)
        elif plain_schema(found, label) != plain:
            _differ(name, label, plain, plain_schema(found, label))
        rows = None if rows is None or count is None else rows + count
    assert schema is not None
    hints, classes = metadata_features(schema)

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        for label, part, extra in parts:
            batches = stream(part, max_rows)
            while (batch := _guard(label, partial(next, batches, None))) is not None:
                for column, value in extra.items():
                    batch = batch.append_column(column, pa.array([value] * batch.num_rows, pa.large_string()))
                yield batch

    return Raw(schema, opener, num_rows=rows, hints=hints, classes=classes)


def _with_extra(schema: pa.Schema, extra: dict[str, str]) -> pa.Schema:
    for column in extra:
        schema = schema.append(pa.field(column, pa.large_string()))
    return schema


def _differ(name: str, label: str, first: pa.Schema, other: pa.Schema) -> None:
    for field in other:
        if field.name not in first.names:
            raise TableError(f"{name}: the part {label} has the column {field.name!r}, which the first part lacks; give parts of one table")
        if first.field(field.name).type != field.type:
            raise TableError(
                f"{name}: column {field.name!r} is {field.type} in the part {label} and {first.field(field.name).type} in the first; "
                "give parts of one type"
            )
    absent = [n for n in first.names if n not in other.names]
    where = f"lacks the column {absent[0]!r}" if absent else "has its columns in another order"
    raise TableError(f"{name}: the part {label} {where}; give parts of one table")


def _guard(label: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise TableError(f"{label}: cannot be opened: {error.strerror or error}") from None
        raise TableError(f"{label}: the file is damaged or cut short: {str(error).splitlines()[0]}; write it again") from None


def _opened(part: Any) -> Any:
    """Return what Arrow reads natively: a path as it is, bytes from their beginning."""
    return pa.BufferReader(part) if isinstance(part, pa.Buffer) else part


def _parquet_head(part: Any) -> tuple[pa.Schema, int | None]:
    file = pq.ParquetFile(_opened(part))
    return file.schema_arrow, file.metadata.num_rows


def _parquet_stream(part: Any, max_rows: int) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(_opened(part), pre_buffer=False, buffer_size=1 << 20)
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        if meta.num_rows == 0:
            continue
        mean = max(1, meta.total_byte_size // meta.num_rows)
        rows = max(1, min(max_rows, _BATCH_BYTES // mean))
        yield from file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False)


def _arrow_file(part: Any) -> tuple[Any, bool]:
    """Open an IPC file or stream; say which it is."""
    source = _opened(part) if isinstance(part, pa.Buffer) else pa.memory_map(str(part))
    whole = source.read(6) == b"ARROW1"
    source.seek(0)
    return (pa.ipc.open_file(source), True) if whole else (pa.ipc.open_stream(source), False)


def _arrow_head(part: Any) -> tuple[pa.Schema, int | None]:
    reader, whole = _arrow_file(part)
    count = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches)) if whole else None
    return reader.schema, count


def _arrow_stream(part: Any, max_rows: int) -> Iterator[pa.RecordBatch]:
    del max_rows
    reader, whole = _arrow_file(part)
    if not whole:
        yield from reader
        return
    for i in range(reader.num_record_batches):
        yield reader.get_batch(i)


def open_arrow_pipe(name: str, file: BinaryIO) -> Raw:
    """Open an Arrow IPC stream that can be read a single time.

    Args:
        name: the table's name, for messages.
        file: the bytes.
    """
    reader = _guard(name, lambda: pa.ipc.open_stream(pa.PythonFile(file, mode="r")))
    hints, classes = metadata_features(reader.schema)

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        del max_rows
        batches = iter(reader)
        while (batch := _guard(name, lambda: next(batches, None))) is not None:
            yield batch

    return Raw(reader.schema, opener, hints=hints, classes=classes, once=True)
