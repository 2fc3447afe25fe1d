"""Numbers that come round again: angles, hours, longitudes.

Letters: B rows, C columns, F features, D width, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.registry import Count, Positive
from unisono.core.schema import Column
from unisono.modalities.base import Cells, Packed, Tokeniser, tokenisers
from unisono.modalities.scalars import MAX_TOKENS, SlotLinear, pack_scalars, stack, token_slots


@tokenisers.register("cyclic", source="arXiv:2203.02751")
class Cyclic(Tokeniser):
    """Numbers by ``sin(2 pi h x / period)`` and ``cos(2 pi h x / period)`` for h = 1, 2, ... through a small residual network.

    What lies a whole number of periods apart is the same to the bit; there is no linear part beside it. Meant for single columns,
    for example ``tokens: {longitude: cyclic(360)}``.

    Args:
        period: after how much the values come round again.
        harmonics: waves in a period at most.
        max_tokens: tokens a row at most; more columns than that share tokens, which are the sums over their present cells.
    """

    reads = frozenset({"number"})
    joint = True

    def __init__(self, *, period: Positive = 360.0, harmonics: Count = 2, max_tokens: Count = MAX_TOKENS) -> None:
        self.period, self.harmonics, self.max_tokens = period, harmonics, max_tokens

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Nothing is fitted."""
        return {}

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """One token a present cell, or, beyond ``max_tokens`` columns, one for each group of columns with a present cell."""
        values: NDArray[np.float64] = stack(columns, cells, np.nan, np.float64)
        present = ~np.isnan(values)
        turn = np.mod(np.where(present, values, 0.0), self.period) / self.period
        angle = 2 * math.pi * turn[:, :, None] * np.arange(1, self.harmonics + 1)
        waves = np.concatenate([np.sin(angle), np.cos(angle)], -1).astype(np.float32)
        return pack_scalars(columns, present, self.max_tokens, {"waves": torch.from_numpy(waves)})

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """Weights of all columns."""
        return CyclicNumbers(columns, width, self)


class CyclicNumbers(nn.Module):
    """``h = sum over the token's present columns of W_c [waves, 1]``, ``token = h + W2 relu(W1 h)``."""

    def __init__(self, columns: Sequence[Column], width: int, settings: Cyclic) -> None:
        super().__init__()
        self.project = SlotLinear(token_slots(columns, settings.max_tokens), 2 * settings.harmonics + 1, width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, packed: Packed) -> Tensor:
        """Token values, (T, D)."""
        waves, present = packed.inputs["waves"], packed.inputs["present"].unsqueeze(-1)
        features = torch.cat([waves, torch.ones_like(waves[..., :1])], -1) * present
        h: Tensor = self.project(features, packed.inputs["row"], packed.inputs["slot"])
        change: Tensor = self.down(torch.relu(self.up(h)))
        return h + change
