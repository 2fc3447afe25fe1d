"""What the tokenisers of scalar columns share: features of many columns at once become a bounded number of tokens.

Letters: B rows, C columns, G tokens a row at most, M columns a token at most, F features of a column, K bins, D width, T tokens.

Every column's features end with a 1 that stands for "present", and all features of a missing cell are 0. A token is therefore the
sum over its present columns of a linear map of their features, bias included, and a missing cell adds exactly nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.schema import Column
from unisono.modalities.base import Cells, Packed

#: How many tokens a row's columns of one modality become at most, unless the tokeniser's setting says otherwise.
MAX_TOKENS = 16


def token_slots(columns: Sequence[Column], most: int) -> NDArray[np.int64]:
    """Give each column its token: one of its own while there are at most ``most`` columns, else neighbours share one.

    Columns of different sources never share a token. Depends on the list of columns only, never on which cells are present.

    Args:
        columns: the C columns.
        most: tokens a row and source at most.

    Returns:
        (C,) token of each column, from 0 without gaps.
    """
    slots = np.zeros(len(columns), np.int64)
    first = 0
    for source in dict.fromkeys(c.source for c in columns):
        mine = np.array([i for i, c in enumerate(columns) if c.source == source])
        count = min(most, len(mine))
        slots[mine] = first + np.arange(len(mine)) * count // len(mine)
        first += count
    return slots


def pack_scalars(columns: Sequence[Column], present: NDArray[np.bool_], most: int, inputs: dict[str, Tensor]) -> Packed:
    """Pack scalar cells: a token for each row and slot with at least one present cell.

    Args:
        columns: the C columns.
        present: (B, C), which cells there are.
        most: tokens a row and source at most.
        inputs: what the module reads besides ``present`` (B, C), ``row`` (T,) and ``slot`` (T,).
    """
    slots = token_slots(columns, most)
    count = int(slots.max()) + 1 if len(slots) else 0
    filled = np.zeros((present.shape[0], count), np.bool_)
    for c, slot in enumerate(slots):
        filled[:, slot] |= present[:, c]
    row, slot_of = np.nonzero(filled)
    _, first = np.unique(slots, return_index=True)
    index = np.array([columns[i].index for i in first], np.int64)
    given = dict(inputs, present=torch.from_numpy(present), row=torch.from_numpy(row), slot=torch.from_numpy(slot_of))
    return Packed.of(given, row, index[slot_of])


def stack(columns: Sequence[Column], cells: Mapping[str, Cells], absent: Any, dtype: Any) -> NDArray[Any]:
    """The cells of all columns side by side, (B, C); a column without cells is missing throughout."""
    rows = max((len(cells[c.name]) for c in columns if c.name in cells), default=0)
    out = np.full((rows, len(columns)), absent, dtype)
    for c, column in enumerate(columns):
        if column.name in cells:
            out[:, c] = cells[column.name]
    return out


class SlotLinear(nn.Module):
    """A linear map of each column's features, summed over the columns that share a token.

    ``token[b, g] = sum over columns c of g and features f of features[b, c, f] * weight[g, m(c), f]``, one batched product for all.

    Args:
        slots: (C,) token of each column.
        features: F.
        width: D.
    """

    places: Tensor

    def __init__(self, slots: NDArray[np.int64], features: int, width: int) -> None:
        super().__init__()
        sizes = np.bincount(slots)
        self.shared = int(sizes.max())
        self.count = len(sizes)
        rank = np.zeros(len(slots), np.int64)
        seen = np.zeros(self.count, np.int64)
        for c, slot in enumerate(slots):
            rank[c] = seen[slot]
            seen[slot] += 1
        self.register_buffer("places", torch.from_numpy(slots * self.shared + rank), persistent=False)
        self.even = self.count * self.shared == len(slots) and bool((np.diff(slots * self.shared + rank) == 1).all())
        bound = (self.shared * features) ** -0.5
        self.weight = nn.Parameter(torch.empty(self.count, self.shared * features, width).uniform_(-bound, bound))

    def forward(self, features: Tensor, row: Tensor, slot: Tensor) -> Tensor:
        """Map (B, C, F) features to the (T, D) tokens at (row, slot)."""
        b, _, f = features.shape
        if not self.even:
            spread = features.new_zeros(b, self.count * self.shared, f)
            spread[:, self.places] = features
            features = spread
        by_token = features.reshape(b, self.count, self.shared * f).transpose(0, 1)
        tokens: Tensor = torch.bmm(by_token, self.weight)
        return tokens[slot, row]


def robust_scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of the values between their 1 % and 99 % quantile, so that a few wild ones do not set the scale.

    Returns:
        (centre, scale); scale is 1 for a constant.
    """
    low, high = np.quantile(values, [0.01, 0.99])
    inner = np.clip(values, low, high)
    centre, scale = float(inner.mean()), float(inner.std())
    if not scale > 1e-12 * max(1.0, abs(centre)):
        centre, scale = float(values.mean()), float(values.std())
    return centre, scale if scale > 1e-12 * max(1.0, abs(centre)) else 1.0


