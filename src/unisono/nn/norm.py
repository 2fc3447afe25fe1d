"""Normalisations over the width of each token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unisono.core.registry import Positive, Registry, Traits
from unisono.nn.part import Part

# T tokens, D width


class Norm(Part):
    """Rescales tokens: ``forward((T, D), plan) -> (T, D)``."""


norms: Registry[Norm] = Registry("norm", Norm, package="unisono.nn", runtime=("width", "frame"))


@norms.register("layer", source="arXiv:1607.06450")
class LayerNorm(Norm):
    """``y = (x - mean(x)) / sqrt(var(x) + eps) * g + b`` over the width of each token, computed in float32.

    Args:
        width: D.
        eps: added to the variance.
    """

    def __init__(self, *, width: int, eps: Positive = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Normalise (T, D)."""
        return nn.functional.layer_norm(x_TD, self.weight.shape, self.weight, self.bias, self.eps)


@norms.register("rms", source="arXiv:1910.07467")
class RMSNorm(Norm):
    """``y = x / sqrt(mean(x^2) + eps) * g`` over the width of each token.

    Args:
        width: D.
        eps: added to the mean square.
    """

    def __init__(self, *, width: int, eps: Positive = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Normalise (T, D)."""
        return nn.functional.rms_norm(x_TD, self.weight.shape, self.weight, self.eps)


@norms.register("none", traits=Traits(exempt={"source": "no norm at all"}))
class NoNorm(Norm):
    """``y = x``: for self-normalising layers, or residual branches scaled by depth."""

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """The same (T, D)."""
        return x_TD
