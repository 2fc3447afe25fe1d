"""The trunk: a schedule of steps over one packed tensor.

``Trunk.plan`` walks the schedule over a batch's metadata on the host; ``Trunk.forward`` walks it over the values. ``nn.grammar`` builds
one from a recipe.

Letters: B samples, T tokens, D width, K tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unisono.core.plan import Plan
from unisono.core.tokens import Meta
from unisono.nn.fork import ForkByTask, Within
from unisono.nn.part import Flow, Frame, Known
from unisono.nn.read import Read
from unisono.nn.step import Step, Visit, Walk
from unisono.nn.tap import Save


@dataclass(frozen=True)
class Result:
    """What a trunk gives.

    Attributes:
        pooled: (B, D), what the last read gave; after a fork by task (K B, D), all samples of a task side by side.
        tokens: (T', D), the tokens as they leave; ``plan.last`` describes them.
        flow: taps, earlier reads and terms of the loss.
    """

    pooled: Tensor
    tokens: Tensor
    flow: Flow


class Trunk(nn.Module):
    """Runs a schedule.

    Args:
        steps: the steps, in order; the last is a read.
        names: a name for each step.
        frame: the model around it.
        sorts_by: the metadata by which its tokens had better be sorted: ``sample`` or ``modality``.
    """

    def __init__(self, *, steps: Sequence[Step], names: Sequence[str], frame: Frame, sorts_by: str = "sample") -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.names = tuple(names)
        self.frame, self.sorts_by = frame, sorts_by

    @property
    def forks(self) -> bool:
        """Whether every target has tokens, and a pooled vector, of its own."""
        return any(isinstance(step, ForkByTask) for step in self.all_steps())

    def all_steps(self) -> Iterator[Step]:
        """Every step, those on selections included."""
        pending = list(self.steps)
        while pending:
            step = pending.pop(0)
            assert isinstance(step, Step)
            yield step
            if isinstance(step, Within):
                pending[:0] = list(step.steps)

    def arrange(self, meta: Meta) -> Tensor:
        """The physical order in which fewest tokens have to be moved, (T,).

        Samples of equal length lie side by side, within a sample source by source; where weights go by modality, modalities come first.
        """
        counts = torch.bincount(meta.sample, minlength=meta.num_samples)
        rank = torch.empty_like(counts)
        rank[torch.argsort(counts, stable=True)] = torch.arange(meta.num_samples)
        sources = int(meta.source.max()) + 1 if len(meta) else 1
        key = rank[meta.sample] * sources + meta.source
        if self.sorts_by == "modality":
            key = key + meta.modality * (meta.num_samples + 1) * sources
        return torch.argsort(key, stable=True)

    def after(self, tap: str) -> int:
        """The number of the first step behind the one that saves this tap; 0 where none does."""
        found = [k for k, step in enumerate(self.steps) if isinstance(step, Save) and step.name == tap]
        return found[0] + 1 if found else 0

    def plan(self, meta: Meta, watch: list[Visit] | None = None, start: int = 0) -> Plan:
        """Work out what every step needs of a batch; nothing but metadata is read.

        Args:
            meta: the tokens as they enter.
            watch: takes down every step's visit, for drawings.
            start: the step that they enter at.
        """
        walk = Walk(Known(meta), watch=watch)
        plans = tuple(walk.visit(step) for step in list(self.steps)[start:] if isinstance(step, Step))
        return Plan(meta, plans, meta.num_samples, walk.meta)

    def run(self, x_TD: Tensor, plan: Plan, start: int = 0) -> Result:
        """From tokens (T, D) to samples, with everything on the way; ``start`` is the step that the plan begins with."""
        flow, pooled = Flow(), x_TD
        for step, name, needs in zip(list(self.steps)[start:], self.names[start:], plan.steps, strict=True):
            if isinstance(step, Read):
                pooled = flow.reads[name] = step(x_TD, needs, flow)
            else:
                x_TD = step(x_TD, needs, flow)
        return Result(pooled, x_TD, flow)

    def forward(self, x_TD: Tensor, plan: Plan) -> Tensor:
        """From tokens (T, D) to samples (B, D), or (K B, D) after a fork by task."""
        return self.run(x_TD, plan).pooled
