"""Inserts: learned tokens that join every sample that has any token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unisono.core.registry import Count, Registry
from unisono.core.tokens import Meta, concatenate

# B samples, T tokens, D width, I inserted tokens a sample


@dataclass(frozen=True)
class InsertPlan:
    """Where inserted tokens go: behind the others, ``slot`` (B' * I,) telling which learned vector each is."""

    slot: Tensor

    def to(self, device: torch.device) -> InsertPlan:
        """The same on another device."""
        return InsertPlan(self.slot.to(device))


class Insert(nn.Module):
    """Adds learned tokens: ``plan`` on the host, ``forward`` on the values."""

    num: int

    def plan(self, meta: Meta, number: int) -> tuple[Meta, InsertPlan]:
        """The tokens afterwards.

        Args:
            meta: the tokens before.
            number: the how-manieth insertion of the trunk this is, from 0; inserted tokens get column -1 - number.
        """
        return insert_tokens(meta, self.num, number)


inserts: Registry[Insert] = Registry("insert", Insert, package="unisono.nn", runtime=("width",))


@inserts.register("bottleneck", source="arXiv:2107.00135")
class Bottleneck(Insert):
    """``num`` learned tokens a sample, through which sources can exchange what they know.

    Args:
        width: D.
        num: learned tokens for each sample.
    """

    def __init__(self, *, width: int, num: Count = 4) -> None:
        super().__init__()
        self.num = num
        self.values = nn.Parameter(torch.randn(num, width) * 0.02)

    def forward(self, x_TD: Tensor, plan: InsertPlan) -> Tensor:
        """Append the learned tokens."""
        return torch.cat([x_TD, self.values.to(x_TD.dtype)[plan.slot]])


def insert_tokens(meta: Meta, num: int, number: int) -> tuple[Meta, InsertPlan]:
    """Metadata with ``num`` more tokens for each sample that has any token."""
    present = torch.unique(meta.sample)
    sample = present.repeat_interleave(num)
    t = len(sample)
    slot = torch.arange(num).repeat(len(present))
    place = torch.full((t, 3), -1, dtype=torch.int64)
    fresh = Meta(
        sample=sample,
        column=torch.full((t,), -1 - number),
        item=torch.zeros(t, dtype=torch.int64),
        source=torch.full((t,), -1),
        modality=torch.full((t,), meta.num_modalities),
        level=torch.zeros(t, dtype=torch.int64),
        place=place,
        coords=torch.full((t, 3), torch.nan),
        time=torch.full((t,), torch.nan),
        num_samples=meta.num_samples,
        num_modalities=meta.num_modalities,
    )
    return concatenate([meta, fresh]), InsertPlan(slot)
