"""64-bit hashes of values and rows, the same on every machine.

Numbers go through SplitMix64's output function; text and bytes of up to 64 bytes are folded word by word with it, longer ones through
BLAKE2b. A row's hash is the sum over columns of mix(value ^ mix(name)), so that the order of columns does not matter. A value's hash does
not depend on how it is stored: 3 in 8 or 64 bits, or 0.5 in 32 or 64, are one value. Letters: R rows.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unisono.core.draw import mix64
from unisono.table.plain import plain_array

Words = NDArray[np.uint64]
_SHORT = 64
_NULL, _FLOAT, _TEXT, _LIST, _STRUCT = (np.uint64(k * 0x9E3779B97F4A7C15 % 2**64) for k in range(1, 6))


def word_hash(text: str) -> np.uint64:
    """Return a 64-bit hash of a name.

    Args:
        text: the name.
    """
    data = text.encode()
    return np.uint64(mix64(np.array([zlib.crc32(data) << 32 | len(data)], np.uint64))[0])


def array_hashes(array: pa.Array) -> Words:
    """Return the hash (R,) of each value of a column; nulls have one of their own.

    Args:
        array: a column of any type.
    """
    array = plain_array(array)
    t = pa.types
    if t.is_null(array.type):
        return np.full(len(array), _NULL)
    if t.is_struct(array.type):
        hashes = np.full(len(array), _STRUCT)
        with np.errstate(over="ignore"):
            for i in range(array.type.num_fields):
                hashes = hashes + mix64(array_hashes(array.field(i)) ^ word_hash(array.type.field(i).name))
    elif t.is_large_list(array.type) or t.is_fixed_size_list(array.type):
        hashes = _list_hashes(array)
    elif t.is_large_string(array.type) or t.is_large_binary(array.type):
        hashes = _bytes_hashes(array)
    elif t.is_fixed_size_binary(array.type):
        hashes = _bytes_hashes(array.cast(pa.large_binary()))
    else:
        hashes = mix64(_scalar_words(array))
    null = array.is_null().to_numpy(zero_copy_only=False)
    return np.where(null, _NULL, hashes) if null.any() else hashes


def _scalar_words(array: pa.Array) -> Words:
    if pa.types.is_floating(array.type):
        values = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0
        whole = np.isfinite(values) & (np.floor(values) == values) & (np.abs(values) < 2.0**53)
        bits = np.where(np.isnan(values), np.nan, values).view(np.uint64) ^ _FLOAT
        return np.where(whole, np.where(whole, values, 0.0).astype(np.int64).view(np.uint64), bits)
    if pa.types.is_boolean(array.type):
        return np.asarray(array.cast(pa.uint8()).fill_null(0).to_numpy(zero_copy_only=False), np.uint64)
    if pa.types.is_integer(array.type):
        return _as_words(array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
    storage = pa.int32() if array.type.bit_width == 32 else pa.int64()
    return _as_words(array.cast(storage).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _as_words(values: NDArray[np.int64]) -> Words:
    return values.view(np.uint64)


def _offsets(array: pa.Array) -> NDArray[np.int64]:
    """Return the (R + 1,) offsets of a list, text or bytes column."""
    buffer = array.buffers()[1]
    offsets = np.frombuffer(buffer, np.int64) if buffer is not None and buffer.size else np.zeros(1, np.int64)
    return offsets[array.offset : array.offset + len(array) + 1]


def _bytes_hashes(array: pa.Array) -> Words:
    rows = len(array)
    if rows == 0:
        return np.zeros(0, np.uint64)
    array = array.fill_null(b"" if pa.types.is_large_binary(array.type) else "") if array.null_count else array
    offsets = _offsets(array)
    body = array.buffers()[2]
    data = np.frombuffer(body, np.uint8) if body is not None else np.zeros(0, np.uint8)
    start, lengths = offsets[:-1], np.diff(offsets)
    hashes = mix64(lengths.astype(np.uint64) ^ _TEXT)
    short = np.flatnonzero((lengths > 0) & (lengths <= _SHORT))
    if len(short):
        width = -(-int(lengths[short].max()) // 8) * 8
        place = np.arange(width)[None, :]
        inside = place < lengths[short, None]
        picked = np.where(inside, data[np.where(inside, start[short, None] + place, 0)], np.uint8(0))
        words = np.ascontiguousarray(picked).view("<u8")
        folded = hashes[short]
        for k in range(words.shape[1]):
            folded = np.where(lengths[short] > 8 * k, mix64(folded ^ words[:, k]), folded)
        hashes[short] = folded
    for row in np.flatnonzero(lengths > _SHORT).tolist():
        piece = data[start[row] : start[row] + lengths[row]]
        hashes[row] = int.from_bytes(hashlib.blake2b(piece.tobytes(), digest_size=8).digest(), "little")
    return hashes


def _list_hashes(array: pa.Array) -> Words:
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        bounds = np.arange(len(array) + 1, dtype=np.int64) * size
        child = array.values.slice(array.offset * size, len(array) * size)
    else:
        bounds = _offsets(array)
        first = int(bounds[0]) if len(bounds) else 0
        child = array.values.slice(first, int(bounds[-1]) - first)
        bounds = bounds - first
    lengths = np.diff(bounds)
    total = int(bounds[-1]) if len(bounds) else 0
    position = np.arange(total, dtype=np.int64) - np.repeat(bounds[:-1], lengths)
    with np.errstate(over="ignore"):
        items = mix64(array_hashes(child) + mix64(position.astype(np.uint64)))
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(items, dtype=np.uint64)])
        summed = running[bounds[1:]] - running[bounds[:-1]]
    return mix64(summed ^ mix64(lengths.astype(np.uint64) ^ _LIST))


def row_fingerprints(batches: Iterable[pa.RecordBatch], exclude: Sequence[str] = ()) -> Words:
    """Return a 64-bit hash (R,) of the content of each row, reading batch by batch.

    Args:
        batches: the table.
        exclude: columns that do not count, such as the key.
    """
    parts = []
    for batch in batches:
        hashes = np.zeros(batch.num_rows, np.uint64)
        with np.errstate(over="ignore"):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if name not in exclude:
                    hashes = hashes + mix64(_column_hashes(column) ^ word_hash(name))
        parts.append(hashes)
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _column_hashes(column: pa.Array) -> Words:
    """Hash a column in slices, so that scratch memory stays small."""
    mean = max(1, column.nbytes // max(1, len(column)))
    step = max(1, (4 << 20) // mean)
    if len(column) <= step:
        return array_hashes(column)
    return np.concatenate([array_hashes(column.slice(i, step)) for i in range(0, len(column), step)])


def codes(array: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the number (R,) of each distinct value of a column, in order of first appearance; -1 for null.

    Args:
        array: a column of any type.
    """
    one = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(one, pa.ChunkedArray):
        one = pa.concat_arrays(one.chunks) if one.num_chunks else pa.nulls(0)
    null = pc.is_null(one, nan_is_null=pa.types.is_floating(one.type)).to_numpy(zero_copy_only=False)
    distinct, first, found = np.unique(array_hashes(one)[~null], return_index=True, return_inverse=True)
    rank = np.empty(len(distinct), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(distinct))
    out = np.full(len(null), -1, np.int64)
    out[~null] = rank[found.reshape(-1)]
    return out
