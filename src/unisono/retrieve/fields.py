"""What an index keeps of its rows to show and to filter by: the table's own columns, media as references or bounded bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unisono.core.errors import SchemaError, nearest
from unisono.core.schema import TABLE_SOURCE, Column
from unisono.modalities.base import Context, modalities
from unisono.table.write import plain_value

#: The largest media cell that is kept in an index, in bytes.
MAX_MEDIA = 1 << 20
_BY_NUMBERS = frozenset({"vector", "series", "points", "graph", "cube"})


def choose_fields(schema: pa.Schema, columns: Mapping[str, str], asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Which columns are kept, and which are not.

    Args:
        schema: the table's columns.
        columns: column -> modality, of those that the model reads.
        asked: the columns to keep; None for all but lists of numbers, which no page shows.

    Raises:
        SchemaError: there is no such column.
    """
    if asked is not None:
        for name in asked:
            if name not in schema.names:
                raise SchemaError(f"field {name!r}: the table has no such column{nearest(name, schema.names)}")
        return [n for n in schema.names if n in set(asked)], [n for n in schema.names if n not in set(asked)]
    dropped = [f.name for f in schema if columns.get(f.name) in _BY_NUMBERS and not _is_file(f.type)]
    dropped += [f.name for f in schema if f.name not in columns and pa.types.is_nested(f.type) and not _is_file(f.type)]
    return [n for n in schema.names if n not in dropped], dropped


def _is_file(dtype: pa.DataType) -> bool:
    """Say whether cells are paths, bytes, or structs and lists of them."""
    t = pa.types
    if t.is_large_list(dtype) or t.is_list(dtype) or t.is_fixed_size_list(dtype):
        return _is_file(dtype.value_type)
    return bool(
        t.is_large_string(dtype) or t.is_large_binary(dtype) or (t.is_struct(dtype) and {"bytes", "path"} & {f.name for f in dtype})
    )


def field_schema(schema: pa.Schema, kept: Sequence[str], columns: Mapping[str, str]) -> pa.Schema:
    """The columns as they are kept: numbers that the table writes as text become numbers.

    Args:
        schema: the table's columns.
        kept: those that are kept.
        columns: column -> modality, of those that the model reads.
    """
    found = [schema.field(n) for n in kept]
    return pa.schema([pa.field(f.name, pa.float64()) if _written(f.type, columns.get(f.name)) else pa.field(f.name, f.type) for f in found])


def _written(dtype: pa.DataType, modality: str | None) -> bool:
    return modality == "number" and bool(pa.types.is_large_string(dtype))


def field_values(array: pa.Array, name: str, dtype: pa.DataType, limit: int = MAX_MEDIA) -> tuple[pa.Array, int]:
    """A column as it is kept, and how many of its cells were too large for that.

    Args:
        array: the table's column.
        name: its name.
        dtype: its type in the index.
        limit: the largest number of bytes of a cell.
    """
    if pa.types.is_floating(dtype) and pa.types.is_large_string(array.type):
        numbers = modalities.build("number").decode_many(array, Column(name, "number", TABLE_SOURCE, 0), Context()).cells
        return pa.array(numbers, dtype, from_pandas=True), 0
    return bounded(array, limit) if array.type == dtype else (array.cast(dtype), 0)


def bounded(array: pa.Array, limit: int = MAX_MEDIA) -> tuple[pa.Array, int]:
    """A column without bytes that are too long.

    Args:
        array: a column.
        limit: the largest number of bytes of a cell.

    Returns:
        The column with such cells as null (a struct keeps its path), and how many they were.
    """
    t = pa.types
    if t.is_large_binary(array.type):
        large = pc.fill_null(pc.greater(pc.binary_length(array), limit), False)
        return pc.if_else(large, pa.scalar(None, array.type), array), int(pc.sum(large).as_py() or 0)
    if t.is_struct(array.type) and "bytes" in [f.name for f in array.type]:
        kept, count = bounded(array.field("bytes"), limit)
        parts = [kept if f.name == "bytes" else array.field(f.name) for f in array.type]
        return pa.StructArray.from_arrays(parts, fields=list(array.type), mask=array.is_null()), count
    if t.is_large_list(array.type) and (t.is_large_binary(array.type.value_type) or t.is_struct(array.type.value_type)):
        large = np.array([_bytes_in(cell.as_py()) > limit for cell in array], bool)
        return pc.if_else(pa.array(large), pa.scalar(None, array.type), array), int(large.sum())
    return array, 0


def _bytes_in(cell: Any) -> int:
    if isinstance(cell, bytes):
        return len(cell)
    values = cell.values() if isinstance(cell, dict) else cell if isinstance(cell, list) else ()
    return sum(_bytes_in(v) for v in values)


def shown(value: Any) -> Any:
    """A field's value in JSON; bytes are told by their number alone."""
    return plain_value(value, lambda data: {"bytes": len(data)})
