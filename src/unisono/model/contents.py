"""What is the same as what: a number for the content of every cell, and for the item that every row is.

Letters: N rows of the table, B rows of a batch, I items of a list cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from unisono.core.errors import Unreadable
from unisono.core.files import sha256
from unisono.core.media import media_path
from unisono.core.schema import SCALARS, Column, Schema
from unisono.objectives.align import Identity
from unisono.table.cache import TableCache
from unisono.table.hashing import array_hashes, codes, word_hash

Numbers = NDArray[np.int64]
#: Modalities whose text cells are not paths.
_SPOKEN = SCALARS | {"text", "sequence", "graph", "series", "vector"}


@dataclass(frozen=True)
class Contents:
    """Numbers for contents; equal ones are equal cells.

    Attributes:
        item: (N,) which item each row is.
        cells: source -> (N,), the whole of what a row has of it.
        lists: source of a list column -> (numbers of all items one behind the other, (N + 1,) where each row's begin).
    """

    item: Numbers
    cells: Mapping[str, Numbers]
    lists: Mapping[str, tuple[Numbers, Numbers]]

    def identity(self, rows: Numbers) -> Identity:
        """What is known of a batch of these rows."""
        content = {}
        for source, whole in self.cells.items():
            if source not in self.lists:
                content[source] = torch.from_numpy(whole[rows][:, None])
                continue
            flat, begin = self.lists[source]
            count = begin[rows + 1] - begin[rows]
            place = np.arange(max(int(count.max(initial=0)), 1))
            there = place[None] < count[:, None]
            index = np.where(there, begin[rows][:, None] + place[None], 0)
            content[source] = torch.from_numpy(np.where(there, flat[index] if len(flat) else 0, -1))
        return Identity(torch.from_numpy(self.item[rows]), content)


def read_contents(cache: TableCache, schema: Schema, item: str | None) -> Contents:
    """Contents of a table's rows.

    Args:
        cache: the table.
        schema: its columns.
        item: the column whose equal values are one item; rows without a value, or all rows if None, are items of their own.
    """
    rows = cache.num_rows
    own = np.arange(rows, dtype=np.int64)
    items = own
    if item is not None:
        found = codes(cache.scalars(item))
        items = np.where(found >= 0, found + rows, own)
    cells = {source: np.zeros(rows, np.uint64) for source in schema.sources}
    lists: dict[str, tuple[Numbers, Numbers]] = {}
    for column in schema.columns:
        parts, flat, counts = [], [], []
        for batch in cache.batches([column.name]):
            array = _as_content(batch.column(0), column, cache.root)
            parts.append(array_hashes(array))
            if column.many and _is_list(array.type):
                flat.append(array_hashes(array.flatten()))
                counts.append(np.asarray(pc.list_value_length(array).fill_null(0), np.int64))
        if parts:
            with np.errstate(over="ignore"):
                cells[column.source] = cells[column.source] * np.uint64(3) + (np.concatenate(parts) ^ word_hash(column.name))
        if flat and sum(c.source == column.source for c in schema.columns) == 1:
            begin = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
            lists[column.source] = (np.concatenate(flat).view(np.int64), begin)
    return Contents(items, {source: words.view(np.int64) for source, words in cells.items()}, lists)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _as_content(array: pa.Array, column: Column, root: Path | None) -> pa.Array:
    """The column, its paths of media files replaced by the hashes of the files."""
    text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if not text or column.modality in _SPOKEN or root is None:
        return array
    known: dict[str, str] = {}
    for path in set(array.to_pylist()) - {None}:
        try:
            file = media_path(path, root)
        except Unreadable:
            continue
        if file.is_file():
            known[path] = sha256(file)
    return pa.array([known.get(path, path) if path is not None else None for path in array.to_pylist()], pa.string())
