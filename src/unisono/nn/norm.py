"""Normalisations over the width of each token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unisono.core.registry import Positive, Registry, Traits

# T tokens, D width


class Norm(nn.Module):
    """Rescales tokens: ``forward((T, D)) -> (T, D)``."""


norms: Registry[Norm] = Registry("norm", Norm, package="unisono.nn", runtime=("width",))


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

    def forward(self, x_TD: Tensor) -> Tensor:
        """Normalise (T, D)."""
        return nn.functional.layer_norm(x_TD, self.weight.shape, self.weight, self.bias, self.eps)


@norms.register("none", traits=Traits(exempt={"source": "the absence of a norm, which no paper claims"}))
class NoNorm(Norm):
    """Leaves tokens as they are: ``y = x``.

    Args:
        width: D.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()

    def forward(self, x_TD: Tensor) -> Tensor:
        """The same (T, D)."""
        return x_TD


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

    def forward(self, x_TD: Tensor) -> Tensor:
        """Normalise (T, D)."""
        return nn.functional.rms_norm(x_TD, self.weight.shape, self.weight, self.eps)
