"""Tables that are in memory already: pandas, polars, Arrow, Hugging Face datasets, dicts and lists."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from unisono.core.errors import TableError
from unisono.table.hints import metadata_features, read_features
from unisono.table.plain import check_names
from unisono.table.source import Raw
from unisono.table.values import column_array, common_type, values_array

NAME = "table in memory"


def open_memory(data: Any) -> Raw:
    """Open a table in memory.

    Args:
        data: a pandas or polars frame, Arrow table, batch or reader, Hugging Face dataset, dict of lists, list of dicts.

    Raises:
        TableError: it is none of these, or its columns cannot be read.
    """
    if _is_a(data, "pandas", "DataFrame"):
        return _table(_from_pandas(data))
    if _is_a(data, "polars", "LazyFrame"):
        data = data.collect()
    if isinstance(data, pa.Table):
        return _table(data)
    if isinstance(data, pa.RecordBatch):
        return _table(pa.Table.from_batches([data]))
    if isinstance(data, pa.RecordBatchReader):
        return _reader(data)
    if _is_a(data, "datasets", "DatasetDict") or _is_a(data, "datasets", "IterableDatasetDict"):
        raise TableError(f"{NAME}: a dataset of the parts {', '.join(map(repr, data))}; give one of them, or concatenate them")
    if hasattr(data, "with_format") and hasattr(data, "features"):
        return _from_dataset(data)
    if isinstance(data, Mapping):
        return _table(_from_dict(data))
    if isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        return _table(_from_records(data))
    if hasattr(data, "__arrow_c_stream__"):
        return _table(pa.table(data))
    raise TableError(
        f"a {type(data).__name__} is no table; give a path, a pandas or polars frame, an Arrow table, "
        "a Hugging Face dataset, a dict of lists or a list of dicts"
    )


def _is_a(data: Any, module: str, cls: str) -> bool:
    """Say whether data is of a library's class, without importing the library."""
    loaded = sys.modules.get(module)
    return loaded is not None and hasattr(loaded, cls) and isinstance(data, getattr(loaded, cls))


def _table(table: pa.Table) -> Raw:
    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(max_chunksize=max_rows)

    hints, classes = metadata_features(table.schema)
    return Raw(table.schema, opener, num_rows=table.num_rows, hints=hints, classes=classes, fingerprint=_fingerprint(table))


def _fingerprint(table: pa.Table) -> str | None:
    """Return a hash of the content; None for types that cannot be written."""
    sink = _Hash()
    try:
        with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema.remove_metadata()) as writer:
            for batch in table.to_batches(max_chunksize=1 << 16):
                writer.write_batch(batch.replace_schema_metadata(None))
    except pa.ArrowException:
        return None
    return sink.state.hexdigest()


class _Hash:
    """A file that hashes what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.state, self._size = hashlib.blake2b(digest_size=16), 0

    def write(self, data: Any) -> int:
        size = len(memoryview(data))
        self.state.update(data)
        self._size += size
        return size

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


def _reader(reader: pa.RecordBatchReader) -> Raw:
    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        del max_rows
        yield from reader

    hints, classes = metadata_features(reader.schema)
    return Raw(reader.schema, opener, hints=hints, classes=classes, once=True)


def _from_pandas(frame: Any) -> pa.Table:
    names = [str(column) for column in frame.columns]
    check_names(names, NAME)
    arrays = []
    for position, column in enumerate(names):
        series = frame.iloc[:, position]
        try:
            arrays.append(_one(pa.Array.from_pandas(series)))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            values = [None if v is None or v is _pandas_na() or v != v else v for v in map(_plain_cell, series.tolist())]
            arrays.append(column_array(values, column, NAME))
    return pa.Table.from_arrays(arrays, names=names)


def _one(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _pandas_na() -> Any:
    return sys.modules["pandas"].NA


def _plain_cell(value: Any) -> Any:
    """Return arrays as lists, so that a cell compares as one value."""
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "ndim") and value.ndim else value


def _from_dict(data: Mapping[Any, Any]) -> pa.Table:
    names = [str(column) for column in data]
    check_names(names, NAME)
    arrays = [column_array(values, column, NAME) for column, values in zip(names, data.values(), strict=True)]
    lengths = {column: len(array) for column, array in zip(names, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{column!r} has {length}" for column, length in list(lengths.items())[:5])
        raise TableError(f"{NAME}: the columns differ in length ({shown} rows); give one value a row in every column")
    return pa.Table.from_arrays(arrays, names=names)


def _from_records(records: Any) -> pa.Table:
    names = list(dict.fromkeys(str(key) for record in records for key in record))
    check_names(names, NAME)
    arrays = []
    for column in names:
        values = [record.get(column) for record in records]
        try:
            arrays.append(values_array(values, common_type(values)))
        except TypeError:
            arrays.append(column_array(values, column, NAME))
    return pa.Table.from_arrays(arrays, names=names)


def _from_dataset(dataset: Any) -> Raw:
    features = dataset.features
    arrow = dataset.with_format("arrow")
    schema = features.arrow_schema if hasattr(features, "arrow_schema") else None
    if schema is None:
        raise TableError(f"{NAME}: a dataset without known features; call ._resolve_features() on it, or give a list of dicts")
    hints, classes = read_features(features)

    def opener(max_rows: int) -> Iterator[pa.RecordBatch]:
        for part in arrow.iter(batch_size=min(max_rows, 1000)):
            yield from part.cast(schema).to_batches()

    rows = len(dataset) if hasattr(dataset, "__len__") else None
    mark = getattr(dataset, "_fingerprint", None)
    return Raw(schema, opener, num_rows=rows, hints=hints, classes=classes, fingerprint=str(mark) if mark else None)
