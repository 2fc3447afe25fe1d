"""Named taps: ``save`` keeps the tokens as they are, ``bridge`` brings them back in, a layer's ``keys`` looks at them.

Letters: T tokens, T0 tokens at the tap, D width.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.plan import Segments
from unisono.core.registry import Registry
from unisono.core.tokens import Meta
from unisono.nn.norm import LayerNorm
from unisono.nn.part import Flow
from unisono.nn.step import Step, Tap, Walk
from unisono.ops.segment import segment_mean


class Save(Step):
    """Keeps the tokens under a name.

    Args:
        name: the tap's name.
    """

    def __init__(self, *, name: str) -> None:
        super().__init__()
        self.name = name

    def plan(self, walk: Walk) -> Meta:
        """Remember which tokens these are."""
        walk.taps[self.name] = Tap(walk.meta, np.arange(len(walk.meta)))
        return walk.meta

    def forward(self, x_TD: Tensor, plan: Meta, flow: Flow) -> Tensor:
        """Remember their values."""
        flow.taps[self.name], flow.metas[self.name] = x_TD, plan
        return x_TD


class Bridge(Step):
    """Brings a tap's tokens back to where they are now: a token made of several gets their mean, one that is new gets nothing.

    Args:
        tap: the tap's name.
    """

    def __init__(self, *, tap: str) -> None:
        super().__init__()
        self.tap = tap

    def plan(self, walk: Walk) -> tuple[Segments | None, Tensor | None]:
        """Which of the tap's tokens go where, and the tokens that get any; None for one to one."""
        tap = walk.tap(self.tap)
        if len(tap.now) == len(walk.meta) and bool((tap.now == np.arange(len(tap.now))).all()):
            return None, None
        kept = np.flatnonzero(tap.now >= 0)
        index = torch.from_numpy(tap.now[kept])
        gets = torch.bincount(index, minlength=len(walk.meta)) > 0
        segments = Segments(index, None if len(kept) == len(tap.now) else torch.from_numpy(kept), len(walk.meta))
        return segments, None if bool(gets.all()) else gets

    def forward(self, x_TD: Tensor, plan: tuple[Segments | None, Tensor | None], flow: Flow) -> Tensor:
        """Join what the tap gives each token."""
        given, (segments, gets) = flow.taps[self.tap], plan
        if segments is not None:
            given = segment_mean(given if segments.tokens is None else given[segments.tokens], segments.index, segments.num)
        joined = self.join(x_TD, given.to(x_TD.dtype))
        return joined if gets is None else torch.where(gets.unsqueeze(1), joined, x_TD)

    @abstractmethod
    def join(self, x_TD: Tensor, tapped_TD: Tensor) -> Tensor:
        """The tokens with what came over the bridge."""


bridges: Registry[Bridge] = Registry("bridge", Bridge, package="unisono.nn", runtime=("width",))


@bridges.register("add", source="arXiv:1512.03385")
class AddBridge(Bridge):
    """The tap is added: ``x + y``.

    Args:
        tap: the name that a ``save`` gave.
    """

    def join(self, x_TD: Tensor, tapped_TD: Tensor) -> Tensor:
        """Add."""
        return x_TD + tapped_TD


@bridges.register("linear", source="arXiv:2206.08657")
class LinearBridge(Bridge):
    """The tap is projected, added and normalised: ``LayerNorm(x + W y + b)``.

    Args:
        width: D.
        tap: the name that a ``save`` gave.
    """

    def __init__(self, *, width: int, tap: str) -> None:
        super().__init__(tap=tap)
        self.project, self.norm = nn.Linear(width, width), LayerNorm(width=width)

    def join(self, x_TD: Tensor, tapped_TD: Tensor) -> Tensor:
        """Project, add, normalise."""
        result: Tensor = self.norm(x_TD + self.project(tapped_TD))
        return result
