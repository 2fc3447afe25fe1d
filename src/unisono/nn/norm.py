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

    def fixed(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift in evaluation, where these do not depend on the tokens: ``y = s x + t``; else None.

        (D,) each, or (M, D) each where a token of modality m gets ``s[m] x + t[m]``, inserted tokens counting as the last modality.
        """
        return None


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
    """``y = x / sqrt(mean(x^2) + eps) * g + b`` over the width of each token; equal to ``layer`` for tokens of mean zero.

    Args:
        width: D.
        eps: added to the mean square.
        shift: whether there is a b.
    """

    def __init__(self, *, width: int, eps: Positive = 1e-6, shift: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if shift else None
        self.eps = eps

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """Normalise (T, D)."""
        y_TD = nn.functional.rms_norm(x_TD, self.weight.shape, self.weight, self.eps)
        return y_TD if self.bias is None else y_TD + self.bias.to(y_TD.dtype)


@norms.register("crms", source="arXiv:2305.14858")
class CompressedRMSNorm(Norm):
    """``y = x / sqrt((sum(x^2) + sum(x)^2) / (D + 1) + eps) * g``: RMSNorm of a token whose last value ``-sum(x)`` is left out.

    A token of D + 1 values that sum to zero is known by D of them. Sums are in float32 or better.

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
        x = x_TD.float() if x_TD.dtype in {torch.bfloat16, torch.float16} else x_TD
        total = x.square().sum(1, keepdim=True) + x.sum(1, keepdim=True).square()
        return (x * torch.rsqrt(total / (x.shape[1] + 1) + self.eps) * self.weight).to(x_TD.dtype)


@norms.register("none", traits=Traits(exempt={"source": "no norm at all"}))
class NoNorm(Norm):
    """``y = x``: for self-normalising layers, or residual branches scaled by depth."""

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        """The same (T, D)."""
        return x_TD