def quantile_edges(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """The edges of at most ``bins`` bins with about equally many values each; with few distinct values, these themselves.

    Returns:
        Strictly increasing edges, at least two.
    """
    distinct = np.unique(values)
    edges = distinct if len(distinct) <= bins + 1 else np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0] - 1.0, edges[0] + 1.0])


def gather(chunks: Iterable[Cells]) -> NDArray[np.float64]:
    """The present values of all chunks as one array."""
    parts = [np.asarray(chunk, np.float64) for chunk in chunks]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[~np.isnan(values)]


def fit_scale(chunks: Iterable[Cells], bins: int) -> dict[str, Any]:
    """Centre, scale and bin edges of a column of numbers, as JSON values; edges are in standardised units."""
    values = gather(chunks)
    if not len(values):
        return {"centre": 0.0, "scale": 1.0, "edges": [-1.0, 1.0]}
    centre, scale = robust_scale(values)
    edges = np.unique(((quantile_edges(values, bins) - centre) / scale).astype(np.float32))
    if len(edges) < 2:
        edges = np.array([edges[0] - 1, edges[0] + 1], np.float32)
    return {"centre": centre, "scale": scale, "edges": [float(e) for e in edges]}


def standardise(columns: Sequence[Column], values: NDArray[np.float64]) -> tuple[Tensor, NDArray[np.bool_]]:
    """Standardise (B, C) values by the columns' statistics in double precision; missing ones become 0.

    Returns:
        (B, C) float32 values bounded to 1e6, and which are present.
    """
    centre = np.array([c.statistics.get("centre", 0.0) for c in columns])
    scale = np.array([c.statistics.get("scale", 1.0) for c in columns])
    present = ~np.isnan(values)
    z = np.where(present, np.clip((values - centre) / scale, -1e6, 1e6), 0.0)
    return torch.from_numpy(z.astype(np.float32)), present


def smooth_clip(z: Tensor, bound: float = 4.0) -> Tensor:
    """``z / sqrt(1 + (z / bound)^2)``: the identity near 0, never beyond ``bound`` (arXiv:2407.04491, with another bound)."""
    return z * torch.rsqrt(1 + (z / bound).square())


class Bins(nn.Module):
    """Piecewise-linear encoding of C columns at once (Gorishniy, Rubachev and Babenko 2022, arXiv:2203.05556).

    ``e_k(z) = clamp((z - b_k) / (b_{k+1} - b_k), 0, 1)`` for the edges b of the column's bins; columns with fewer bins have zeros behind.
    The outer bins end at the outer edges (the paper lets them go on): the linear term carries what lies outside.
    """

    low: Tensor
    slope: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        edges = [np.asarray(c.statistics.get("edges", [-1.0, 1.0]), np.float64) for c in columns]
        self.bins = max(len(e) for e in edges) - 1
        low, slope = np.zeros((len(edges), self.bins)), np.zeros((len(edges), self.bins))
        for c, e in enumerate(edges):
            low[c, : len(e) - 1], slope[c, : len(e) - 1] = e[:-1], 1 / np.diff(e)
        self.register_buffer("low", torch.from_numpy(low).float(), persistent=False)
        self.register_buffer("slope", torch.from_numpy(slope).float(), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Encode (B, C) standardised values as (B, C, K)."""
        return ((z.unsqueeze(-1) - self.low) * self.slope).clamp(0, 1)
