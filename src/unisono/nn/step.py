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


@dataclass
class Walk:
    """The state of a batch's tokens while a schedule is planned.

    Attributes:
        known: the tokens now, and what has been worked out of them.
        taps: what was saved, by name.
        inserted: how many insertions there have been.
    """

    known: Known
    taps: dict[str, Tap] = field(default_factory=dict)
    inserted: int = 0

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
