"""The two contracts every modality fulfils: ``Modality`` (recognise, decode) and ``Tokeniser`` (fit, pack, embed).

The path of a cell::

    Arrow value --Modality.decode--> array --Tokeniser.pack--> Packed (host) --Tokeniser.module--> token values (device)

Decoding and packing run in worker processes and touch NumPy (packing ends in CPU tensors); the module runs where the model is.
Letters: B rows of a batch, T tokens, D width, E edges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import Unreadable
from unisono.core.registry import Registry
from unisono.core.schema import Column

#: One column's decoded cells of B rows. Scalars: an array (float64 with NaN for missing; for categories objects, ``None`` for missing).
#: Everything else: a list whose entries are an array, ``None`` where missing, or for a column of several items a list of arrays.
Cells = NDArray[Any] | list[Any]


@dataclass(frozen=True)
class ColumnSample:
    """What detection sees of a column.

    Attributes:
        name: the column's name.
        type: its Arrow type.
        array: the first rows (a few hundred to a few thousand), nulls included.
        values: the non-null values among them as Python objects.
        hint: a modality word that the file's own metadata names, or None.
        root: the folder that relative media paths resolve against, or None.
    """

    name: str
    type: pa.DataType
    array: pa.Array
    values: Sequence[Any]
    hint: str | None = None
    root: Path | None = None


@dataclass(frozen=True)
class Guess:
    """A modality's claim on a column.

    Attributes:
        confidence: 0 to 1; the highest claim wins. 0.9 and above: certain from the type or content; about 0.5: plausible.
        reason: in words, for ``inspect``.
        many: cells are lists of items.
        options: decoding settings that detection found.
        doubt: what else it could be, in words, or empty.
    """

    confidence: float
    reason: str
    many: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    doubt: str = ""


@dataclass(frozen=True)
class Context:
    """Where cells come from.

    Attributes:
        root: the folder that relative media paths resolve against, or None (then paths are refused).
        want: what the tokeniser will use, so that a decoder may do less work (``{"size": (h, w)}`` for a scaled JPEG).
    """

    root: Path | None = None
    want: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoded:
    """The cells of a chunk, and those that could not be read (they are missing in ``cells``).

    Attributes:
        cells: one entry a row.
        bad: (row in the chunk, reason) of each unreadable cell.
        odd: (row in the chunk, reason) of each cell that counts as missing and that a person should hear of.
    """

    cells: Cells
    bad: tuple[tuple[int, str], ...] = ()
    odd: tuple[tuple[int, str], ...] = ()


class Modality(ABC):
    """How one kind of column is recognised and its cells decoded. Stateless; one instance each."""

    #: The word for it, one of ``unisono.core.schema.MODALITIES``.
    name: ClassVar[str]

    @abstractmethod
    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim a column, or not."""

    @abstractmethod
    def decode(self, cell: Any, column: Column, context: Context) -> Any:
        """Turn one item (never null) into an array.

        Raises:
            Unreadable: the cell cannot be read, with the reason.
        """

    def decode_many(self, array: pa.Array, column: Column, context: Context) -> Decoded:
        """Decode a chunk of a column; scalars override this with something vectorised."""
        cells: list[Any] = []
        bad: list[tuple[int, str]] = []
        for row, value in enumerate(array.to_pylist()):
            try:
                cells.append(self._decode_cell(value, column, context))
            except Unreadable as error:
                cells.append(None)
                bad.append((row, error.reason))
        return Decoded(cells, tuple(bad))

    def _decode_cell(self, value: Any, column: Column, context: Context) -> Any:
        if value is None:
            return None
        if not column.many:
            return self.decode(value, column, context)
        items = value if isinstance(value, list) else [value]
        found = [self.decode(v, column, context) for v in items if v is not None]
        return found or None

    def show(self, cell: Any) -> Any:
        """A decoded cell for a person: text, a number, or ``{"kind": "image" | "audio" | ..., "data": bytes, "type": mime}``."""
        return str(cell)[:200]


