"""Arrays in cells: nested lists, Arrow lists, and ``.npy`` files read without trusting them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import Unreadable
from unisono.core.media import MAX_MEDIA_BYTES, media_bytes
from unisono.modalities.base import ColumnSample, Context

_KINDS = "biuf"


def npy_array(content: bytes, name: str = "the file") -> NDArray[Any]:
    """Read the bytes of a ``.npy`` file; its header is checked against its size before anything is allocated.

    Raises:
        Unreadable: no such file, another dtype than numbers, truncated.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise Unreadable(f"{name} is no .npy file ({str(error).splitlines()[0][:80]})") from None
    if dtype.kind not in _KINDS:
        raise Unreadable(f"{name} holds values of type {dtype}, not numbers")
    need, have = int(np.prod(shape, dtype=object)) * dtype.itemsize, len(content) - stream.tell()
    if need > have:
        raise Unreadable(f"{name} is truncated: {need:,} bytes of values are announced, {have:,} are there")
    flat = np.frombuffer(content, dtype, count=need // max(1, dtype.itemsize), offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def cell_array(cell: Any, context: Context) -> NDArray[np.float32]:
    """Turn one cell into an array of float32: a nested list, an array, or a ``.npy`` file by path, bytes or struct; None is NaN.

    Raises:
        Unreadable: ragged, not numbers, infinite, or no readable file.
    """
    if isinstance(cell, str | bytes | bytearray) or (isinstance(cell, dict) and ("bytes" in cell or "path" in cell)):
        name = repr(cell) if isinstance(cell, str) else "the file"
        given: Any = npy_array(media_bytes(cell, context.root, limit=MAX_MEDIA_BYTES), name)
    else:
        given = cell.get("values") if isinstance(cell, dict) else cell
    try:
        array = np.asarray(given)
        if array.dtype.kind == "O":
            array = np.asarray(given, np.float64)
    except (ValueError, TypeError):
        raise Unreadable("the lists in the cell are ragged, or hold something else than numbers") from None
    if array.dtype.kind not in _KINDS:
        raise Unreadable(f"the cell holds {type(cell).__name__} values that are no numbers")
    with np.errstate(over="ignore"):
        out = array.astype(np.float32)
    if np.isinf(out).any():
        raise Unreadable(f"value {int(np.flatnonzero(np.isinf(out))[0])} of the cell is infinite, or too large for 32 bits")
    return out


def is_number_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_list_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list of any kind."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The storage type of an extension type, else the type itself."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def npy_shapes(sample: ColumnSample, most: int = 8) -> list[tuple[int, ...]]:
    """The shapes of the first cells that are paths of ``.npy`` files; empty when the column holds no such paths."""
    values: Sequence[Any] = sample.values[:most]
    if not values or not all(isinstance(v, str) and v.lower().endswith(".npy") for v in values):
        return []
    shapes = []
    for value in values:
        try:
            shapes.append(npy_array(media_bytes(value, sample.root), repr(value)).shape)
        except Unreadable:
            continue
    return shapes
