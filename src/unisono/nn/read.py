"""Reads: from a sample's tokens to one vector a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.plan import Segments
from unisono.core.registry import Registry, Traits
from unisono.core.relation import combine
from unisono.core.tokens import Meta
from unisono.nn.norm import Norm
from unisono.nn.part import Flow, Frame, Part
from unisono.nn.step import Step, Walk
from unisono.ops.segment import segment_max, segment_mean

# B samples, T tokens, D width, G groups, K tasks


@dataclass(frozen=True)
class ReadPlan:
    """What a read needs of a batch.

    Attributes:
        norm: of the norm, over all tokens.
        stages: segments to be averaged one after the other; the last yields the samples.
        empty: (B,) bool, samples without any token, or None when there is none.
    """

    norm: Any
    stages: tuple[Segments, ...]
    empty: Tensor | None


class Read(Step):
    """Pools the tokens that ``chosen`` names to (B, D), or after a fork by task to (B K, D), all samples of a task side by side.

    A sample without any such token is read as a learned vector.

    Args:
        width: D.
        frame: knows the tasks.
        norm: applied to the tokens first.
    """

    norm: Part

    def __init__(self, *, width: int, frame: Frame, norm: Norm | None = None) -> None:
        super().__init__()
        self.num_tasks = frame.num_tasks
        self.given_norm = norm is not None
        if norm is not None:
            self.norm = norm
        self.nothing = nn.Parameter(torch.zeros(width))

    def chosen(self, meta: Meta) -> Tensor:
        """(T,) bool, the tokens that are read."""
        return meta.column >= 0

    def stages(self, meta: Meta, row: Tensor, rows: int, tokens: Tensor | None) -> tuple[Segments, ...]:
        """How tokens are averaged.

        Args:
            meta: the chosen tokens.
            row: (T',) the row of the result each goes into.
            rows: B or B K.
            tokens: (T',) which of all tokens they are, or None for all.
        """
        return (Segments(row, tokens, rows),)

    def plan(self, walk: Walk) -> ReadPlan:
        """Segments of samples."""
        meta = walk.meta
        real = torch.nonzero(self.chosen(meta)).squeeze(1)
        tokens = None if len(real) == len(meta) else real
        mine = meta.select(real)
        row, rows = mine.sample, meta.num_samples
        if meta.task is not None:
            assert mine.task is not None
            row, rows = row + mine.task.clamp_min(0) * rows, rows * self.num_tasks
        counts = torch.bincount(row, minlength=rows)
        empty = None if bool((counts > 0).all()) else counts == 0
        return ReadPlan(walk.known.part(self.norm), self.stages(mine, row, rows, tokens), empty)

    def pool(self, x: Tensor, stage: Segments) -> Tensor:
        """One stage."""
        return segment_mean(x, stage.index, stage.num)

    def forward(self, x_TD: Tensor, plan: ReadPlan, flow: Flow) -> Tensor:
        """Pool (T, D), in float32 or better."""
        x: Tensor = self.norm(x_TD, plan.norm)
        x = x.float() if x.dtype in {torch.bfloat16, torch.float16} else x
        for stage in plan.stages:
            x = self.pool(x if stage.tokens is None else x[stage.tokens], stage)
        if plan.empty is None:
            return x
        return torch.where(plan.empty.unsqueeze(1), self.nothing.to(x.dtype), x)


reads: Registry[Read] = Registry("read", Read, package="unisono.nn", runtime=("width", "frame"))


@reads.register("mean", traits=Traits(exempt={"source": "an average, which no paper claims"}))
class MeanRead(Read):
    """The mean over a sample's normalised tokens; with ``by=source`` the mean over its sources of their means.

    Args:
        width: D.
        frame: knows the tasks.
        by: ``token`` weighs every token alike, ``source`` every source.
        norm: applied to the tokens first.
        inserted: whether inserted tokens are read too, as one more source: where resampling has joined several.
    """

    def __init__(
        self, *, width: int, frame: Frame, by: Literal["token", "source"] = "token", norm: Norm | None = None, inserted: bool = False
    ) -> None:
        super().__init__(width=width, frame=frame, norm=norm)
        self.by, self.inserted = by, inserted

    def chosen(self, meta: Meta) -> Tensor:
        """Tokens of columns, or all."""
        return torch.ones_like(meta.column, dtype=torch.bool) if self.inserted else super().chosen(meta)

    def stages(self, meta: Meta, row: Tensor, rows: int, tokens: Tensor | None) -> tuple[Segments, ...]:
        """Samples, or sources and then samples."""
        if self.by == "token":
            return super().stages(meta, row, rows, tokens)
        label = combine([row.numpy(), meta.source.numpy()])
        _, first, group = np.unique(label, return_index=True, return_inverse=True)
        return Segments(torch.from_numpy(group), tokens, len(first)), Segments(row[torch.from_numpy(first)], None, rows)


@reads.register("max", traits=Traits(exempt={"source": "a maximum, which no paper claims"}))
class MaxRead(Read):
    """The largest value of each channel over a sample's normalised tokens; inserted ones are not read."""

    def pool(self, x: Tensor, stage: Segments) -> Tensor:
        """The maximum."""
        return segment_max(x, stage.index, stage.num)


@reads.register("inserted", source="arXiv:1810.04805")
class InsertedRead(Read):
    """The mean over a sample's inserted tokens: a class token, or a state that sources have written to."""

    def chosen(self, meta: Meta) -> Tensor:
        """Inserted tokens."""
        return meta.column < 0
