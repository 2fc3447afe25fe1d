"""Where a token lies, as a vector: Fourier features of grid places, coordinates or times, followed by a linear map.

Letters: T tokens, A axes, F frequencies, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def fourier_features(at: Tensor, waves: Tensor) -> Tensor:
    """Sines and cosines of positions: ``[sin(2 pi p / w), cos(2 pi p / w)]`` for each axis and wavelength; zero where absent.

    Args:
        at: (T, A) positions; whole numbers below zero and NaN mean that the axis is absent.
        waves: (F,) wavelengths in the unit of the positions.

    Returns:
        (T, 2 A F) float32.
    """
    absent = torch.isnan(at) if at.is_floating_point() else at < 0
    angle = at.masked_fill(absent, 0).float()[..., None] * (2 * math.pi / waves.float())
    both = torch.cat([angle.sin(), angle.cos()], -1)
    return both.masked_fill(absent[..., None], 0.0).flatten(1)


class Position(nn.Module):
    """A linear map of Fourier features with geometrically spaced wavelengths (Vaswani et al. 2017, arXiv:1706.03762, learned on top).

    An absent axis (-1 in whole numbers, NaN in floats) adds exactly zero.

    Args:
        axes: A, how many axes are read (the last dimension of the positions).
        width: D.
        shortest: the shortest wavelength; 2 tells neighbouring grid places apart.
        longest: the longest wavelength; above the largest extent, so that no two positions look alike.
        frequencies: F, wavelengths for each axis.
        gain: the size of a place's vector at first, in units of the square root of its entries.
    """

    waves: Tensor

    def __init__(
        self, axes: int, width: int, *, shortest: float = 4.0, longest: float = 256.0, frequencies: int = 12, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.register_buffer("waves", torch.logspace(math.log10(shortest), math.log10(longest), frequencies), persistent=False)
        self.linear = nn.Linear(2 * axes * frequencies, width, bias=False)
        nn.init.normal_(self.linear.weight, std=gain / math.sqrt(axes * frequencies))

    def forward(self, at: Tensor) -> Tensor:
        """(T, A) whole or float positions -> (T, D); a vector (T,) is read as one axis."""
        at = at[:, None] if at.dim() == 1 else at
        mapped: Tensor = self.linear(fourier_features(at, self.waves).to(self.linear.weight.dtype))
        return mapped
