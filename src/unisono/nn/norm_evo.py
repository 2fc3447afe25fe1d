"""EvoNorms: norm and nonlinearity found together by search.

Letters: T tokens, D width, M modalities, G groups of channels, C cells.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Fraction, Positive, Traits
from unisono.core.relation import combine
from unisono.core.tokens import Meta
from unisono.nn.moments import IN_TRAINING, in_groups, wide
from unisono.nn.norm import Norm, norms
from unisono.nn.norm_batch import BatchNorm
from unisono.nn.part import Frame
from unisono.ops.segment import segment_mean


@dataclass(frozen=True)
class CellPlan:
    """Tokens by cell.

    Attributes:
        cell: (T,) the item of a cell, at one scale, that each token belongs to.
        num: C.
        modality: (T,).
    """

    cell: Tensor
    num: int
    modality: Tensor


def by_cell(meta: Meta) -> CellPlan:
    """The items of cells that tokens belong to; what one picture is to a convolutional network."""
    label = combine([meta.groups.numpy(), meta.column.numpy(), meta.item.numpy(), meta.level.numpy()])
    found, index = np.unique(label, return_inverse=True)
    return CellPlan(torch.from_numpy(index.reshape(-1)), len(found), meta.modality)


def cell_variance(x_TD: Tensor, plan: CellPlan, groups: int) -> Tensor:
    """The variance over a cell's tokens and a group's channels, (C, G).

    It is taken about the mean of those very values, in two passes.
    """
    grouped = in_groups(x_TD, groups)
    mean = segment_mean(grouped.mean(2), plan.cell, plan.num)
    return segment_mean((grouped - mean[plan.cell].unsqueeze(2)).square().mean(2), plan.cell, plan.num)


@norms.register("evonorm_s0", source="arXiv:2004.02967")
class EvoNormS0(Norm):
    """``y = x sigmoid(v x) / sqrt(var + eps) * g + b``: norm and nonlinearity at once, independent of the rest of the batch.

    The variance is that of a group's channels over the tokens of a cell, or of each token by itself.

    Args:
        width: D, a multiple of ``groups``.
        groups: G.
        over: whether the variance is over a ``cell`` or a ``token``.
        eps: added to the variance.
    """

    def __init__(self, *, width: int, groups: Count = 4, over: Literal["cell", "token"] = "cell", eps: Positive = 1e-5) -> None:
        super().__init__()
        if width % groups:
            raise ConfigError(f"evonorm_s0: the width {width} is no multiple of {groups} groups")
        if over == "token" and width == groups:
            raise ConfigError("evonorm_s0: a group of one channel has no variance within a token; set fewer groups or over=cell")
        self.groups, self.over, self.eps = groups, over, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.v = nn.Parameter(torch.ones(width))

    def plan_key(self) -> Hashable:
        """Cells, where the variance is over them."""
        return "cells" if self.over == "cell" else None

    def plan(self, meta: Meta) -> CellPlan:
        """Tokens by cell."""
        return by_cell(meta)

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Normalise and bend (T, D)."""
        x = wide(x_TD)
        if self.over == "cell":
            rate = torch.rsqrt(cell_variance(x, plan, self.groups) + self.eps)[plan.cell]
        else:
            rate = torch.rsqrt(in_groups(x, self.groups).var(2, unbiased=False) + self.eps)
        bent = in_groups(x * torch.sigmoid(self.v * x), self.groups) * rate.unsqueeze(2)
        return (torch.flatten(bent, 1) * self.weight + self.bias).to(x_TD.dtype)


@norms.register("evonorm_b0", source="arXiv:2004.02967", traits=Traits(exempt={"samples": IN_TRAINING}))
class EvoNormB0(BatchNorm):
    """``y = x / max(sqrt(var_batch + eps), v x + sqrt(var_cell + eps)) * g + b``: the maximum is the nonlinearity.

    The batch's variance of a channel is over a modality's tokens, over all processes and with gradient, a running one in evaluation; the
    cell's is over its own tokens.

    Args:
        width: D.
        frame: knows M.
        eps: added to both variances.
        momentum: weight of the newest batch in the running variance.
    """

    def __init__(self, *, width: int, frame: Frame, eps: Positive = 1e-5, momentum: Fraction = 0.1) -> None:
        super().__init__(width=width, frame=frame, eps=eps, momentum=momentum)
        self.v = nn.Parameter(torch.ones(width))

    def plan_key(self) -> Hashable:
        """Cells and modalities."""
        return "cells"

    def plan(self, meta: Meta) -> Any:
        """Tokens by cell and modality."""
        return by_cell(meta)

    def forward(self, x_TD: Tensor, plan: CellPlan) -> Tensor:
        """Normalise and bend (T, D)."""
        x = wide(x_TD)
        _, var_MD = self.statistics(x, plan.modality)
        batch = (var_MD + self.eps).sqrt()[plan.modality]
        cell = (cell_variance(x, plan, x.shape[1]) + self.eps).sqrt()[plan.cell]
        return self.affine(x / torch.maximum(batch, self.v * x + cell), x_TD)

    def fixed(self) -> None:
        """None: the norm bends."""
        return None
