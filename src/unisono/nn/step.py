"""A step of a trunk's schedule: what it plans on the host and does to the values, and what flows from step to step.

Letters: T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.tokens import Meta
from unisono.nn.part import Flow, Known


@dataclass
class Tap:
    """Tokens that a ``save`` kept.

    Attributes:
        meta: the tokens as they were.
        now: where each is among the tokens now; several may have become one, -1 is gone.
    """

    meta: Meta
    now: NDArray[np.int64]


@dataclass(frozen=True)
class Visit:
    """What a step was given while it was planned, and what it made of it.

    Attributes:
        step: the step.
        before: the tokens it was given; within a selection those alone.
        after: the tokens it left.
        plan: what it planned.
        taps: the tokens of each tap that there was, by name.
    """

    step: Step
    before: Meta
    after: Meta
    plan: Any
    taps: dict[str, Meta]


@dataclass
class Walk:
    """The state of a batch's tokens while a schedule is planned.

    Attributes:
        known: the tokens now, and what has been worked out of them.
        taps: what was saved, by name.
        inserted: how many insertions there have been.
        watch: takes down every step's visit, those within selections included, for drawings; None for nobody looking.
    """

    known: Known
    taps: dict[str, Tap] = field(default_factory=dict)
    inserted: int = 0
    watch: list[Visit] | None = None

    def visit(self, step: Step) -> Any:
        """Plan a step."""
        if self.watch is None:
            return step.plan(self)
        before, taps = self.meta, {name: tap.meta for name, tap in self.taps.items() if name}
        plan = step.plan(self)
        self.watch.append(Visit(step, before, self.meta, plan, taps))
        return plan

    @property
    def meta(self) -> Meta:
        """The tokens now."""
        return self.known.meta

    def tap(self, name: str) -> Tap:
        """What was saved under a name."""
        return self.taps[name]

    def become(self, meta: Meta, moved: NDArray[np.int64]) -> None:
        """Go on with other tokens.

        Args:
            meta: the tokens from now on.
            moved: (T,) where each of the tokens up to now is among them, -1 for nowhere.
        """
        self.known = Known(meta)
        for tap in self.taps.values():
            tap.now = np.where(tap.now >= 0, moved[np.maximum(tap.now, 0)] if len(moved) else -1, -1)


class Step(nn.Module):
    """One step: ``plan(walk)`` on the host, which may change the tokens; ``forward((T, D), plan, flow) -> (T', D)``."""

    def plan(self, walk: Walk) -> Any:
        """What ``forward`` needs."""
        raise NotImplementedError

    def forward(self, x_TD: Tensor, plan: Any, flow: Flow) -> Tensor:
        """Do the step."""
        raise NotImplementedError
