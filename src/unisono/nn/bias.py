"""Biases of attention scores from relative places on the tokens' own grid.

Letters: T tokens, H heads, G blocks, L tokens of a block, U distinct offsets.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.registry import Count, Registry
from unisono.core.relation import Blocks
from unisono.core.tokens import Meta
from unisono.nn.places import aligned


class BiasPlan(NamedTuple):
    """Which offset each pair of a query and a key has.

    Attributes:
        offsets: (U, 3) distinct offsets of keys from queries, a grid's axes moved to the last.
        compared: (U, 3) bool, whether an axis is compared.
        planes: for each call (G or 1, Lq, Lk), the offset of a pair; one plane where all blocks of a call look alike.
    """

    offsets: Tensor
    compared: Tensor
    planes: tuple[Tensor, ...]


class Bias(nn.Module):
    """A bias for each head and offset: ``forward(offsets (U, 3), compared (U, 3)) -> (U, H)``."""

    def made(self, heads: int) -> Bias:
        """The same, its weights made for H heads."""
        raise NotImplementedError

    def plan_key(self) -> Hashable:
        """All biases need the same offsets."""
        return "offsets"

    def plan(self, meta: Meta, blocks: Blocks) -> BiasPlan:
        """Offsets of all pairs of every block, each distinct one once."""
        query, key = blocks.query_index().numpy(), blocks.key_index().numpy()
        cell = torch.stack([meta.column, meta.item, meta.level], 1).numpy()
        place = aligned(meta.place.numpy())
        codes: list[NDArray[np.int64]] = []
        reach = int(place.max(initial=0)) + 2
        q = k = 0
        for call in blocks.calls:
            rows, columns = query[q : q + call.queries], key[k : k + call.keys]
            codes.append(_codes(place, cell, rows, columns, call, reach))
            q, k = q + call.queries, k + call.keys
        flat = np.concatenate([c.reshape(-1) for c in codes]) if codes else np.zeros(0, np.int64)
        distinct, inverse = np.unique(flat, return_inverse=True)
        sizes = [c.size for c in codes]
        parts = np.split(inverse.reshape(-1), np.cumsum(sizes)[:-1]) if codes else []
        index = tuple(torch.from_numpy(p.reshape(c.shape)) for p, c in zip(parts, codes, strict=True))
        offsets, compared = _decode(distinct, reach)
        return BiasPlan(torch.from_numpy(offsets), torch.from_numpy(compared), index)

    def tables(self, plan: BiasPlan) -> list[Tensor]:
        """The bias of each call, (G or 1, H, Lq, Lk)."""
        per_offset: Tensor = self(plan.offsets, plan.compared)
        return [per_offset[index].permute(0, 3, 1, 2) for index in plan.planes]


def _codes(
    place: NDArray[np.int64], cell: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64], call: Any, reach: int
) -> NDArray[np.int64]:
    """One number for the offset of each pair: three digits, one for each axis, 0 where it is not compared."""
    run = call.run
    q = _laid(rows, call.query_place, run.blocks * run.queries).reshape(run.blocks, run.queries)
    k = _laid(columns, call.key_place, run.blocks * run.keys).reshape(run.blocks, run.keys)
    if run.blocks > 1 and _alike(place, cell, q, k):
        q, k = q[:1], k[:1]
    same = (cell[q][:, :, None] == cell[k][:, None]).all(-1)
    pq, pk = place[q][:, :, None], place[k][:, None]
    both = (pq >= 0) & (pk >= 0) & same[..., None]
    digit = np.where(both, pk - pq + reach, 0)
    base = 2 * reach + 1
    return np.asarray((digit[..., 0] * base + digit[..., 1]) * base + digit[..., 2], np.int64)


def _alike(place: NDArray[np.int64], cell: NDArray[np.int64], q: NDArray[np.int64], k: NDArray[np.int64]) -> bool:
    """Whether all blocks have one cell each and the same places, but for where they begin."""
    for side in (q, k):
        if not (cell[side] == cell[q[:, :1]]).all():
            return False
        moved = place[side] - place[q[:, :1]]
        absent = place[side] < 0
        if not ((moved == moved[:1]) & (absent == absent[:1])).all():
            return False
    return True


def _laid(tokens: NDArray[np.int64], place: Tensor | None, size: int) -> NDArray[np.int64]:
    if place is None:
        return tokens
    laid = np.zeros(size, np.int64)
    laid[place.numpy()] = tokens
    return laid


def _decode(codes: NDArray[np.int64], reach: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    base = 2 * reach + 1
    digits = np.stack([codes // (base * base), codes // base % base, codes % base], 1)
    compared = digits > 0
    return np.where(compared, digits - reach, 0), compared


biases: Registry[Bias] = Registry("bias", Bias, package="unisono.nn")


@biases.register("table", source="arXiv:2103.14030")
class TableBias(Bias):
    """One learned number for each head and offset, offsets cut at ``reach`` along every axis; pairs without a common axis have their own.

    Args:
        reach: the farthest offset told apart.
        axes: axes that are compared, the last ones of a grid; offsets along others do not count.
    """

    values: Tensor

    def __init__(self, *, reach: Count = 7, axes: Count = 2) -> None:
        super().__init__()
        self.reach, self.axes = reach, min(axes, 3)

    def made(self, heads: int) -> Bias:
        """Draw the table."""
        self.values = nn.Parameter(torch.randn((2 * self.reach + 2) ** self.axes, heads) * 0.02)
        return self

    def forward(self, offsets: Tensor, compared: Tensor) -> Tensor:
        """Look up (U, H)."""
        digit = torch.where(compared, offsets.clamp(-self.reach, self.reach) + self.reach + 1, 0)[:, 3 - self.axes :]
        code = torch.zeros_like(digit[:, 0])
        for axis in range(self.axes):
            code = code * (2 * self.reach + 2) + digit[:, axis]
        return self.values[code]


@biases.register("mlp", source="arXiv:2108.00154")
class MLPBias(Bias):
    """A small network of the offset: ``W2 relu(W1 [sign(d) log(1 + |d|), compared] + b1) + b2``, so that any size of window works.

    Args:
        hidden: units of the network.
    """

    def __init__(self, *, hidden: Count = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, hidden), nn.Linear(hidden, 1)

    def made(self, heads: int) -> Bias:
        """Draw the last map."""
        self.second = nn.Linear(self.first.out_features, heads)
        return self

    def forward(self, offsets: Tensor, compared: Tensor) -> Tensor:
        """Compute (U, H)."""
        d = offsets.to(self.first.weight.dtype)
        features = torch.cat([d.sign() * d.abs().log1p(), compared.to(d.dtype)], 1)
        biases: Tensor = self.second(torch.relu(self.first(features)))
        return biases
