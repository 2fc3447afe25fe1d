"""Python values to Arrow columns, numbers among text and ragged nesting included."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from unisono.core.errors import TableError

_INT64 = range(-(2**63), 2**63)
_SIMPLE = {bool: pa.bool_(), float: pa.float64(), str: pa.large_string(), bytes: pa.large_binary()}
_TIMES = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)


def type_of(value: Any) -> pa.DataType:
    """Return the Arrow type that holds one Python value; an integer beyond 64 bits is text.

    Args:
        value: None, a number, text, bytes, a date, or lists and mappings of these.

    Raises:
        TypeError: no column can hold the value.
    """
    if value is None:
        return pa.null()
    if isinstance(value, bool | np.bool_):
        return pa.bool_()
    if isinstance(value, int | np.integer):
        return pa.int64() if int(value) in _INT64 else pa.large_string()
    if isinstance(value, float | np.floating | Decimal):
        return pa.float64()
    if isinstance(value, str | PurePath):
        return pa.large_string()
    if isinstance(value, bytes | bytearray | memoryview):
        return pa.large_binary()
    if isinstance(value, Mapping):
        return pa.struct([(str(k), type_of(v)) for k, v in value.items()])
    if isinstance(value, np.ndarray):
        return _array_type(value)
    if isinstance(value, list | tuple):
        return pa.large_list(common_type(value))
    if isinstance(value, np.datetime64 | np.timedelta64):
        return pa.array([value]).type
    if isinstance(value, _TIMES):
        return pa.scalar(value).type
    raise TypeError(type(value).__name__)


def _array_type(value: np.ndarray[Any, Any]) -> pa.DataType:
    if value.dtype == object or value.dtype.kind in "SUmM":
        return type_of(value.tolist())
    inner = pa.from_numpy_dtype(value.dtype)
    for _ in range(value.ndim):
        inner = pa.large_list(inner)
    return inner


def common_type(values: Iterable[Any]) -> pa.DataType:
    """Return the type that holds all values; text where they conflict.

    Args:
        values: Python values of one column.
    """
    values = values if isinstance(values, list) else list(values)
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int, float} and kinds:
        whole = [v for v in values if type(v) is int]
        if not whole or (min(whole) in _INT64 and max(whole) in _INT64):
            return pa.int64() if kinds == {int} else pa.float64()
    if len(kinds) == 1:
        (kind,) = kinds
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        present = [v for v in values if v is not None]
        if kind is list:
            return pa.large_list(common_type(list(chain.from_iterable(present))))
        if kind is dict:
            names = dict.fromkeys(chain.from_iterable(present))
            if all(type(name) is str for name in names):
                return pa.struct([(name, common_type([v.get(name) for v in present])) for name in names])
    found = pa.null()
    for value in values:
        found = unify(found, type_of(value))
    return found


def unify(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of two types; text where they conflict.

    Args:
        first: a type.
        second: another.
    """
    t = pa.types
    if first == second or t.is_null(second):
        return first
    if t.is_null(first):
        return second
    if _is_number(first) and _is_number(second):
        return pa.int64() if t.is_integer(first) and t.is_integer(second) else pa.float64()
    if _is_list(first) and _is_list(second):
        return pa.large_list(unify(first.value_type, second.value_type))
    if t.is_struct(first) and t.is_struct(second):
        fields = {f.name: f.type for f in first}
        for f in second:
            fields[f.name] = unify(fields.get(f.name, pa.null()), f.type)
        return pa.struct(list(fields.items()))
    if {first.id, second.id} <= {pa.date32().id, pa.timestamp("us").id} and not any(getattr(x, "tz", None) for x in (first, second)):
        return pa.timestamp("us")
    if t.is_timestamp(first) and t.is_timestamp(second):
        return pa.timestamp("us", "UTC")
    return pa.large_string()


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype))


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype))


def as_text(value: Any) -> str | None:
    """Return a value as text: text as it is, everything else as JSON, None as None.

    Args:
        value: a Python value.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return as_text(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, _TIMES):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=as_text)


def fit_value(value: Any, dtype: pa.DataType) -> Any:
    """Return a value in the form that ``pa.array`` takes for a type.

    Args:
        value: a Python value.
        dtype: a type that ``common_type`` found for its column.
    """
    t = pa.types
    if value is None:
        return None
    if t.is_large_string(dtype):
        return as_text(value)
    if _is_list(dtype):
        items = value.tolist() if isinstance(value, np.ndarray) else value
        inner = dtype.value_type
        return items if _is_number(inner) else [fit_value(v, inner) for v in items]
    if t.is_struct(dtype):
        return {f.name: fit_value(value.get(f.name), f.type) for f in dtype}
    if t.is_floating(dtype) and not isinstance(value, float):
        return _as_float(value)
    if t.is_large_binary(dtype) and not isinstance(value, bytes):
        return bytes(value)
    if t.is_timestamp(dtype) and isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.datetime(value.year, value.month, value.day)
    return value


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _is_direct(values: list[Any], dtype: pa.DataType) -> bool:
    """Say whether ``pa.array`` takes the values for the type as they are."""
    kinds = set(map(type, values)) - {type(None)}
    if pa.types.is_large_list(dtype) and kinds <= {list}:
        return _is_direct(list(chain.from_iterable(v for v in values if v is not None)), dtype.value_type)
    if pa.types.is_struct(dtype) and kinds <= {dict}:
        present = [v for v in values if v is not None]
        return all(_is_direct([v.get(f.name) for v in present], f.type) for f in dtype)
    return any(dtype == _SIMPLE[k] for k in kinds) if len(kinds) == 1 and kinds <= set(_SIMPLE) else kinds == {int} and dtype == pa.int64()


def values_array(values: Sequence[Any], dtype: pa.DataType) -> pa.Array:
    """Return a column of Python values of a type.

    Args:
        values: one value a row.
        dtype: the type, as ``common_type`` finds it.
    """
    if pa.types.is_null(dtype):
        return pa.nulls(len(values))
    if _is_direct(list(values), dtype):
        return pa.array(values, dtype, from_pandas=False)
    return pa.array([fit_value(v, dtype) for v in values], dtype, from_pandas=False)


def column_array(values: Any, column: str, name: str) -> pa.Array:
    """Return a column in memory as an Arrow array.

    Args:
        values: an Arrow or numpy array, or a sequence of Python values.
        column: the column's name, for messages.
        name: the table's name, for messages.

    Raises:
        TableError: a value that no column can hold; the row is named.
    """
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biufM":
        return pa.array(values)
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "biuf":
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise TableError(f"{name}: column {column!r} is a {type(values).__name__}; give a list or an array with one value a row")
    rows = list(values)
    try:
        return values_array(rows, common_type(rows))
    except TypeError:
        pass
    for row, value in enumerate(rows):
        try:
            type_of(value)
        except TypeError as error:
            raise TableError(
                f"{name}: row {row}, column {column!r}: a {error} cannot stand in a table; give a value, a list, bytes or a path"
            ) from None
    raise TableError(f"{name}: column {column!r} cannot be read as one column; give values of one kind")
