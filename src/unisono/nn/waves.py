"""Where a token stands along one axis, as sines and cosines under a learned linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Waves(nn.Module):
    """Sines and cosines of one coordinate, mapped to the width.

    f(x) = W [sin(w_k x), cos(w_k x)], w_k = (2 pi / shortest) (shortest / longest)^(k / (n - 1)): the
    geometric periods of arXiv:1706.03762.

    Args:
        width: D.
        shortest: the shortest period, in units of the coordinate.
        longest: the longest period.
        count: n, the number of periods.
    """

    frequencies: Tensor

    def __init__(self, *, width: int, shortest: float, longest: float, count: int = 16) -> None:
        super().__init__()
        steps = torch.linspace(0, 1, count)
        self.register_buffer("frequencies", 2 * torch.pi / shortest * (shortest / longest) ** steps, persistent=False)
        self.out = nn.Linear(2 * count, width, bias=False)
        nn.init.normal_(self.out.weight, std=0.3 / count**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D) for coordinates (T,)."""
        angle = x.to(self.out.weight.dtype)[:, None] * self.frequencies.to(self.out.weight.dtype)
        return self.out(torch.cat([angle.sin(), angle.cos()], 1))  # type: ignore[no-any-return]
