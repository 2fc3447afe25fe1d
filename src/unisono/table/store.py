"""Decoded cells of a cached table: kept in memory when they fit, decoded again for each batch when they do not.

Letters: B rows of a batch, N rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.schema import Column
from unisono.modalities.base import Cells, Context, Decoded, modalities

#: Decoded cells are kept in memory up to this many bytes.
RESIDENT_BYTES = 512 * 1024 * 1024
_CHUNK = 1024


class Rows(Protocol):
    """Random access to the rows of a table."""

    num_rows: int

    def take(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """The given rows, in that order."""
        ...


@dataclass(frozen=True)
class BadCell:
    """A cell that could not be read."""

    row: int
    column: str
    reason: str


def decode_column(array: pa.ChunkedArray | pa.Array, column: Column, context: Context) -> Decoded:
    """Decode a chunk of a column by its modality."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    return modalities.build(column.modality).decode_many(array, column, context)


class Store:
    """Cells of a table by row.

    Args:
        table: the rows.
        columns: the columns to decode, statistics fitted.
        wants: column name -> what its tokeniser asks of the decoder.
        root: the folder that media paths are relative to.
        resident_bytes: how much decoded data may be kept in memory.

    Attributes:
        odd: column -> cells that ``scan`` found to count as missing though something is written there.
    """

    def __init__(
        self,
        table: Rows,
        columns: Sequence[Column],
        wants: Mapping[str, Mapping[str, Any]],
        root: Path | None,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.table, self.columns, self.resident_bytes = table, tuple(columns), resident_bytes
        self.contexts = {c.name: Context(root, wants.get(c.name, {})) for c in columns}
        self._kept: dict[str, Cells] | None = None
        self._scanned = False
        self.odd: dict[str, list[str]] = {}

    @property
    def resident(self) -> bool:
        """Whether all decoded cells are in memory."""
        return self._kept is not None

    def decode(self, rows: NDArray[np.int64]) -> tuple[dict[str, Cells], list[BadCell]]:
        """Read and decode rows from the table."""
        table = self.table.take(rows, [c.name for c in self.columns])
        cells: dict[str, Cells] = {}
        bad: list[BadCell] = []
        for column in self.columns:
            decoded = decode_column(table.column(column.name), column, self.contexts[column.name])
            cells[column.name] = decoded.cells
            bad += [BadCell(int(rows[row]), column.name, reason) for row, reason in decoded.bad]
            if decoded.odd and not self._scanned:
                self.odd.setdefault(column.name, []).extend(f"row {int(rows[row])}: {reason}" for row, reason in decoded.odd)
        return cells, bad

    def cells(self, rows: NDArray[np.int64]) -> dict[str, Cells]:
        """Decoded cells of some rows; unreadable ones are missing."""
        if self._kept is None:
            return self.decode(rows)[0]
        return {name: _pick(cells, rows) for name, cells in self._kept.items()}

    def scan(self) -> Iterator[tuple[int, list[BadCell]]]:
        """Decode every row once, keeping the cells while they fit in memory.

        Yields:
            Rows done so far, and the unreadable cells of the last chunk.
        """
        n, used, keeping = self.table.num_rows, 0, True
        kept: dict[str, list[Any]] = {c.name: [] for c in self.columns}
        for start in range(0, n, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, n), dtype=np.int64)
            cells, bad = self.decode(rows)
            if keeping:
                used += sum(size_of(c) for c in cells.values())
                keeping = used <= self.resident_bytes
                for name, part in cells.items():
                    kept[name].append(part)
            if not keeping:
                kept = {}
            yield int(rows[-1]) + 1, bad
        self._scanned = True
        self._kept = {name: _join(parts) for name, parts in kept.items()} if keeping else None


def _join(parts: list[Any]) -> Cells:
    if isinstance(parts[0], np.ndarray):
        joined: NDArray[Any] = np.concatenate(parts)
        return joined
    return [cell for part in parts for cell in part]


def _pick(cells: Cells, rows: NDArray[np.int64]) -> Cells:
    if isinstance(cells, np.ndarray):
        picked: NDArray[Any] = cells[rows]
        return picked
    return [cells[row] for row in rows.tolist()]


def size_of(value: Any) -> int:
    """Bytes that decoded cells take, roughly."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes) if value.dtype.kind != "O" else sum(size_of(v) for v in value)
    if isinstance(value, list | tuple):
        return 56 + sum(size_of(v) for v in value)
    if isinstance(value, dict):
        return 200 + sum(size_of(v) for v in value.values())
    return 56 + len(value) if isinstance(value, str | bytes) else 56
