"""The moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average of a module's parameters.

    ``a <- a + (1 - d)(w - a)`` with ``d = min(decay, (1 + t) / (10 + t))`` at update t, so that the early, poor weights are
    soon forgotten. Buffers are taken as they are.

    Args:
        module: whose parameters are averaged.
        decay: the long-run decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.averages.values()), [p.detach() for p in self._weights.values()], 1.0 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the module the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self._weights.items():
            kept = p.detach().clone()
            p.copy_(self.averages[name])
            self.averages[name].copy_(kept)
