"""Compare a column with a value that was written as text. Results are (true, false); what is neither is unknown."""

from __future__ import annotations

import datetime
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unisono.table.plain import plain_array

Bool = NDArray[np.bool_]
Kleene = tuple[Bool, Bool]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ARROW = {"==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_DATE = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?"
_IS_NUMBER, _IS_DATE = re.compile(_NUMBER, re.ASCII), re.compile(_DATE, re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_EXACT = 2.0**53
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def settled(array: pa.Array) -> pa.Array:
    """Return the array in its plain type, ready for ``compare``.

    Args:
        array: a column.
    """
    return plain_array(array)


def is_null(array: pa.Array) -> Bool:
    """Return which cells are missing: null, or NaN in a column of floating-point numbers.

    Args:
        array: a column.
    """
    null = pc.is_null(array, nan_is_null=pa.types.is_floating(array.type))
    return np.asarray(null.to_numpy(zero_copy_only=False), bool)


def compare(array: pa.Array, op: str, value: str) -> Kleene:
    """Compare every cell with one value.

    Args:
        array: a column of plain type.
        op: one of ``== != < <= > >=``.
        value: the value as it was written.

    Returns:
        Which cells satisfy the comparison, and which do not; a missing cell is neither.

    Raises:
        ValueError: the value cannot be compared with cells of this type; the message goes on after the column's name.
    """
    t = pa.types
    if t.is_null(array.type):
        nothing = np.zeros(len(array), bool)
        return nothing, nothing.copy()
    if t.is_boolean(array.type):
        return _boolean(array, op, value)
    if t.is_integer(array.type) or t.is_floating(array.type):
        return _number(array, op, value)
    if t.is_timestamp(array.type) or t.is_date(array.type):
        return _date(array, op, value)
    if t.is_large_string(array.type):
        return _text(array, op, value)
    raise ValueError(f"holds {_kind(array.type)}; such a column can only be tested with 'is null' and 'is not null'")


def _kind(dtype: pa.DataType) -> str:
    if pa.types.is_large_binary(dtype) or pa.types.is_fixed_size_binary(dtype):
        return "bytes"
    return "lists" if pa.types.is_nested(dtype) and not pa.types.is_struct(dtype) else f"values of the type {dtype}"


def _result(known: Bool, satisfied: Any) -> Kleene:
    true = known & np.asarray(satisfied, bool)
    return true, known & ~true


def _boolean(array: pa.Array, op: str, value: str) -> Kleene:
    wanted = _BOOLEANS.get(value.strip().lower(), {"1": True, "0": False}.get(value.strip()))
    if wanted is None:
        raise ValueError(f"holds true and false; {value!r} is neither")
    if op not in {"==", "!="}:
        raise ValueError("holds true and false, which have no order; use = or !=")
    cells = array.fill_null(False).to_numpy(zero_copy_only=False)
    return _result(~is_null(array), _OPERATORS[op](cells, wanted))


def _number(array: pa.Array, op: str, value: str) -> Kleene:
    text = value.strip()
    if not _IS_NUMBER.fullmatch(text) and text.lower().lstrip("+-") not in {"inf", "infinity"}:
        raise ValueError(f"holds numbers; {value!r} is no number")
    known = ~is_null(array)
    cells = array.fill_null(0).to_numpy(zero_copy_only=False)
    wanted: int | float = int(text) if re.fullmatch(r"[+-]?\d{1,30}", text) else float(text)
    if cells.dtype.kind in "iu" and isinstance(wanted, int):
        limits = np.iinfo(cells.dtype)
        if limits.min <= wanted <= limits.max:
            return _result(known, _OPERATORS[op](cells, cells.dtype.type(wanted)))
        beyond = limits.max if wanted > 0 else limits.min
        return _result(known, np.full(len(cells), _OPERATORS[op](beyond, wanted)))
    with np.errstate(invalid="ignore"):
        return _result(known, _OPERATORS[op](cells.astype(np.float64), np.float64(_floated(wanted))))


def _floated(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def moment(text: str) -> int:
    """Return the microseconds since 1970 of an ISO date or time; without a zone it is UTC."""
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return (found - _EPOCH) // _MICROSECOND


def _date(array: pa.Array, op: str, value: str) -> Kleene:
    text = value.strip()
    try:
        wanted = moment(text)
    except ValueError:
        raise ValueError(f"holds dates; {value!r} is no ISO date (2024-12-31, or '2024-12-31 23:59' in quotes)") from None
    moments = microseconds(array)
    return _result(~is_null(array), _OPERATORS[op](moments, wanted))


def microseconds(array: pa.Array) -> NDArray[np.int64]:
    """Return dates or timestamps as microseconds since 1970 (UTC), rounded down; 0 where null.

    Args:
        array: a column of dates or timestamps.
    """
    ticks: NDArray[np.int64]
    if pa.types.is_date(array.type):
        ticks = array.cast(pa.date32()).cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return ticks * np.int64(86_400_000_000)
    ticks = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if array.type.unit == "ns":
        return ticks // np.int64(1000)
    return ticks * np.int64({"s": 1_000_000, "ms": 1000, "us": 1}[array.type.unit])


def _text(array: pa.Array, op: str, value: str) -> Kleene:
    known = ~is_null(array)
    text = value.strip()
    plain = _ARROW[op](array, pa.scalar(value, pa.large_string())).fill_null(False).to_numpy(zero_copy_only=False)
    true, false = _result(known, plain)
    if _IS_NUMBER.fullmatch(text):
        return _text_number(array, op, text, known, true)
    if text.lower() in _BOOLEANS and op in {"==", "!="}:
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(array))
        same = pc.equal(lowered, pa.scalar(text.lower(), pa.large_string())).fill_null(False).to_numpy(zero_copy_only=False)
        return _result(known, same if op == "==" else ~same)
    if _IS_DATE.fullmatch(text):
        return _text_date(array, op, text, known, true)
    return true, false


def _text_number(array: pa.Array, op: str, text: str, known: Bool, plain: Bool) -> Kleene:
    """Cells that are numbers compare as numbers; others are unequal, and neither above nor below."""
    trimmed = pc.utf8_trim_whitespace(array)
    number = pc.match_substring_regex(trimmed, f"^{_NUMBER}$").fill_null(False).to_numpy(zero_copy_only=False)
    cells = np.zeros(len(array), np.float64)
    if number.any():
        digits = pc.replace_substring_regex(trimmed.filter(pa.array(number)), r"^\+", "")
        cells[number] = digits.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wanted = np.float64(text)
    if op in {"==", "!="}:
        exact = plain if op == "==" else known & ~plain
        same = exact | (number & (cells == wanted) & (abs(wanted) < _EXACT))
        return _result(known, same if op == "==" else ~same)
    return _result(known & number, _OPERATORS[op](cells, wanted))


def _text_date(array: pa.Array, op: str, text: str, known: Bool, plain: Bool) -> Kleene:
    """Cells that are ISO dates compare as dates; others are unequal, and neither before nor after."""
    try:
        wanted = moment(text)
    except ValueError:
        return plain, known & ~plain
    encoded = array.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    moments = np.zeros(max(1, len(words)), np.int64)
    dated = np.zeros(max(1, len(words)), bool)
    for i, word in enumerate(words):
        if word is not None and _IS_DATE.fullmatch(word.strip()):
            try:
                moments[i], dated[i] = moment(word.strip()), True
            except ValueError:
                continue
    index = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    date = known & dated[index]
    satisfied = _OPERATORS[op](moments[index], wanted)
    if op in {"==", "!="}:
        return _result(known, np.where(date, satisfied, op == "!="))
    return _result(date, satisfied)