@dataclass
class Packed:
    """The tokens of a group of columns over one batch, before their values are computed.

    Attributes:
        inputs: what the group's module reads: any tensors, ragged data packed with offsets or counts.
        sample: (T,) int64, row of the batch.
        column: (T,) int64, index of the column in the schema.
        item: (T,) int64, place in a list cell.
        place: (T, 3) int64, -1 where an axis is absent.
        coords: (T, 3) float32, NaN where none.
        time: (T,) float32, NaN where none.
        level: (T,) int64.
        edges: (2, E) int64 token indices within this pack, or None.
        edge_values: (E, De) float32, or None.
        node: (T,) int64, number of the node in its graph; None where cells are no graphs.
    """

    inputs: dict[str, Tensor]
    sample: Tensor
    column: Tensor
    item: Tensor
    place: Tensor
    coords: Tensor
    time: Tensor
    level: Tensor
    edges: Tensor | None = None
    edge_values: Tensor | None = None
    node: Tensor | None = None

    def __len__(self) -> int:
        return int(self.sample.shape[0])

    @classmethod
    def of(
        cls,
        inputs: dict[str, Tensor],
        sample: NDArray[np.int64],
        column: NDArray[np.int64] | int,
        *,
        item: NDArray[np.int64] | None = None,
        place: NDArray[np.int64] | None = None,
        coords: NDArray[np.float32] | None = None,
        time: NDArray[np.float32] | None = None,
        edges: NDArray[np.int64] | None = None,
        edge_values: NDArray[np.float32] | None = None,
    ) -> Packed:
        """Fill in what a modality does not have. ``place`` and ``coords`` may be (T, k) with k up to 3."""
        t = len(sample)
        columns = np.full(t, column, np.int64) if isinstance(column, int) else column
        return cls(
            inputs=inputs,
            sample=torch.from_numpy(np.ascontiguousarray(sample, np.int64)),
            column=torch.from_numpy(np.ascontiguousarray(columns, np.int64)),
            item=torch.from_numpy(np.zeros(t, np.int64) if item is None else np.ascontiguousarray(item, np.int64)),
            place=_three(place, t, -1, np.int64),
            coords=_three(coords, t, np.nan, np.float32),
            time=torch.from_numpy(np.full(t, np.nan, np.float32) if time is None else np.ascontiguousarray(time, np.float32)),
            level=torch.zeros(t, dtype=torch.int64),
            edges=None if edges is None else torch.from_numpy(np.ascontiguousarray(edges, np.int64)),
            edge_values=None if edge_values is None else torch.from_numpy(np.ascontiguousarray(edge_values, np.float32)),
            node=None if edges is None else torch.from_numpy(_within(sample, item)),
        )


def _within(sample: NDArray[np.int64], item: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The number of each token within its item; items lie one behind the other."""
    t = len(sample)
    new = np.diff(sample, prepend=-1) != 0
    if item is not None:
        new |= np.diff(item, prepend=-1) != 0
    starts = np.flatnonzero(new)
    return np.arange(t, dtype=np.int64) - np.repeat(starts, np.diff(starts, append=t))


def _three(given: NDArray[Any] | None, t: int, absent: float, dtype: Any) -> Tensor:
    full = np.full((t, 3), absent, dtype)
    if given is not None:
        given = given.reshape(t, given.shape[1] if given.ndim > 1 else 1)
        full[:, : given.shape[1]] = given
    return torch.from_numpy(full)


@dataclass(frozen=True)
class Items:
    """The items of one column that are present in a batch, flattened.

    Attributes:
        sample: (C,) int64, row of the batch of each item.
        item: (C,) int64, place in its list cell.
        arrays: the C decoded items.
    """

    sample: NDArray[np.int64]
    item: NDArray[np.int64]
    arrays: list[Any]

    @classmethod
    def of(cls, column: Column, cells: Cells) -> Items:
        """Flatten a batch's cells, list cells included; missing cells vanish."""
        sample: list[int] = []
        item: list[int] = []
        arrays: list[Any] = []
        for row, cell in enumerate(cells):
            if cell is None:
                continue
            for k, array in enumerate(cell if column.many else [cell]):
                sample.append(row)
                item.append(k)
                arrays.append(array)
        return cls(np.array(sample, np.int64), np.array(item, np.int64), arrays)


class Tokeniser(ABC):
    """A recipe's way of turning decoded cells into tokens: settings only, light, with three methods.

    Subclasses are registered in ``tokenisers``; their constructor is keyword-only and typed: it is the schema of the recipe's
    ``tokens`` entry. They hold no weights and are cheap to send to worker processes.
    """

    #: The modalities it can read.
    reads: ClassVar[frozenset[str]]
    #: One module for all columns of the modality together (scalars), or one for each column.
    joint: ClassVar[bool] = False
    #: How many training cells ``fit`` wants to see at most (a seeded sample); None for all.
    fit_cells: ClassVar[int | None] = 4096

    def wants(self, column: Column) -> Mapping[str, Any]:
        """What a decoder should know, given the fitted column (``Context.want``)."""
        return {}

    @abstractmethod
    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Statistics of the training rows as JSON values (stored in ``Column.statistics``)."""

    @abstractmethod
    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """Pack B rows of the group's columns.

        Args:
            columns: the group: one column, or all of them for a joint tokeniser; ``statistics`` filled in.
            cells: column name -> B decoded cells. Missing cells give no tokens.
            draw: the rows' random numbers, for augmentation in training; None otherwise.
        """

    @abstractmethod
    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The weights: a module whose ``forward(packed: Packed)`` returns (T, width) in the order of the pack's tokens.

        It must give every parameter a gradient, be exact about empty packs (T = 0), and never mix tokens of different samples
        in evaluation.
        """

    def wide(self, columns: Sequence[Column], outputs: int) -> nn.Module | None:
        """A linear map from fixed features straight to the scores (``modalities.wide``), or None where there are no such features.

        Its ``forward(packed: Packed, rows: int)`` returns (rows, outputs), zeros for a row without a cell.
        """
        return None


modalities: Registry[Modality] = Registry("modality", Modality, package="unisono.modalities")
tokenisers: Registry[Tokeniser] = Registry("tokeniser", Tokeniser, package="unisono.modalities")
