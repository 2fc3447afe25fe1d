"""Batch normalisation over each modality's tokens.

Letters: T tokens, D width, M modalities.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unisono.core.registry import Fraction, Positive, Traits
from unisono.nn.moments import IN_TRAINING, ByModality, count_and_means, wide
from unisono.nn.norm import norms
from unisono.nn.part import Frame


@norms.register("batch", source="arXiv:1502.03167", traits=Traits(exempt={"samples": IN_TRAINING}))
class BatchNorm(ByModality):
    """``y = (x - mean) / sqrt(var + eps) * g + b`` with mean and variance of a channel over all tokens of a modality.

    In training they are the batch's, over all processes and with gradient; the running ones, plain means over the first batches and then
    exponential ones, serve in evaluation. Variances run unbiased. Computed in float32 or better.

    Args:
        width: D.
        frame: knows M.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, *, width: int, frame: Frame, eps: Positive = 1e-5, momentum: Fraction = 0.1) -> None:
        super().__init__(width=width, frame=frame, eps=eps)
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(self.num, width))
        self.register_buffer("var", torch.ones(self.num, width))

    def statistics(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (M, D) to normalise (T, D) by; in training the running ones take the batch in."""
        if not self.training:
            return self.mean, self.var
        # sums are taken about the running mean, so that a large mean does not drown the variance
        about_MD = self.mean.clone()
        x = x - about_MD[index]
        count, (mean_MD, square_MD) = count_and_means([x, x * x], index, self.num)
        var_MD = (square_MD - mean_MD * mean_MD).clamp(min=0)
        mean_MD = about_MD + mean_MD
        self._run(count, mean_MD.detach(), var_MD.detach())
        return mean_MD, var_MD

    def normalised(self, x_TD: Tensor, index: Tensor) -> Tensor:
        """``(x - mean) / sqrt(var + eps)``, (T, D) in float32 or better."""
        x = wide(x_TD)
        mean_MD, var_MD = self.statistics(x, index)
        return (x - mean_MD[index]) * torch.rsqrt(var_MD + self.eps)[index]

    @torch.no_grad()
    def _run(self, count: Tensor, mean_MD: Tensor, var_MD: Tensor) -> None:
        seen = (count > 0).unsqueeze(1)
        self.batches += seen.squeeze(1)
        unbiased = var_MD * (count / (count - 1).clamp(min=1)).unsqueeze(1)
        rate = self.rate(self.momentum)
        self.mean.copy_(torch.where(seen, torch.lerp(self.mean, mean_MD.to(self.mean.dtype), rate), self.mean))
        self.var.copy_(torch.where(seen, torch.lerp(self.var, unbiased.to(self.var.dtype), rate), self.var))

    def fixed(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift in evaluation: ``y = x s[m] + t[m]`` for a token of modality m; (M, D) each."""
        scale = self.weight * torch.rsqrt(self.var + self.eps)
        return scale, self.bias - self.mean * scale

    def forward(self, x_TD: Tensor, plan: Any) -> Tensor:
        """Normalise (T, D) by the modalities (T,)."""
        return self.affine(self.normalised(x_TD, plan), x_TD)
