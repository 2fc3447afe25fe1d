"""Plain Arrow types: the few that the rest of the package has to know.

Text is ``large_string``, bytes are ``large_binary``, lists of varying length are ``large_list``; dictionaries, views,
run-end encodings, maps, decimals and extension types are turned into these. Null, NaN and empty stay apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from unisono.core.errors import TableError

_BATCH_BYTES = 32 << 20
_FIXED = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_duration,
    pa.types.is_fixed_size_binary,
)


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """Return the plain type that holds the values of an Arrow type.

    Args:
        dtype: any Arrow type.

    Raises:
        TypeError: a type that no column can have here (a union, an interval).
    """
    t = pa.types
    if isinstance(dtype, pa.BaseExtensionType):
        return plain_type(dtype.storage_type)
    if t.is_dictionary(dtype) or t.is_run_end_encoded(dtype):
        return plain_type(dtype.value_type)
    if t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype):
        return pa.large_string()
    if t.is_fixed_size_binary(dtype):
        return dtype
    if t.is_binary(dtype) or t.is_large_binary(dtype) or t.is_binary_view(dtype):
        return pa.large_binary()
    if t.is_map(dtype):
        return pa.large_list(pa.struct([("key", plain_type(dtype.key_type)), ("value", plain_type(dtype.item_type))]))
    if t.is_fixed_size_list(dtype):
        return pa.list_(plain_type(dtype.value_type), dtype.list_size)
    if t.is_list(dtype) or t.is_large_list(dtype) or t.is_list_view(dtype) or t.is_large_list_view(dtype):
        return pa.large_list(plain_type(dtype.value_type))
    if t.is_struct(dtype):
        return pa.struct([pa.field(f.name, plain_type(f.type)) for f in dtype])
    if t.is_decimal(dtype):
        return pa.float64()
    if any(known(dtype) for known in _FIXED):
        return dtype
    raise TypeError(str(dtype))


def plain_schema(schema: pa.Schema, name: str) -> pa.Schema:
    """Return the schema with plain types; refuse duplicate column names and types that no column can have.

    Args:
        schema: the schema as it was read.
        name: the table's name, for the message.
    """
    check_names(schema.names, name)
    fields = []
    for field in schema:
        try:
            fields.append(pa.field(field.name, plain_type(field.type)))
        except TypeError:
            raise TableError(f"{name}: column {field.name!r} has the type {field.type}, which cannot be used; cast or drop it") from None
    return pa.schema(fields)


def check_names(names: Sequence[str], name: str) -> None:
    """Refuse a table without columns or with two columns of one name.

    Args:
        names: the column names in order.
        name: the table's name, for the message.
    """
    if not names:
        raise TableError(f"{name}: the table has no columns; give one with a header and at least two rows")
    seen: dict[str, int] = {}
    for position, column in enumerate(names, 1):
        if column in seen:
            raise TableError(f"{name}: the column name {column!r} occurs twice (columns {seen[column]} and {position}); rename one of them")
        seen[column] = position


def plain_array(array: pa.Array, dtype: pa.DataType | None = None) -> pa.Array:
    """Cast one array to its plain type (or to the given one); zero copy where nothing changes.

    Args:
        array: any Arrow array.
        dtype: the type wanted; by default ``plain_type(array.type)``.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    wanted = plain_type(array.type) if dtype is None else dtype
    if array.type == wanted:
        return array
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    return array if array.type == wanted else _cast(array, wanted)


def _cast(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Cast; nested extension types, which Arrow does not cast away, are rebuilt from their storage."""
    try:
        return array.cast(wanted)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        if pa.types.is_struct(array.type) and pa.types.is_struct(wanted) and array.type.num_fields == wanted.num_fields:
            children = [plain_array(array.field(i), wanted.field(i).type) for i in range(wanted.num_fields)]
            return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
        return pa.array(array.to_pylist(), wanted)


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Cast a batch to a schema of plain types.

    Args:
        batch: columns in the schema's order.
        schema: the plain schema.
    """
    columns = [plain_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def slices(batch: pa.RecordBatch, max_rows: int, max_bytes: int = _BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Cut a batch (zero copy) into pieces of at most ``max_rows`` rows and about ``max_bytes`` bytes.

    Args:
        batch: any batch.
        max_rows: the most rows in a piece.
        max_bytes: the bytes above which a piece is made smaller, down to one row.

    Yields:
        The pieces in order.
    """
    if batch.num_rows == 0:
        return
    mean = max(1, batch.nbytes // batch.num_rows)
    step = max(1, min(max_rows, max_bytes // mean))
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)
