"""Rotary positions on up to three axes of the tokens' own grid.

Letters: T tokens, H heads, K width of a head, A axes, F frequencies of an axis.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from unisono.core.errors import ConfigError
from unisono.core.tokens import Meta
from unisono.nn.places import aligned


class Rotary:
    """Angles ``p_a * base^(-f / F)`` for places p along each axis a; an absent axis turns by nothing.

    Pairs of channels are dealt out to the axes in turn, so that queries and keys meet by ``cos`` of the difference of their places.
    With A axes the last A of a token's grid count: a picture turns as a clip of one frame does.
    Source: arXiv:2104.09864, section 3.4; several axes as in arXiv:2403.13298.

    Args:
        axes: A, up to 3.
        size: K.
        base: the slowest turn is one radian in so many places.
    """

    def __init__(self, *, axes: int, size: int, base: float = 100.0) -> None:
        if not 1 <= axes <= 3:
            raise ConfigError(f"rotary positions are for 1 to 3 axes, not {axes}")
        if size % 2 or size < 2 * axes:
            raise ConfigError(f"rotary positions on {axes} axes need an even head width of at least {2 * axes}, not {size}")
        self.axes, self.size, self.base = axes, size, base
        self.key: Hashable = ("rotary", axes, size, base)

    def plan(self, meta: Meta) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, 1, K / 2)."""
        pairs = self.size // 2
        axis = torch.arange(pairs) % self.axes
        turn = torch.arange(pairs) // self.axes
        count = torch.bincount(axis, minlength=self.axes)[axis]
        place = torch.from_numpy(aligned(meta.place.numpy())[:, 3 - self.axes :]).clamp_min(0).double()[:, axis]
        angle = (place * self.base ** (-turn.double() / count))[:, None]
        return angle.cos(), angle.sin()


def rotate(x_THK: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of channels (k, k + K/2) of (T, H, K) by (T, 1, K/2) angles, given as cosines and sines."""
    cos, sin = (a.to(x_THK.dtype) for a in angles)
    a, b = x_THK.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
