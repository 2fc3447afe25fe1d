"""Vectors: a fixed number of values a cell, such as an embedding made elsewhere.

Letters: N present cells, d values of a vector, K tokens a vector, D width, T = N * K tokens.

Single values may be NaN: they add nothing to the projection. Infinity and another length than the column's are unreadable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import SchemaError, Unreadable
from unisono.core.registry import Count, Index, Probability, Traits
from unisono.core.schema import Column
from unisono.modalities.arrays import cell_array, is_list_type, is_number_type, npy_shapes, plain_type
from unisono.modalities.base import Cells, ColumnSample, Context, Decoded, Guess, Items, Modality, Packed, Tokeniser, modalities, tokenisers
from unisono.modalities.scalars import smooth_clip
from unisono.modalities.wide import Wide, WideItems
from unisono.nn.dropout import Dropout

MAX_LENGTH = 1 << 20
_BOUND = 10.0


@modalities.register("vector")
class VectorModality(Modality):
    """A list of numbers whose length is the same in every cell."""

    name = "vector"

    def detect(self, sample: ColumnSample) -> Guess | None:
        """Claim lists of numbers of constant length, and ``.npy`` paths of one-dimensional arrays of constant length."""
        shapes = npy_shapes(sample)
        if shapes:
            if any(len(s) != 1 for s in shapes) or len(set(shapes)) > 1:
                return None
            length = shapes[0][0]
            return Guess(0.9, f".npy files of {length} values each", options={"length": length}, doubt=_doubt(sample, length))
        kind = plain_type(sample.type)
        if not is_list_type(kind) or not is_number_type(kind.value_type):
            return None
        if pa.types.is_fixed_size_list(kind):
            return Guess(0.95, f"a list of fixed size {kind.list_size}", options={"length": kind.list_size})
        lengths = {len(v) for v in sample.values}
        if len(lengths) != 1 or lengths == {0}:
            return None
        length = lengths.pop()
        return Guess(0.8, f"lists of {length} numbers each", options={"length": length}, doubt=_doubt(sample, length))

    def decode(self, cell: Any, column: Column, context: Context) -> NDArray[np.float32] | None:
        """Turn one cell into a (d,) array; one whose values are all NaN is missing.

        Raises:
            Unreadable: not one-dimensional, another length than the column's, infinite values, no numbers.
        """
        array = cell_array(cell, context)
        if array.ndim != 1:
            raise Unreadable(f"a vector has one dimension, this cell has the shape {array.shape}")
        return self._checked(array, _length(column))

    def _checked(self, array: NDArray[np.float32], length: int | None) -> NDArray[np.float32] | None:
        if not 0 < len(array) <= MAX_LENGTH:
            raise Unreadable(f"a vector of {len(array):,} values; 1 to {MAX_LENGTH:,} are possible")
        if length is not None and len(array) != length:
            raise Unreadable(f"a vector of {len(array)} values in a column of vectors of {length}")
        return None if np.isnan(array).all() else array

    def decode_many(self, array: pa.Array, column: Column, context: Context) -> Decoded:
        """Decode a chunk; lists of one length become views of one array."""
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        kind, length = array.type, _length(column)
        if column.many or not (pa.types.is_fixed_size_list(kind) and is_number_type(kind.value_type)) or array.null_count:
            return super().decode_many(array, column, context)
        with np.errstate(over="ignore"):
            block = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), kind.list_size).astype(np.float32)
        if length not in {None, block.shape[1]} or np.isinf(block).any() or not block.shape[1]:
            return super().decode_many(array, column, context)
        empty = np.isnan(block).all(1)
        return Decoded([None if e else row for row, e in zip(block, empty, strict=True)])


def _doubt(sample: ColumnSample, length: int) -> str:
    return f"lists of constant length {length}: could be a series (--column {sample.name}=series)"


def _length(column: Column) -> int | None:
    mean = column.statistics.get("mean")
    length = len(mean) if mean is not None else column.options.get("length")
    return None if length is None else int(length)


@tokenisers.register("projection", traits=Traits(exempt={"source": "a linear map beside a plain MLP, which no paper claims"}))
class Projection(Tokeniser):
    """A vector by a linear map of its standardised values, plus a small MLP beside it, into a few tokens.

    Args:
        tokens: tokens of a vector.
        hidden: hidden units of the MLP; 0 leaves the linear map alone.
        dropout: how often a value is left out in training.
    """

    reads = frozenset({"vector"})
    fit_cells = 65536

    def __init__(self, *, tokens: Count = 2, hidden: Index = 128, dropout: Probability = 0.1) -> None:
        self.tokens, self.hidden, self.dropout = tokens, hidden, dropout

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Mean and standard deviation of each value over the training cells; values are counted where they are not NaN.

        Raises:
            SchemaError: cells of different lengths.
        """
        total: NDArray[np.float64] | None = None
        for chunk in chunks:
            arrays = Items.of(column, chunk).arrays
            lengths = Counter(len(a) for a in arrays) + (Counter([total.shape[1]]) if total is not None else Counter())
            if len(lengths) > 1:
                found = " and ".join(str(n) for n in sorted(lengths)[:4])
                raise SchemaError(f"column {column.name!r}: vectors of lengths {found}; read it as --column {column.name}=series")
            if arrays:
                block = np.stack(arrays).astype(np.float64)
                part = np.stack([(~np.isnan(block)).sum(0), np.nansum(block, 0), np.nansum(block * block, 0)])
                total = part if total is None else total + part
        if total is None:
            length = int(column.options.get("length", 1))
            return {"mean": [0.0] * length, "scale": [1.0] * length}
        count = np.maximum(total[0], 1)
        mean = total[1] / count
        scale = np.sqrt(np.maximum(total[2] / count - mean * mean, 0))
        scale[scale <= 1e-5 * np.maximum(np.abs(mean), scale.max(initial=0) * 1e-3)] = 1.0
        scale[scale == 0] = 1.0
        return {"mean": mean.tolist(), "scale": scale.tolist()}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """``tokens`` tokens a present vector, told apart by their place."""
        column = columns[0]
        items = Items.of(column, cells.get(column.name, []))
        length = _length(column) or 1
        mean, scale = (np.array(column.statistics.get(k, [d] * length)) for k, d in (("mean", 0.0), ("scale", 1.0)))
        block = np.stack(items.arrays).astype(np.float64) if items.arrays else np.zeros((0, length))
        z = np.nan_to_num((block - mean) / scale, nan=0.0).astype(np.float32)
        k, n = self.tokens, len(items.arrays)
        return Packed.of(
            {"value": torch.from_numpy(z)},
            np.repeat(items.sample, k),
            column.index,
            item=np.repeat(items.item, k),
            place=np.tile(np.arange(k), n)[:, None],
        )

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The projection of one column."""
        return VectorTokens(_length(columns[0]) or 1, width, self)

    def wide(self, columns: Sequence[Column], outputs: int) -> nn.Module:
        """A linear map of the standardised values."""
        return WideItems("value", ClippedWide(_length(columns[0]) or 1, outputs, dropout=self.dropout), every=self.tokens)


class ClippedWide(Wide):
    """A wide part of smoothly clipped values."""

    def forward(self, x_NF: Tensor) -> Tensor:
        """Scores (N, K)."""
        return super().forward(smooth_clip(x_NF, _BOUND))


class VectorTokens(nn.Module):
    """``tokens = A x + B gelu(C x) + b`` with x the standardised vector, smoothly clipped, NaN as 0; (N, d) -> (N * K, D)."""

    def __init__(self, length: int, width: int, settings: Projection) -> None:
        super().__init__()
        self.width, out = width, settings.tokens * width
        self.drop = Dropout(settings.dropout)
        self.linear = nn.Linear(length, out)
        hidden = settings.hidden
        self.mlp = nn.Sequential(nn.Linear(length, hidden), nn.GELU(), nn.Linear(hidden, out)) if hidden else None

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        x = self.drop(smooth_clip(packed.inputs["value"], _BOUND))
        tokens: Tensor = self.linear(x)
        if self.mlp is not None:
            tokens = tokens + self.mlp(x)
        return tokens.reshape(-1, self.width)
