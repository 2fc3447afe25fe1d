"""From the values of a request to typed cells: one Arrow table with the types that the model's columns ask for.

What a request gives is never taken for a path: a media cell is bytes, in JSON as ``{"base64": "..."}``.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from unisono.core.errors import nearest
from unisono.core.schema import Column, Schema
from unisono.modalities.audio import looks_like_sound
from unisono.modalities.base import Context
from unisono.modalities.image import picture_kind
from unisono.modalities.video import video_kind
from unisono.serve.replies import Refused
from unisono.table.store import decode_column
from unisono.table.values import column_array

#: Modalities whose cells are files.
MEDIA = frozenset({"image", "audio", "video"})
_CHECKED = frozenset({"number", "category", "boolean", "datetime", "text", "sequence"})
_TYPES = {
    "number": pa.float64(), "category": pa.large_string(), "boolean": pa.large_string(), "datetime": pa.large_string(),
    "text": pa.large_string(), "sequence": pa.large_string(), **dict.fromkeys(MEDIA, pa.large_binary()),
}  # fmt: skip


def rows_table(rows: Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    """Rows of a request as a table with every column of the model; what a row leaves out is null.

    Args:
        rows: column -> value; targets and other columns that the fit knew may be there and are not looked at.
        schema: the model's.

    Raises:
        Refused: a column is unknown, or a value is none of its column.
    """
    columns = {c.name: c for c in schema.columns}
    known = {*columns, *(t.name for t in schema.targets), *schema.left_out, *schema.roles.values(), schema.key}
    for row in rows:
        for name in row:
            if name not in known:
                raise Refused(422, f"the model has no column {name!r}{nearest(name, columns)}", f"column {name!r}")
    arrays = {name: _column([_cell(row.get(name), c, k) for k, row in enumerate(rows)], c) for name, c in columns.items()}
    return pa.table(arrays)


def cell_value(value: Any, column: Column) -> Any:
    """One value of a query as a cell of its column.

    Raises:
        Refused: it is none.
    """
    cell = _cell(value, column, 0)
    _column([cell], column)
    return cell


def media_value(value: Any, kind: str, where: str) -> bytes:
    """A file from a request: bytes as they were uploaded, or ``{"base64": "..."}``.

    Args:
        value: what was given.
        kind: ``image``, ``audio`` or ``video``.
        where: the place, for the refusal.

    Raises:
        Refused: it is neither, or begins like no file of that kind.
    """
    if isinstance(value, Mapping) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            value = base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise Refused(422, "the value of 'base64' is no base64 text", where) from None
    if not isinstance(value, bytes):
        raise Refused(422, f'a cell of {kind} is an uploaded file, or {{"base64": "..."}} in JSON', where)
    if not value:
        raise Refused(422, "the file is empty", where)
    if not _looks_like(kind, value[:4096]):
        raise Refused(422, f"the file is no {kind} that can be read: it begins like {_beginning(value)}", where)
    return value


def _looks_like(kind: str, head: bytes) -> bool:
    if kind == "audio":
        return looks_like_sound(head[:16])
    return bool(picture_kind(head[:64]) or (kind == "video" and video_kind(head)))


def _beginning(data: bytes) -> str:
    for kind, noun in (("audio", "a sound"), ("image", "a picture"), ("video", "a video")):
        if _looks_like(kind, data[:4096]):
            return noun
    return "text" if data[:64].isascii() and data[:64].decode("ascii").isprintable() else f"nothing known ({data[:8].hex(' ')})"


def _cell(value: Any, column: Column, row: int) -> Any:
    where = f"row {row}, column {column.name!r}"
    if value is None or value == "":
        return None
    if column.many and column.modality in {*MEDIA, "text"}:
        return [_item(v, column, where) for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]
    if isinstance(value, list | tuple) and column.modality in MEDIA:
        raise Refused(422, f"the column takes one file, got {len(value)}", where)
    return _item(value, column, where)


def _item(value: Any, column: Column, where: str) -> Any:
    word = column.modality
    if word in MEDIA:
        return media_value(value, word, where)
    if word == "number":
        return _number(value, where)
    if word == "text" and isinstance(value, list | tuple):
        value = ", ".join(str(v) for v in value if v is not None)
    if word in _TYPES:
        if isinstance(value, Mapping | list | tuple | bytes):
            raise Refused(422, f"the column of {word} takes one value, got {_noun(value)}", where)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return str(value)
    if isinstance(value, str) or (isinstance(value, Mapping) and "path" in value):
        raise Refused(422, f"a cell of {word} is lists of numbers, or an uploaded file", where)
    return value


def _noun(value: Any) -> str:
    return "a file" if isinstance(value, bytes) else "an object" if isinstance(value, Mapping) else "a list"


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool | int | float | str):
            number = float(value)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    shown = repr(value) if isinstance(value, str | int | float | bool) else _noun(value)
    raise Refused(422, f"{shown[:80]} is no finite number", where)


def _column(cells: list[Any], column: Column) -> pa.Array:
    """Cells as an array, those that need no file decoded once to see that they can be."""
    wanted = _TYPES.get(column.modality)
    if wanted is not None and column.many:
        wanted = pa.large_list(wanted)
    if wanted is not None:
        array = pa.array(cells, wanted)
    elif all(c is None for c in cells):
        array = pa.nulls(len(cells))
    else:
        array = column_array(cells, column.name, "the request")
    if column.modality in _CHECKED or wanted is None:
        decoded = decode_column(array, column, Context(None))
        if decoded.bad:
            row, reason = decoded.bad[0]
            raise Refused(422, reason, f"row {row}, column {column.name!r}")
    return array
