"""Reads: from a sample's tokens to one vector a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.plan import Segments, combine
from unisono.core.registry import Registry, Traits
from unisono.core.tokens import Meta
from unisono.nn.norm import Norm
from unisono.ops.segment import segment_mean

# B samples, T tokens, D width, G groups


@dataclass(frozen=True)
class ReadPlan:
    """What a read needs of a batch.

    Attributes:
        stages: segments to be averaged one after the other; the last yields the samples.
        empty: (B,) bool, samples without any token, or None when there is none.
    """

    stages: tuple[Segments, ...]
    empty: Tensor | None

    def to(self, device: torch.device) -> ReadPlan:
        """The same on another device."""
        return ReadPlan(tuple(s.to(device) for s in self.stages), None if self.empty is None else self.empty.to(device))


class Read(nn.Module):
    """Pools tokens: ``plan(meta)`` on the host, ``forward((T, D), plan) -> (B, D)``."""

    def plan(self, meta: Meta) -> ReadPlan:
        """What ``forward`` needs."""
        raise NotImplementedError


reads: Registry[Read] = Registry("read", Read, package="unisono.nn", runtime=("width",))


@reads.register("mean", traits=Traits(exempt={"source": "an average, which no paper claims"}))
class MeanRead(Read):
    """The mean over a sample's normalised tokens; with ``by=source`` the mean over its sources of their means.

    Inserted tokens are not read. A sample without any token is read as a learned vector.

    Args:
        width: D.
        by: ``token`` weighs every token alike, ``source`` every source.
        norm: applied to the tokens first.
    """

    def __init__(self, *, width: int, by: Literal["token", "source"] = "token", norm: Norm | None = None) -> None:
        super().__init__()
        self.by = by
        self.norm = norm if norm is not None else nn.Identity()
        self.nothing = nn.Parameter(torch.zeros(width))

    def plan(self, meta: Meta) -> ReadPlan:
        """Segments of sources and samples."""
        real = torch.nonzero(meta.column >= 0).squeeze(1)
        tokens = None if len(real) == len(meta) else real
        sample = meta.sample[real]
        counts = torch.bincount(sample, minlength=meta.num_samples)
        empty = None if bool((counts > 0).all()) else counts == 0
        if self.by == "token":
            return ReadPlan((Segments(sample, tokens, meta.num_samples),), empty)
        label = combine([sample.numpy(), meta.source[real].numpy()])
        _, first, group = np.unique(label, return_index=True, return_inverse=True)
        by_group = Segments(torch.from_numpy(group), tokens, len(first))
        return ReadPlan((by_group, Segments(sample[torch.from_numpy(first)], None, meta.num_samples)), empty)

    def forward(self, x_TD: Tensor, plan: ReadPlan) -> Tensor:
        """Pool (T, D) to (B, D), in float32."""
        x: Tensor = self.norm(x_TD).float()
        for stage in plan.stages:
            x = segment_mean(x if stage.tokens is None else x[stage.tokens], stage.index, stage.num)
        if plan.empty is None:
            return x
        return torch.where(plan.empty.unsqueeze(1), self.nothing.float(), x)
