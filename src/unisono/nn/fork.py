"""Steps for some of the tokens: ``on`` runs steps on a selection, ``fork`` sends tokens down different branches.

Letters: T tokens, T1 selected tokens, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unisono.core.names import Selection
from unisono.core.tokens import concatenate
from unisono.nn.part import Flow, Known
from unisono.nn.step import Step, Tap, Walk


@dataclass(frozen=True)
class WithinPlan:
    """What steps on a selection need.

    Attributes:
        chosen: (T1,) the selected tokens; None when they are all.
        rest: (T - T1,) the others, where the steps changed how many tokens there are; None where each stays in its place.
        steps: what each step needs.
    """

    chosen: Tensor | None
    rest: Tensor | None
    steps: tuple[Any, ...]


class Within(Step):
    """Runs steps on the selected tokens alone; the others are neither changed nor seen.

    Args:
        selection: the tokens.
        steps: what is done to them.
    """

    def __init__(self, *, selection: Selection, steps: Sequence[Step]) -> None:
        super().__init__()
        self.selection = selection
        self.steps = nn.ModuleList(steps)

    def plan(self, walk: Walk) -> WithinPlan:
        """Plan the steps on the selection, and put the tokens together again."""
        meta = walk.meta
        mask = self.selection.mask(meta)
        chosen = np.flatnonzero(mask)
        inner = self._enter(walk, chosen, bool(mask.all()))
        before = inner.known
        plans = tuple(inner.visit(step) for step in self.steps if isinstance(step, Step))
        walk.inserted = inner.inserted
        here = inner.taps.pop("")
        if inner.known is before:
            self._take_over(walk, inner, chosen)
            return WithinPlan(None if mask.all() else torch.from_numpy(chosen), None, plans)
        rest = np.flatnonzero(~mask)
        moved = np.full(len(meta), -1, np.int64)
        moved[rest] = np.arange(len(rest))
        moved[chosen] = np.where(here.now >= 0, here.now + len(rest), -1)
        walk.become(concatenate([meta.select(torch.from_numpy(rest)), inner.meta]), moved)
        self._take_over(walk, inner, len(rest) + np.arange(len(inner.meta)))
        return WithinPlan(torch.from_numpy(chosen), torch.from_numpy(rest), plans)

    def _enter(self, walk: Walk, chosen: np.ndarray[Any, Any], everything: bool) -> Walk:
        """The walk as the selected tokens see it; the tap without a name tells what becomes of them."""
        meta = walk.meta
        place = np.full(len(meta) + 1, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        known = (
            walk.known
            if everything
            else walk.known.once(("within", str(self.selection)), lambda: Known(meta.select(torch.from_numpy(chosen))))
        )
        taps = {name: Tap(tap.meta, place[tap.now]) for name, tap in walk.taps.items()}
        return Walk(known, {**taps, "": Tap(known.meta, np.arange(len(chosen)))}, walk.inserted, walk.watch)

    @staticmethod
    def _take_over(walk: Walk, inner: Walk, outer: np.ndarray[Any, Any]) -> None:
        """Taps that the steps saved, at their places among all tokens."""
        outer = np.append(outer, -1)
        for name, tap in inner.taps.items():
            if name not in walk.taps:
                walk.taps[name] = Tap(tap.meta, outer[tap.now])

    def forward(self, x_TD: Tensor, plan: WithinPlan, flow: Flow) -> Tensor:
        """Run the steps."""
        part = x_TD if plan.chosen is None else x_TD[plan.chosen]
        for step, needs in zip(self.steps, plan.steps, strict=True):
            part = step(part, needs, flow)
        if plan.chosen is None:
            return part
        if plan.rest is None:
            return x_TD.index_copy(0, plan.chosen, part.to(x_TD.dtype))
        return torch.cat([x_TD[plan.rest].to(part.dtype), part])


class ForkByTask(Step):
    """From here on every target has tokens of its own: each token is repeated K times, and copies of different tasks never mix.

    Source: arXiv:2506.17202. Layers behind it with ``sharing: task`` have weights for each target; with another sharing the copies
    differ only where a ``fork`` or ``on`` says so.

    Args:
        num_tasks: K.
    """

    def __init__(self, *, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks

    def plan(self, walk: Walk) -> None:
        """Repeat the tokens, all of a task side by side."""
        meta = walk.meta
        copies = [replace(meta, task=torch.full((len(meta),), k)) for k in range(self.num_tasks)]
        walk.become(concatenate(copies), np.arange(len(meta)))

    def forward(self, x_TD: Tensor, plan: None, flow: Flow) -> Tensor:
        """(T, D) to (K T, D)."""
        return x_TD.repeat(self.num_tasks, 1)
