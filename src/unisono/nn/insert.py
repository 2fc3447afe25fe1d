"""Inserts: learned tokens that join every sample that has any token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.registry import Count, Registry
from unisono.core.tokens import Meta, concatenate
from unisono.nn.part import Flow
from unisono.nn.step import Step, Walk

# B samples, T tokens, D width, I inserted tokens a sample


class Insert(Step):
    """Adds tokens."""


inserts: Registry[Insert] = Registry("insert", Insert, package="unisono.nn", runtime=("width",))


@inserts.register("bottleneck", source="arXiv:2107.00135")
class Bottleneck(Insert):
    """``num`` learned tokens a sample, through which sources can exchange what they know, or in which a state is kept.

    Args:
        width: D.
        num: learned tokens for each sample.
    """

    def __init__(self, *, width: int, num: Count = 4) -> None:
        super().__init__()
        self.num = num
        self.values = nn.Parameter(torch.randn(num, width) * 0.02)

    def plan(self, walk: Walk) -> Tensor:
        """Which learned vector each new token is, (B' * I,); the new tokens stand behind the others."""
        meta = walk.meta
        fresh = blank_tokens(meta, _groups(meta), self.num, -1 - walk.inserted)
        walk.inserted += 1
        walk.become(concatenate([meta, fresh]), np.arange(len(meta)))
        return torch.arange(self.num).repeat(len(fresh) // self.num)

    def forward(self, x_TD: Tensor, plan: Tensor, flow: Flow) -> Tensor:
        """Append the learned tokens."""
        return torch.cat([x_TD, self.values.to(x_TD.dtype)[plan]])


def _groups(meta: Meta) -> Tensor:
    """One token of each sample (and task) that has any, in order."""
    _, first = np.unique(meta.groups.numpy(), return_index=True)
    return torch.from_numpy(first)


def blank_tokens(meta: Meta, like: Tensor, num: int, column: int) -> Meta:
    """Metadata of new tokens without a place of their own.

    Args:
        meta: the tokens there are.
        like: (G,) tokens whose sample and task the new ones get.
        num: new tokens for each of them.
        column: what they have for a column, below 0.
    """
    chosen = meta.select(like.repeat_interleave(num))
    t = len(chosen)
    return replace(
        chosen,
        column=torch.full((t,), column),
        item=torch.zeros(t, dtype=torch.int64),
        source=torch.full((t,), -1),
        modality=torch.full((t,), meta.num_modalities),
        level=torch.zeros(t, dtype=torch.int64),
        place=torch.full((t, 3), -1, dtype=torch.int64),
        coords=torch.full((t, 3), torch.nan),
        time=torch.full((t,), torch.nan),
        edges=None,
        edge_values=None,
        node=None,
    )
