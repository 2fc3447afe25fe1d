"""Gather rows of a memory-mapped Arrow IPC file without reading anything but these rows.

All record batches lie in one file, so that a value's place is (start of its batch's buffer) + (its offset in the batch), and a
column is gathered by one numpy index over the whole file. Letters: R rows asked for, B batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int = NDArray[np.int64]
_LONG = 64


@dataclass
class Node:
    """Where one column, or one child of a nested column, lies in the file.

    Attributes:
        type: its plain Arrow type.
        valid: (B,) place of each batch's validity bitmap in bytes; -1 where all values are valid.
        data: (B,) place of the values or offsets in bytes; empty for types without any.
        body: (B,) place of the characters of text and bytes.
        children: nodes of the items of a list or the fields of a struct.
    """

    type: pa.DataType
    valid: Int
    data: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    body: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    children: list[Node] = field(default_factory=list)


def locate(arrays: Sequence[pa.Array], base: int) -> Node:
    """Find the places of one column's arrays, one a batch.

    Args:
        arrays: the column in every batch, as the IPC reader gives it (no offsets).
        base: the address of the file's first byte.
    """
    dtype = arrays[0].type
    buffers = [_own_buffers(a) for a in arrays]

    def places(which: int, absent: int) -> Int:
        return np.array([absent if b[which] is None else b[which].address - base for b in buffers], np.int64)

    if pa.types.is_null(dtype):
        return Node(dtype, np.zeros(0, np.int64))
    node = Node(dtype, places(0, -1))
    if pa.types.is_struct(dtype):
        node.children = [locate([a.field(i) for a in arrays], base) for i in range(dtype.num_fields)]
    elif pa.types.is_fixed_size_list(dtype):
        node.children = [locate([a.values for a in arrays], base)]
    else:
        node.data = places(1, 0)
        if pa.types.is_large_list(dtype):
            node.children = [locate([a.values for a in arrays], base)]
        elif len(buffers[0]) > 2:
            node.body = places(2, 0)
    return node


def _own_buffers(array: pa.Array) -> list[Any]:
    if array.offset:
        raise ValueError("an array of a record batch file begins at its first value")
    buffers = array.buffers()
    return buffers or [None]


def gather(file: NDArray[np.uint8], node: Node, batch: Int, local: Int) -> pa.Array:
    """Return the values at some places as a new array.

    Args:
        file: every byte of the file.
        node: the column.
        batch: (R,) the batch of each row.
        local: (R,) the row's offset in its batch.
    """
    dtype, rows = node.type, len(batch)
    if pa.types.is_null(dtype):
        return pa.nulls(rows)
    valid = _valid(file, node, batch, local)
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    nulls = 0 if valid is None else rows - int(valid.sum())
    if pa.types.is_struct(dtype):
        children = [gather(file, child, batch, local) for child in node.children]
        return pa.Array.from_buffers(dtype, rows, [bitmap], null_count=nulls, children=children)
    if pa.types.is_fixed_size_list(dtype):
        size = dtype.list_size
        child = _gather_ranges(file, node.children[0], batch, local * size, np.full(rows, size, np.int64))
        return pa.Array.from_buffers(dtype, rows, [bitmap], null_count=nulls, children=[child])
    if pa.types.is_boolean(dtype):
        bits = file[node.data[batch] + (local >> 3)] >> (local & 7).astype(np.uint8) & 1
        return pa.Array.from_buffers(dtype, rows, [bitmap, pa.py_buffer(np.packbits(bits, bitorder="little"))], null_count=nulls)
    if len(node.body) or node.children:
        offsets = file.view(np.int64) if len(file) % 8 == 0 else file[: len(file) // 8 * 8].view(np.int64)
        at = node.data[batch] // 8 + local
        start, end = offsets[at], offsets[at + 1]
        lengths = end - start
        ends = np.zeros(rows + 1, np.int64)
        np.cumsum(lengths, out=ends[1:])
        buffers = [bitmap, pa.py_buffer(ends)]
        if node.children:
            child = _gather_ranges(file, node.children[0], batch, start, lengths)
            return pa.Array.from_buffers(dtype, rows, buffers, null_count=nulls, children=[child])
        body = _ranges(file, node.body[batch] + start, lengths)
        return pa.Array.from_buffers(dtype, rows, [*buffers, pa.py_buffer(body)], null_count=nulls)
    width = dtype.bit_width // 8
    return pa.Array.from_buffers(dtype, rows, [bitmap, pa.py_buffer(_values(file, node, batch, local, width))], null_count=nulls)


def _valid(file: NDArray[np.uint8], node: Node, batch: Int, local: Int) -> NDArray[np.uint8] | None:
    """Return (R,) 0 or 1, or None if every value is valid."""
    place = node.valid[batch]
    if not len(place) or int(place.max()) < 0:
        return None
    bits = file[np.maximum(place, 0) + (local >> 3)] >> (local & 7).astype(np.uint8) & 1
    bits = np.where(place < 0, np.uint8(1), bits)
    return None if bits.all() else bits


def _values(file: NDArray[np.uint8], node: Node, batch: Int, local: Int, width: int) -> NDArray[Any]:
    if width in {1, 2, 4, 8}:
        words = file[: len(file) // width * width].view(f"u{width}")
        picked: NDArray[Any] = words[node.data[batch] // width + local]
        return picked
    return _ranges(file, node.data[batch] + local * width, np.full(len(batch), width, np.int64))


def _gather_ranges(file: NDArray[np.uint8], node: Node, batch: Int, start: Int, lengths: Int) -> pa.Array:
    """Return the values of ``lengths`` items from ``start`` on, for each row."""
    total = int(lengths.sum())
    flat = not (node.children or len(node.body)) and pa.types.is_primitive(node.type) and not pa.types.is_boolean(node.type)
    if flat and total > _LONG * len(batch) and bool((node.valid[batch] < 0).all()):
        width = node.type.bit_width // 8
        data = _ranges(file, node.data[batch] + start * width, lengths * width)
        return pa.Array.from_buffers(node.type, total, [None, pa.py_buffer(data)], null_count=0)
    begin = np.cumsum(lengths) - lengths
    local = np.arange(total, dtype=np.int64) + np.repeat(start - begin, lengths)
    return gather(file, node, np.repeat(batch, lengths), local)


def _ranges(file: NDArray[np.uint8], start: Int, lengths: Int) -> NDArray[np.uint8]:
    """Return byte ranges one behind the other."""
    total = int(lengths.sum())
    if total > _LONG * len(start):
        parts = [file[s : s + n] for s, n in zip(start.tolist(), lengths.tolist(), strict=True)]
        joined: NDArray[np.uint8] = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
        return joined
    begin = np.cumsum(lengths) - lengths
    picked: NDArray[np.uint8] = file[np.arange(total, dtype=np.int64) + np.repeat(start - begin, lengths)]
    return picked
